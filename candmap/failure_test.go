package candmap_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

// Whatever operation of the store fails, and however often, the map is in
// force, the sockets are closed and the files applied; the acknowledgement
// tells the truth, and the next delivery of the same map makes it durable.
func TestEnforcementSurvivesEveryFailure(t *testing.T) {
	full := errors.New("no space left on device")
	ops := [][]string{{"SaveLink"}, {"SaveCurrent"}, {"SaveRoster"}, {"apply"}, {"SaveLast", "DropLink", "Link", "Doc"}}
	for mask := 1; mask < 1<<len(ops); mask++ {
		var failing []string
		for i, op := range ops {
			if mask>>i&1 == 1 {
				failing = append(failing, op...)
			}
		}
		t.Run(strings.Join(failing, "+"), func(t *testing.T) { enforcementSurvives(t, full, failing) })
	}
}

func enforcementSurvives(t *testing.T, full error, failing []string) {
	n := newNode(t, 1, 2, 3)
	broken := true
	n.store.Fail = func(op string) error {
		if broken && slices.Contains(failing, op) {
			return full
		}
		return nil
	}
	if slices.Contains(failing, "apply") {
		n.applyErr = full
	}
	m := ct.Next(n.k.View().Map.Map)
	ct.SetVoters(m, 1, 2)
	r := ct.Roster(1, 2)
	m.Roster = r.Hash()
	env := ct.Seal(m, 1, 2)
	ack, err := n.k.Deliver(t.Context(), []candmap.Envelope{env}, ct.Docs(r))
	if err != nil {
		t.Fatal(err)
	}
	if v := n.k.View(); v.Map.Hash != env.Hash() || v.Map.Candidate(ct.NodeID(3)) != nil || v.Roster.Hash() != r.Hash() {
		t.Error("the new view is not in force")
	}
	if got := n.take(); !strings.HasPrefix(got, "revoke:1.1>1.2 apply:1.2") {
		t.Errorf("events: %s", got)
	}
	if want := !slices.Contains(failing, "SaveCurrent"); ack.Durable != want {
		t.Errorf("acknowledged durable %v, want %v", ack.Durable, want)
	}
	for _, op := range []string{"SaveLink", "SaveCurrent", "SaveRoster", "apply"} {
		if told := slices.ContainsFunc(ack.Problems, func(p string) bool { return strings.HasPrefix(p, problemOf[op]) }); told != slices.Contains(failing, op) {
			t.Errorf("%s: problems are %q", op, ack.Problems)
		}
	}
	if saves := slices.ContainsFunc(failing, func(op string) bool { return op == "SaveLink" || op == "SaveCurrent" || op == "SaveRoster" }); saves != (len(n.k.Unsaved()) > 0) {
		t.Errorf("%q failed, and could not be saved: %q", failing, n.k.Unsaved())
	}
	n.crashHere(env)
	broken, n.applyErr = false, nil
	if ack = n.mustDeliver(env); !ack.Durable || len(ack.Problems) > 0 {
		t.Errorf("after repair the same delivery gives %+v", ack)
	}
	n.crashHere(env)
	if !slices.Equal(ats(n.k.Since(cluster.Version{})), []string{"1.1", "1.2"}) {
		t.Errorf("chain is %v", ats(n.k.Since(cluster.Version{})))
	}
}

var problemOf = map[string]string{"SaveLink": "chain", "SaveCurrent": "current", "SaveRoster": "roster", "apply": "apply"}

// crashHere checks what a restart at this moment would find: one of the two
// maps, whole, and stale.
func (n *node) crashHere(newest candmap.Envelope) {
	n.t.Helper()
	fail := n.store.Fail
	n.store.Fail = nil
	defer func() { n.store.Fail = fail }()
	k, err := candmap.NewKeeper(candmap.KeeperConfig{Cluster: ct.Cluster, Store: n.store, Clocks: n.clock.Now})
	if err != nil {
		n.t.Fatal(err)
	}
	v := k.View()
	if v.Map == nil || v.Roster == nil || k.Fresh() {
		n.t.Fatalf("restart finds %+v, damage %v, fresh %v", v, k.Damage(), k.Fresh())
	}
	if v.Map.Hash == newest.Hash() {
		return
	}
	if _, err := k.Deliver(n.t.Context(), []candmap.Envelope{newest}, nil); err != nil {
		n.t.Errorf("the older map does not lead on: %v", err)
	}
}

func TestHungDiskDoesNotDelayTheNextRevocation(t *testing.T) {
	n := newNode(t, 1)
	hang, hanging := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.store.Fail = func(op string) error {
		if op == "SaveCurrent" {
			once.Do(func() { close(hanging) })
			<-hang
		}
		return nil
	}
	first := ct.Next(n.k.View().Map.Map)
	result := make(chan candmap.Ack, 1)
	go func() {
		ack, _ := n.k.Deliver(context.Background(), []candmap.Envelope{ct.Seal(first, 1)}, nil)
		result <- ack
	}()
	<-hanging
	ctx, cancel := context.WithCancel(t.Context())
	n.onRevoke = func(_, _ *candmap.View) { cancel() }
	ack, err := n.k.Deliver(ctx, []candmap.Envelope{ct.Seal(ct.Next(first), 1)}, nil)
	if err != nil || ack.Version.String() != "1.3" || ack.Durable || len(ack.Problems) == 0 {
		t.Errorf("while the disk hangs: %+v, %v", ack, err)
	}
	close(hang)
	// Whoever had the disk goes on to what came into force meanwhile.
	if ack := <-result; ack.Version.String() != "1.3" || !ack.Durable || len(ack.Problems) > 0 {
		t.Errorf("after the disk came back: %+v", ack)
	}
	if !strings.Contains(n.take(), "apply:1.3") {
		t.Error("the later view was not applied")
	}
}
