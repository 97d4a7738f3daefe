package noded

import (
	"errors"
	"strings"
	"testing"
)

// TestG4OlderViewIsNotWrittenLast: whoever looks after authorized_keys while a
// map takes a key away does not bring it back.
func TestG4OlderViewIsNotWrittenLast(t *testing.T) {
	t.Parallel()
	w, h := founded(t)
	other := joined(t, w)
	id, m := h.member().id.Node, h.member()
	for range 5 {
		w.promote(other, false)
		w.mustPush(id)
		w.mustPush(other.member().id.Node)
		public, _, _ := strings.Cut(other.read(other.cfg.Paths.SSHPublicKey()), " rolekey:")
		if !strings.Contains(h.authorizedKeys(), public) {
			t.Fatalf("the candidate's key is not there:\n%s", h.authorizedKeys())
		}
		before := m.keeper.View()
		m.ssh.mu.Lock()
		looked := make(chan error, 1)
		go func() { looked <- m.authorize(t.Context()) }()
		w.demote(other.member().id.Node)
		pushed := make(chan error, 1)
		go func() {
			_, err := w.push(id)
			pushed <- err
		}()
		h.poll("the map is in force", func() bool { return m.keeper.View() != before })
		m.ssh.mu.Unlock()
		if err := errors.Join(<-pushed, <-looked); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(h.authorizedKeys(), public) {
			t.Fatalf("a key that was taken away is back:\n%s", h.authorizedKeys())
		}
		w.mustPush(other.member().id.Node)
	}
}
