package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// TestG7KillAtAnyMoment kills daemons while roles change. Whatever the commands
// say, in the end all is as the last one wanted it, and verify is content.
func TestG7KillAtAnyMoment(t *testing.T) {
	w := rested(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 7))
	want := ""
	end := time.Now().Add(15 * time.Second)
	for round := 0; round < 40 && time.Now().Before(end); round++ {
		w.admin(0, "gnt-node", "modify", "-D", "no", "node5") // there is a master, and it works
		want = []string{"yes", "no"}[round%2]
		node := w.nodes()[r.IntN(4)] // the nodes that have a part in it
		daemon := []string{lab.Noded, lab.Masterd}[r.IntN(2)]
		delay := time.Duration(r.IntN(60)) * time.Millisecond
		done := make(chan kit.Run, 1)
		go func() {
			run, _ := w.tryAdmin("gnt-node", "modify", "-C", want, "node4") // it may fail; that is the point
			done <- run
		}()
		// why-sleep: any moment will do, and that one is random.
		time.Sleep(delay)
		w.must(w.Kill(w.ctx, node.Name, daemon))
		run := <-done
		t.Logf("round %d: -C %s, %s of %s killed after %v: exit code %d", round, want, daemon, node.Short(), delay, run.Code)
		w.must(w.Start(w.ctx, node.Name))
	}
	w.settle()
	w.admin(0, "gnt-node", "modify", "-C", want, "node4") // running a command again always helps
	w.settle()
	if m := w.readMap(); m.Has("node4") != (want == "yes") {
		t.Errorf("the map does not follow the last command, -C %s", want)
	}
	w.clean()
	if want == "no" {
		w.until("node4 has destroyed its keys", func(context.Context) error { return left(w.node("node4")) })
	}
}

// TestG7PowerLoss kills every daemon of every machine at once.
func TestG7PowerLoss(t *testing.T) {
	w := rested(t)
	before := w.readMap()
	for _, n := range w.nodes() {
		w.must(w.Kill(w.ctx, n.Name, lab.All))
	}
	w.startAll()
	w.settle()
	after := w.readMap()
	if after.Epoch != before.Epoch || after.Version < before.Version || len(after.Candidates) != len(before.Candidates) {
		t.Errorf("map %d.%d with %d candidates became %d.%d with %d", before.Epoch, before.Version, len(before.Candidates),
			after.Epoch, after.Version, len(after.Candidates))
	}
	w.clean()
}

// TestStoppedMasterIsReplaced: a master that hangs is no master.
func TestStoppedMasterIsReplaced(t *testing.T) {
	w := rested(t)
	old := w.master()
	w.must(w.Signal(w.ctx, old, lab.Masterd, syscall.SIGSTOP))
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			w.must(w.Signal(w.ctx, old, lab.Masterd, syscall.SIGCONT))
		}
	}
	defer resume()
	name, took, err := w.AwaitMaster(w.ctx, limit, old)
	w.must(err)
	t.Logf("%s replaced %s after %v", name, old, took)
	resume()
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	w.settle()
	w.clean()
}

// TestNoQuorum: without a majority of the voters nothing changes, and the
// command says why.
func TestNoQuorum(t *testing.T) {
	w := rested(t)
	before := w.readMap()
	kept := w.master()
	for _, name := range []string{"node1", "node2", "node3"} {
		if w.node(name).Name != kept {
			w.must(w.Kill(w.ctx, name, lab.Masterd))
		}
	}
	w.until("the last voter knows that it is alone", func(ctx context.Context) error {
		r, err := w.Sh(ctx, kept, "gnt-node", "modify", "-D", "yes", "node5")
		if err == nil {
			err = r.Want(4)
		}
		return err
	})
	w.startAll()
	w.settle()
	// A change that was proposed before the loss was noticed may or may not
	// have been committed; nothing else may have happened.
	if after := w.readMap(); len(after.Candidates) != len(before.Candidates) {
		t.Errorf("%d candidates became %d", len(before.Candidates), len(after.Candidates))
	}
	w.admin(0, "gnt-node", "modify", "-D", "no", "node5")
	w.clean()
}

var errNoMaster = errors.New("no candidate of the majority is master yet")

// TestPartitionHeals: the majority's side goes on, the other side stops, and
// both agree afterwards.
func TestPartitionHeals(t *testing.T) {
	w := rested(t)
	old := w.master()
	if st, err := w.State(w.ctx); err != nil || !st.Namespaces {
		t.Skipf("no network namespaces here: %v", err)
	}
	w.must(w.Partition(w.ctx, old))
	var fresh string
	w.until("the majority has a master", func(ctx context.Context) error {
		for _, n := range w.others(old, "node4", "node5") {
			r, err := w.Sh(ctx, n.Name, "gnt-node", "modify", "-C", "yes", "node4")
			if err != nil {
				return err
			}
			if err = r.Want(3); err == nil { // the old master cannot be reached
				fresh = n.Name
				return nil
			}
		}
		return errNoMaster
	})
	w.must(w.Heal(w.ctx))
	w.settle()
	m := w.readMap()
	if !m.Has("node4") {
		t.Errorf("what %s decided is lost", fresh)
	}
	w.clean()
}
