package jobs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// SSHSettle waits in the time of the test, which is virtual. A machine that is
// asked again answers as it is then.
func (w *world) SSHSettle(ctx context.Context, node cluster.NodeID, r rpc.SSHSettleRequest) (reply rpc.SSHSettleReply, err error) {
	what, logins := "settle logins of ", &w.machines[node].ssh.logins
	if r.Clients {
		what, logins = "settle ssh of ", &w.machines[node].ssh.clients
	}
	var last time.Duration
	err = w.call(ctx, what+w.name(node), func() error {
		switch last = *logins; {
		case !w.machines[node].up:
			return errors.New("no route to host")
		case w.lab.S.Node(node) == nil || r.Version.Newer(w.lab.S.Head().Version):
			return cluster.Errorf(cluster.CodeConflict, "map %s", w.lab.S.Head().Version)
		case last < 0:
			return cluster.Errorf(cluster.CodeNotFound, "no such method")
		}
		return nil
	})
	if err != nil {
		return reply, err
	}
	granted := time.Duration(r.WaitMS) * time.Millisecond
	if takes := min(last, granted); takes > 0 { // the race detector crashes on timers that are due at once
		err = wait(ctx, time.After(takes))
	}
	return rpc.SSHSettleReply{Settled: last <= granted}, err
}

// held is what a world saw of a time in which old and new keys were good.
type held struct {
	calls []string
	at    []time.Duration // of each, since the map that lists both
	took  time.Duration   // until the map that lists the new ones alone
}

// watchHold notes when what is called, from the map that lists both keys on.
func (w *world) watchHold(also func(what string)) *held {
	h := &held{}
	var began time.Time
	w.onCall = func(what string) {
		w.mu.Lock()
		switch {
		case what == "change ssh-keys" && began.IsZero():
			began = time.Now()
		case what == "change ssh-keys":
			h.took = time.Since(began)
		case !began.IsZero():
			h.calls, h.at = append(h.calls, what), append(h.at, time.Since(began))
		}
		w.mu.Unlock()
		if also != nil && !began.IsZero() {
			also(what)
		}
	}
	return h
}

// TestOldKeysGoWhenNobodyNeedsThem: the map lists both keys as long as a login
// that is under way may need the old one, not longer, and never longer than ever.
func TestOldKeysGoWhenNobodyNeedsThem(t *testing.T) {
	const second = time.Second
	for name, c := range map[string]struct {
		spoil    func(w *world)
		min, max time.Duration
	}{
		"nobody logs in":        {func(*world) {}, overlapFloor, overlapFloor},
		"to the master":         {func(w *world) { w.at(1).ssh.logins = second }, overlapFloor + second, overlapFloor + second},
		"to a normal node":      {func(w *world) { w.at(5).ssh.logins = second }, overlapFloor + second, overlapFloor + second},
		"to several":            {func(w *world) { w.at(1).ssh.logins, w.at(4).ssh.logins = second, 2*second }, overlapFloor + 2*second, overlapFloor + 2*second},
		"to an offline node":    {func(w *world) { w.at(5).ssh.logins = second; w.offline(5) }, overlapFloor, overlapFloor},
		"an ssh that connects":  {func(w *world) { w.at(3).ssh.clients = second }, second, second},
		"a short one":           {func(w *world) { w.at(3).ssh.clients = overlapFloor / 2 }, overlapFloor, overlapFloor},
		"both":                  {func(w *world) { w.at(2).ssh.clients, w.at(5).ssh.logins = second, second }, 2 * second, 2 * second},
		"a normal node's ssh":   {func(w *world) { w.at(5).ssh.clients = second }, overlapFloor, overlapFloor},
		"a login without end":   {func(w *world) { w.at(5).ssh.logins = time.Hour }, overlapHold, overlapHold},
		"an ssh without end":    {func(w *world) { w.at(2).ssh.clients = time.Hour }, overlapHold, overlapHold},
		"a node cannot tell":    {func(w *world) { w.at(5).ssh.logins = -1 }, overlapHold, overlapHold},
		"one cannot tell of it": {func(w *world) { w.at(2).ssh.clients = -1 }, overlapHold, overlapHold},
		"a node is away":        {func(w *world) { w.at(5).up = false }, overlapHold, overlapHold},
		"a candidate is away":   {func(w *world) { w.at(2).up = false }, overlapHold, overlapHold},
	} {
		synctest.Test(t, func(t *testing.T) {
			for _, op := range []string{renew(`"new_ssh_keys":true`), setCluster(`"ssh_key_type":"ecdsa"`), setCluster(`"ssh_key_storage":"agent"`)} {
				w := newWorld(t, 5, 3)
				c.spoil(w)
				h := w.watchHold(nil)
				if j := w.finish(w.submit(op)); j.Status != state.JobSuccess {
					t.Fatalf("%s: %s", name, j.Error)
				}
				if h.took < c.min || h.took > c.max {
					t.Errorf("%s, %s: the old keys are good for %s, want %s to %s (%q)", name, op, h.took, c.min, c.max, h.calls)
				}
				h.inOrder(t, name)
			}
		})
	}
}

