package noded

import (
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/rpc"
)

// A node that was away asks the candidates by itself when it starts.
func TestPullAtStart(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := joined(t, w)
	third := joined(t, w)
	for _, n := range []*host{first, h} {
		w.mustPush(n.member().id.Node)
	}
	h.stop()
	w.promote(third, true)
	w.next(func(*candmap.Map) {})
	w.mustPush(first.member().id.Node)
	if err := w.call(first.member().id.Node, rpc.MethodBeaconPut, "", w.beacon(), nil); err != nil {
		t.Fatal(err)
	}
	h.up()
	m := h.member()
	await(t, m, "the newest map arrives", func() bool { v := m.keeper.View(); return v.At() == w.at() && v.Complete() && m.keeper.Fresh() })
}

// A beacon of a newer map leads to a pull.
func TestPullAfterBeacon(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := joined(t, w)
	w.mustPush(first.member().id.Node)
	w.next(func(*candmap.Map) { w.nodes[0].HostKeys = nil })
	w.mustPush(first.member().id.Node)
	m := h.member()
	if err := w.call(m.id.Node, rpc.MethodBeaconPut, "", w.beacon(), nil); err != nil {
		t.Fatal(err)
	}
	await(t, m, "the map of the beacon arrives", func() bool { v := m.keeper.View(); return v.At() == w.at() && v.Complete() })
}

// A node that becomes a candidate fills its chain: others may ask it.
func TestCandidateFillsChain(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	second := joined(t, w)
	w.promote(second, true)
	w.mustPush(first.member().id.Node)
	w.mustPush(second.member().id.Node)
	late := joined(t, w) // its string pins the first map
	w.mustPush(first.member().id.Node)
	w.promote(late, false)
	w.mustPush(first.member().id.Node)
	w.mustPush(late.member().id.Node)
	m := late.member()
	await(t, m, "the chain is complete", func() bool { return len(m.keeper.Chain()) == len(first.member().keeper.Chain()) })
}

// masterd is told of everything, and again in full when it was started anew.
func TestMasterdIsTold(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	id := first.member().id.Node
	b := w.beaconAt(time.Now().Add(time.Second))
	if err := w.call(id, rpc.MethodBeaconPut, "", b, nil); err != nil {
		t.Fatal(err)
	}
	next := func(what string, ok func(v rpc.LocalViewReply) bool) {
		t.Helper()
		deadline := time.After(patience)
		for {
			select {
			case v := <-first.masterd.views:
				if ok(v) {
					return
				}
			case <-deadline:
				t.Fatalf("masterd was not told: %s", what)
			}
		}
	}
	next("the beacon", func(v rpc.LocalViewReply) bool { return v.Beacon != nil && v.Beacon.Hash() == b.Hash() && v.Fresh })
	first.masterd.stop()
	for len(first.masterd.views) > 0 {
		<-first.masterd.views
	}
	first.masterd.start()
	next("all of it", func(v rpc.LocalViewReply) bool {
		return len(v.Docs) > 0 && v.Map.Hash() == w.cur.Hash && v.Node == id && v.Incarnation == 1 && len(v.CA) > 0
	})
}

// Certificates that are due are renewed and used at once.
func TestRenewal(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := newHost(t)
	h.masterd.start()
	h.up()
	w.issueAt = time.Now().AddDate(-3, 0, 0)
	token := w.token(h.name)
	w.refuse = func() error { return nil }
	if _, err := h.join(token); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.issueAt = time.Time{}
	w.mu.Unlock()
	m := h.member()
	kinds := map[string]bool{}
	for !kinds["server"] || !kinds["identity"] {
		select {
		case req := <-w.asked:
			kinds[req.Kind] = true
		case <-time.After(patience):
			t.Fatalf("asked for %v only", kinds)
		}
	}
	await(t, m, "both are in use", func() bool {
		for _, name := range []string{serverPair, identityPair} {
			id, err := m.certs[name].identity()
			if err != nil || time.Until(id.NotAfter) < 3*365*24*time.Hour {
				return false
			}
		}
		return true
	})
	w.mustPush(m.id.Node)
	if err := w.call(m.id.Node, rpc.MethodHealth, "", nil, new(rpc.HealthReply)); err != nil {
		t.Errorf("the renewed certificate is not believed: %v", err)
	}
}
