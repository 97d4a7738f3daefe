package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"rolekey/tests/kit"
)

// TestFailoverUnderLoad moves the master role there and back while roles change:
// no command is lost, and the last one counts.
func TestFailoverUnderLoad(t *testing.T) {
	w := rested(t)
	ctx, cancel := context.WithCancel(w.ctx)
	var load sync.WaitGroup
	done := make(chan error)
	load.Go(func() {
		for i := 0; ; i++ {
			err := w.changed([]string{"yes", "no"}[i%2])
			select {
			case done <- err:
			case <-ctx.Done():
				return
			}
		}
	})
	defer load.Wait()
	defer cancel()
	for round := range 6 {
		old := w.master()
		to := w.others(old, "node4", "node5")[round%2]
		var r kit.Run
		w.until("the role moves to "+to.Name, func(context.Context) (err error) { // right after the last change a node may not vote yet
			r, err = w.Must(w.ctx, 0, to.Name, "gnt-cluster", "master-failover")
			return err
		})
		t.Logf("%s to %s in %v: %s", old, to.Name, r.Took, r.Stderr)
		w.until(to.Name+" is the master", func(ctx context.Context) error {
			if name, err := w.Master(ctx); err != nil || name != to.Name {
				return fmt.Errorf("%s is: %w", name, err)
			}
			_, err := w.Must(ctx, 0, to.Name, "gnt-cluster", "master-ping")
			return err
		})
		for range 1 + round%2 { // the changes go on, and the next handover meets another moment of one
			w.must(<-done)
		}
	}
	cancel()
	load.Wait()
	w.admin(0, "gnt-node", "modify", "-C", "no", "node4")
	w.settle()
	w.clean()
}

// changed makes one change of a role, on whoever is master by now. A command that
// meets the change of master asks the next one.
func (w *world) changed(candidate string) error {
	_, err := kit.Until(w.ctx, limit, func(context.Context) error {
		r, err := w.tryAdmin("gnt-node", "modify", "-C", candidate, "node4")
		if err != nil {
			return err
		}
		return r.Want(0)
	})
	return err
}

// TestG3EvictDeposesMaster: two of three voters evict the master, which runs as it
// should. It can change nothing any more, and its key opens nothing.
func TestG3EvictDeposesMaster(t *testing.T) {
	w := rested(t)
	w.until("nodes 1 to 3 vote", func(ctx context.Context) error {
		if n := w.readMap().Voters(); n != 3 {
			return fmt.Errorf("%d nodes vote", n)
		}
		return nil
	})
	old := w.master()
	l := w.rob(old)
	order := func(to kit.Caller, codes ...string) {
		for _, at := range w.NodedOf(w.others(old)) {
			a, err := to.Call(w.ctx, at, http.MethodPost, "/v1/key/destroy", http.Header{"Rolekey-Stamp": {"1.999999 999999"}}, []byte("{}"))
			w.must(kit.Refused(a, err, codes...))
		}
	}
	evictors := w.others(old, "node4", "node5")
	for _, n := range evictors {
		r, err := w.Must(w.ctx, 0, n.Name, "gnt-cluster", "evict", old)
		w.must(err)
		t.Logf("%s: %s%s", n.Name, r.Stdout, r.Stderr)
	}
	_, took, err := w.AwaitMaster(w.ctx, limit, old)
	w.must(err)
	t.Logf("another master %v after the second eviction", took)
	r, err := w.Sh(w.ctx, old, "gnt-node", "modify", "-D", "yes", "node5")
	if w.must(err); r.Code == 0 {
		t.Error("the evicted master has changed a role")
	}
	w.until("the evicted one is set offline", func(ctx context.Context) error {
		name, err := w.Master(ctx)
		if err == nil && name == old {
			err = errors.New("the evicted one is master")
		}
		if err == nil {
			_, err = w.Must(ctx, 0, name, "gnt-node", "modify", "--offline=yes", "--auto-promote", old)
		}
		return err
	})
	order(l.Caller(l.Candidate), "not_in_map")
	for _, n := range evictors {
		if r, err := w.Must(w.ctx, 0, n.Name, "gnt-cluster", "evict", "--list"); err != nil || r.Stdout != "" {
			t.Errorf("%s still refuses: %s %v", n.Name, r.Stdout, err)
		}
	}
	w.admin(0, "gnt-node", "modify", "--offline=no", old)
	w.settle()
	w.clean()
}
