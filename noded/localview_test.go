package noded

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"rolekey/cluster"
	"rolekey/rpc"
)

// A masterd that asks while the member cannot start must not hear that there is
// no cluster: it would give up what it leads.
func TestG7MasterdIsNotToldToForget(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.masterd.start()
	h.up()
	view := func() (v rpc.LocalViewReply, err error) {
		err = h.local.Do(t.Context(), http.MethodGet, rpc.LocalView, nil, &v)
		return v, err
	}
	if v, err := view(); err != nil || !v.Cluster.IsZero() {
		t.Errorf("outside of a cluster: %s, %v", v.Cluster, err)
	}
	if _, err := h.init(initRequest(h)); err != nil {
		t.Fatal(err)
	}
	h.stop()
	key := filepath.Join(h.cfg.Paths.NodeDir(), "server.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	h.up()
	if v, err := view(); cluster.CodeOf(err) != cluster.CodeUnavailable {
		t.Errorf("without its key: %s, %v", v.Cluster, err)
	}
	h.stop()
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	h.up()
	if v, err := view(); err != nil || v.Cluster.IsZero() {
		t.Errorf("with its key again: %s, %v", v.Cluster, err)
	}
}

// TestG4MasterdIsToldInTime: an acknowledgement waits for a masterd that may act
// for a candidate, as far as noded knows.
func TestG4MasterdIsToldInTime(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := joined(t, w)
	id := h.member().id.Node
	silent := func() { h.masterd.setFail(func(string) error { return errLost }) }
	problems := func(what string, want int) {
		t.Helper()
		if ack := w.mustPush(id); len(ack.Problems) != want {
			t.Errorf("%s: problems %q, want %d", what, ack.Problems, want)
		}
	}
	h.poll("masterd knows that it has nothing to do", h.member().masterd.idle)
	w.promote(h, false)
	silent()
	problems("promoted, masterd fails", 1)
	w.demote(id)
	problems("demoted, masterd never confirmed", 1)
	h.masterd.setFail(nil)
	h.poll("masterd is told at last", func() bool { return len(w.mustPush(id).Problems) == 0 && h.member().masterd.idle() })

	// It asked by itself, and may act by what it got.
	w.promote(h, false)
	problems("promoted", 0)
	var v rpc.LocalViewReply
	if err := h.local.Do(t.Context(), http.MethodGet, rpc.LocalView, nil, &v); err != nil {
		t.Fatal(err)
	}
	silent()
	w.demote(id)
	problems("demoted, masterd fails", 1)
}