func (w *world) offline(i int) {
	w.t.Helper()
	if j := w.finish(w.submit(modify(i, `"offline":true`))); j.Status != state.JobSuccess {
		w.t.Fatal(j.Error)
	}
}

// inOrder checks that nobody looks for logins before every ssh that may use an old
// key has connected, and the time is over for those that cannot be seen.
func (h *held) inOrder(t *testing.T, name string) {
	t.Helper()
	asked := 0
	for i, what := range h.calls {
		switch {
		case strings.HasPrefix(what, "settle ssh"):
			asked++
		case strings.HasPrefix(what, "settle logins") && (asked < 3 || h.at[i] < overlapFloor):
			t.Errorf("%s: %s after %s: %q", name, what, h.at[i], h.calls)
		}
	}
}

// TestHoldSeesWhatComesBack: a node that hears of the new keys late, or can tell
// late, makes it no longer than that.
func TestHoldSeesWhatComesBack(t *testing.T) { synctest.Test(t, holdSeesWhatComesBack) }

func holdSeesWhatComesBack(t *testing.T) {
	for name, c := range map[string]struct {
		before func(m *machine)
		after  func(m *machine, head *candmap.Map)
	}{
		"away":        {func(m *machine) { m.up = false }, func(m *machine, head *candmap.Map) { m.up = true; m.accept(head, statetest.ID(4)) }},
		"cannot tell": {func(m *machine) { m.ssh.logins = -1 }, func(m *machine, _ *candmap.Map) { m.ssh.logins = 0 }},
	} {
		w := newWorld(t, 5, 3)
		c.before(w.at(4))
		once := false
		h := w.watchHold(func(string) {
			if !once {
				once = true
				time.AfterFunc(2*time.Second, func() {
					w.mu.Lock()
					defer w.mu.Unlock()
					c.after(w.at(4), w.lab.S.HeadMap())
				})
			}
		})
		if j := w.finish(w.submit(renew(`"new_ssh_keys":true`))); j.Status != state.JobSuccess {
			t.Fatalf("%s: %s", name, j.Error)
		}
		if h.took < 2*time.Second || h.took > 2*time.Second+overlapPause+2*overlapFloor {
			t.Errorf("%s: the old keys are good for %s", name, h.took)
		}
	}
}

// TestHoldIsGivenUp: a renewal that is canceled while it waits goes back at once,
// and a master that ends does not go on.
func TestHoldIsGivenUp(t *testing.T) { synctest.Test(t, holdIsGivenUp) }

func holdIsGivenUp(t *testing.T) {
	w := newWorld(t, 5, 3)
	old := w.oldKeys()
	w.at(5).ssh.logins = time.Hour
	id := w.submit(renew(`"new_ssh_keys":true`))
	once := false
	h := w.watchHold(func(what string) {
		if !once && strings.HasPrefix(what, "settle logins") {
			once = true
			time.AfterFunc(time.Second, func() { w.do(state.KindJobUpdate, CancelingUpdate(id)) })
		}
	})
	if j := w.finish(id); j.Status != state.JobCanceled || len(w.oldKeys()) != len(old) || w.gone(old) == nil {
		t.Errorf("job is %s: %s", j.Status, j.Error)
	}
	if want := overlapFloor + time.Second; h.took != want {
		t.Errorf("it went back after %s, want %s", h.took, want)
	}
	w = newWorld(t, 5, 3)
	w.at(5).ssh.logins = time.Hour
	once = false
	h = w.watchHold(func(what string) {
		if !once && strings.HasPrefix(what, "settle logins") {
			once = true
			time.AfterFunc(time.Second, func() { w.kill(errDead) })
		}
	})
	id = w.submit(renew(`"new_ssh_keys":true`))
	if err := w.reign(id); !errors.Is(err, errDead) || h.took != 0 {
		t.Errorf("the master goes on: %v, after %s", err, h.took)
	}
	w.onCall = nil
	if j := w.finish(id); j.Status != state.JobSuccess {
		t.Errorf("job is %s: %s", j.Status, j.Error)
	}
}
