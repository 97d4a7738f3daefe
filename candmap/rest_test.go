package candmap_test

import (
	"context"
	"testing"
	"testing/synctest"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
)

// running starts Run on a node in a bubble, and returns what ends it.
func (n *node) running() (stop func()) {
	ctx, cancel := context.WithCancel(n.t.Context())
	ended := make(chan error, 1)
	k := n.k
	go func() { ended <- k.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Error(err)
		}
	}
}

// push delivers the next map with a roster of these nodes.
func (n *node) push(nodes ...int) candmap.Ack {
	n.t.Helper()
	r := ct.Roster(nodes...)
	m := ct.Next(n.k.View().Map.Map)
	m.Roster = r.Hash()
	ack, err := n.k.Deliver(n.t.Context(), []candmap.Envelope{ct.Seal(m, 1)}, ct.Docs(r))
	if err != nil || !ack.Durable || len(ack.Problems)+len(ack.Missing) > 0 {
		n.t.Fatalf("ack %+v, %v", ack, err)
	}
	return ack
}

// TestG7CrashRightAfterTheAcknowledgement: a crash may take the roster that the
// map names, but not the map, and nothing that the older roster let in is let in
// again.
func TestG7CrashRightAfterTheAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 1)
		n.normal = true
		n.start()
		stop := n.running()
		at := n.push(1, 2, 3, 4).Version
		defer stop()
		crashed := &node{t: t, store: n.store.Copy(), clock: n.clock}
		crashed.start()
		if v := crashed.k.View(); v.At() != at || v.Complete() || v.Roster == nil || len(v.Roster.Nodes()) != 3 {
			t.Fatalf("after the crash: map %s, complete %v", v.At(), v.Complete())
		}
		left, err := crashed.k.DeliverDocs(t.Context(), ct.Docs(ct.Roster(1, 2, 3, 4)))
		if err != nil || len(left) > 0 || !crashed.k.View().Complete() {
			t.Fatalf("missing %v, %v", left, err)
		}

		at = n.push(1, 2, 4).Version
		crashed = &node{t: t, store: n.store.Copy(), clock: n.clock}
		crashed.start()
		if v := crashed.k.View(); v.At() != at || !v.Complete() || len(v.Roster.Nodes()) != 3 {
			t.Errorf("a node that was removed is back after a crash: map %s, complete %v", v.At(), v.Complete())
		}
	})
}

// TestRestIsSaved: what no acknowledgement waits for comes by itself, and at the
// end of a run at the latest.
func TestRestIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 1)
		n.normal = true
		n.start()
		stop := n.running()
		n.push(1, 2, 3, 4)
		stop()
		saved := make(chan struct{}, 10)
		n.store = n.store.Copy()
		n.store.Fail = func(op string) error {
			if op == "SaveRoster" {
				saved <- struct{}{}
			}
			return nil
		}
		n.start()
		if v := n.k.View(); !v.Complete() || len(v.Roster.Nodes()) != 4 {
			t.Error("the roster is not saved at the end of the run")
		}
		stop = n.running()
		defer stop()
		n.push(1, 2, 3, 4, 5)
		<-saved
		synctest.Wait()
		n.start()
		if v := n.k.View(); !v.Complete() || len(v.Roster.Nodes()) != 5 {
			t.Error("the roster is not saved")
		}
	})
}
