package noded

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/internal/audit"
	"rolekey/rpc"
)

// eventually looks at files until something is so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * patience); !ok(); { // events may be answered late
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen", what)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func (h *host) hasBlock(path string) bool {
	return strings.Contains(h.read(path), "# END ROLEKEY "+h.member().id.Cluster.String())
}

// removeAll removes a folder that noded may be writing into.
func removeAll(dir string) (err error) {
	for range 100 {
		if err = os.RemoveAll(dir); !errors.Is(err, syscall.ENOTEMPTY) {
			break
		}
	}
	return err
}

// TestG8ManagerRewrites: what a configuration manager does to the files is put
// right within a few seconds, its own lines stay, and it is written down.
func TestG8ManagerRewrites(t *testing.T) {
	t.Parallel()
	_, h := founded(t)
	keys, known, dropIn := h.cfg.SSH.AuthorizedKeys, h.cfg.SSH.KnownHosts, h.cfg.Paths.SSHDropIn()
	eventually(t, "the files", func() bool { return h.hasBlock(keys) && h.hasBlock(known) && exists(dropIn) })
	const foreign = "# the manager's\n"
	for what, change := range map[string]func() error{
		"rewritten in place": func() error {
			return errors.Join(os.WriteFile(keys, []byte(foreign), 0o600), os.WriteFile(known, []byte(foreign), 0o600), os.WriteFile(dropIn, nil, 0o600))
		},
		"replaced": func() error {
			return errors.Join(os.WriteFile(keys+".new", []byte(foreign), 0o600), os.Rename(keys+".new", keys), os.Remove(known), os.Remove(dropIn))
		},
		"another folder": func() error {
			dir := filepath.Dir(keys)
			return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700), os.WriteFile(keys, []byte(foreign), 0o600), removeAll(dir+".old"))
		},
		"no folder": func() error { return removeAll(filepath.Dir(keys)) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		eventually(t, what, func() bool {
			return h.hasBlock(keys) && h.hasBlock(known) && strings.Contains(h.read(dropIn), "Match localuser")
		})
		if what != "no folder" && !strings.Contains(h.read(keys), foreign) {
			t.Errorf("%s: the manager's line is gone:\n%s", what, h.read(keys))
		}
	}
	var s rpc.NodeState
	h.member().ssh.state(t.Context(), h.member().keeper.View(), &s)
	if !strings.Contains(strings.Join(s.BlockProblems, "\n"), "something else keeps rewriting it") {
		t.Errorf("problems %q", s.BlockProblems)
	}
	h.stop()
	text := h.read(h.cfg.Paths.NodedAudit())
	for _, path := range []string{keys, known, dropIn} {
		n := 0
		for l := range strings.Lines(text) {
			if strings.Contains(l, string(audit.KeysRepaired)) && strings.Contains(l, path+`"`) {
				n++
			}
		}
		if n != 1 { // the others wait for their minute
			t.Errorf("%s: %d lines in the audit log:\n%s", path, n, text)
		}
	}
}

// TestCalm: whoever rewrites a file all the time is answered every five seconds,
// and a file in the middle of a change is left alone for a moment.
func TestCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan struct{}, 1)
		c := newCalm(events)
		wait := func() time.Duration {
			began := time.Now()
			if _, err := c.wait(t.Context(), sshRound, nil); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		if got := wait(); got != sshRound {
			t.Errorf("nothing happens: %s", got)
		}
		poke(events)
		if got := wait(); got != quietFor {
			t.Errorf("one event: %s", got)
		}
		for range 10 { // our own changes are events as well, and cost nothing
			poke(events)
			if got := wait(); got != quietFor {
				t.Errorf("nothing to put right: %s", got)
			}
		}
		answers, end := 0, time.Now().Add(10*time.Minute)
		for time.Now().Before(end) {
			poke(events) // as soon as it was answered
			wait()
			c.answered() // there was something to put right
			answers++
		}
		if answers < 100 || answers > 125 {
			t.Errorf("%d answers within ten minutes", answers)
		}
		// Events without end.
		tick := time.NewTicker(quietFor / 2)
		defer tick.Stop()
		c = newCalm(tickEvents(t, tick))
		if got := wait(); got > quietMost+quietFor {
			t.Errorf("events without end: %s", got)
		}
	})
}

func tickEvents(t *testing.T, tick *time.Ticker) <-chan struct{} {
	events := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-tick.C:
				poke(events)
			case <-t.Context().Done():
				return
			}
		}
	}()
	return events
}

// TestRepairsAreCounted: a fight over a file is a line a minute.
func TestRepairsAreCounted(t *testing.T) {
	at := filepath.Join(t.TempDir(), "audit.log")
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	log := audit.New(audit.Config{Path: at, Daemon: "noded", Now: func() time.Time { return now }})
	end := log.Start(t.Context(), "v")
	s := &sshFiles{now: func() time.Time { return now }, audit: log}
	for range 24 { // two minutes, every five seconds
		s.repaired("/k", 1)
		now = now.Add(5 * time.Second)
	}
	if r := s.rivals(); len(r) != 1 || !strings.Contains(r[0], "/k was put right 24 times within 10 minutes") {
		t.Errorf("rivals %q", r)
	}
	now = now.Add(repairWindow + time.Minute)
	s.tellRepairs()
	if r := s.rivals(); len(r) != 0 {
		t.Errorf("long after: %q", r)
	}
	end()
	text, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"count":1}`, `"count":12}`, `"count":11}`} {
		if strings.Count(string(text), want) != 1 {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}
