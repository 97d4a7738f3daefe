package masterd

import (
	"sync"
	"testing"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// viewOf is what noded tells of a node that founded a cluster.
func viewOf(t *testing.T, d *Daemon) *rpc.LocalViewReply {
	t.Helper()
	r := bootstrapRequest(t)
	out, err := d.bootstrap(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	reply, ok := out.(rpc.BootstrapReply)
	if !ok {
		t.Fatalf("the answer is a %T", out)
	}
	return &rpc.LocalViewReply{
		Cluster: r.Cluster, Node: r.Node, Incarnation: 1, Addresses: r.Init.Addresses, Ports: r.Ports,
		CA: reply.CA, Map: reply.Map, Docs: reply.Docs,
	}
}

func TestIntake(t *testing.T) {
	d := New(Config{Paths: layout(t)})
	v := viewOf(t, d)
	if d.mayStart() {
		t.Error("it would start without a standing")
	}
	if err := d.intake(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	first := d.standing()
	if first == nil || first.cluster != v.Cluster || first.name() != statetest.Name(1) || first.keeper.View().Map.Hash != v.Map.Hash() {
		t.Fatalf("standing %+v", first)
	}
	if !d.mayStart() {
		t.Error("the map names it with a certificate that it holds, and it would not start")
	}
	if err := d.intake(t.Context(), v); err != nil || d.standing() != first {
		t.Errorf("the same view again: %v", err)
	}
	again := *v
	again.Incarnation = 2
	if err := d.intake(t.Context(), &again); err != nil || d.standing() == first || d.standing().incarnation != 2 {
		t.Errorf("another incarnation: %v", err)
	}
	if d.mayStart() {
		t.Error("it would start with the keys of its former life")
	}
	if err := d.intake(t.Context(), &rpc.LocalViewReply{}); err != nil || d.standing() != nil {
		t.Errorf("a node that left its cluster: %v", err)
	}
}

// TestIntakeAtOnce: at a start noded tells and masterd asks at the same time.
// A second standing would end the life that began with the first.
func TestIntakeAtOnce(t *testing.T) {
	for range 20 {
		d := New(Config{Paths: layout(t)})
		v := viewOf(t, d)
		var mu sync.Mutex
		seen := map[*standing]bool{}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if err := d.intake(t.Context(), v); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				seen[d.standing()] = true
			})
		}
		all.Wait()
		if len(seen) != 1 {
			t.Fatalf("%d standings were made of one view", len(seen))
		}
	}
}

// TestIntakeRefusesWhatDoesNotVerify although noded is believed to have
// verified it: a mistake must not become a standing.
func TestIntakeRefusesWhatDoesNotVerify(t *testing.T) {
	for name, spoil := range map[string]func(v *rpc.LocalViewReply){
		"no signature":    func(v *rpc.LocalViewReply) { v.Map.Signatures = nil },
		"another payload": func(v *rpc.LocalViewReply) { v.Map.Payload = append([]byte{' '}, v.Map.Payload...) },
		"another cluster": func(v *rpc.LocalViewReply) { v.Cluster = statetest.ID(0xc2) },
		"no CA":           func(v *rpc.LocalViewReply) { v.CA = nil },
		"a beacon as map": func(v *rpc.LocalViewReply) { v.Map.PayloadType = candmap.BeaconType },
	} {
		d := New(Config{Paths: layout(t)})
		v := viewOf(t, d)
		spoil(v)
		if err := d.intake(t.Context(), v); err == nil || d.standing() != nil {
			t.Errorf("%s: it was taken: %v", name, err)
		}
	}
}

// TestRunningSaysWhy: the command line needs to tell its user what to do.
func TestRunningSaysWhy(t *testing.T) {
	d := New(Config{Paths: layout(t)})
	if _, err := d.running(); cluster.CodeOf(err) != cluster.CodeNoMap {
		t.Errorf("in no cluster: %v", err)
	}
	d.setStanding(&standing{})
	if _, err := d.running(); cluster.CodeOf(err) != cluster.CodeNotMaster {
		t.Errorf("no candidate: %v", err)
	}
	d.setProblem(errRestored)
	if _, err := d.running(); cluster.CodeOf(err) != cluster.CodeUnavailable {
		t.Errorf("with a problem: %v", err)
	}
}
