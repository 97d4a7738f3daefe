package candmap_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

// node is a Keeper with its surroundings, which records the order of events.
type node struct {
	t     *testing.T
	store *ct.Store
	clock *ct.Clock
	k     *candmap.Keeper

	mu       sync.Mutex
	events   []string
	applyErr error
	normal   bool // nobody fetches anything here
	onRevoke func(old, next *candmap.View)
}

// newNode starts a node with map 1.1 of these voters and its roster.
func newNode(t *testing.T, voters ...int) *node {
	t.Helper()
	n := &node{t: t, store: &ct.Store{}, clock: ct.NewClock()}
	n.start()
	r := ct.Roster(1, 2, 3)
	m := ct.Map(voters...)
	m.Roster = r.Hash()
	if _, err := n.k.Create(t.Context(), ct.Seal(m, voters...), ct.Docs(r)); err != nil {
		t.Fatal(err)
	}
	n.take()
	return n
}

// start makes a Keeper on what the store holds, as a restart does.
func (n *node) start() {
	n.t.Helper()
	k, err := candmap.NewKeeper(candmap.KeeperConfig{
		Cluster: ct.Cluster, Store: n.store, Clocks: n.clock.Now, Effects: n, Provides: func(*candmap.View) bool { return !n.normal },
		OnChange: func(*candmap.View) { n.note("announce") },
		OnFork:   func(*candmap.ForkError) { n.note("fork") },
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.k = k
}

func (n *node) note(event string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, event)
}

// take returns the events since it was called last.
func (n *node) take() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := strings.Join(n.events, " ")
	n.events = nil
	return s
}

func (n *node) Revoke(_ context.Context, old, next *candmap.View) {
	if n.k.View() != next {
		n.t.Error("revoke came before the swap")
	}
	n.note("revoke:" + old.At().String() + ">" + next.At().String())
	if n.onRevoke != nil {
		n.onRevoke(old, next)
	}
}

func (n *node) Apply(ctx context.Context, next *candmap.View) error {
	if ctx.Err() != nil {
		n.t.Error("apply is told to give up")
	}
	n.note("apply:" + next.At().String())
	return n.applyErr
}

// next is the version after the one held, signed by these.
func (n *node) next(signers ...int) candmap.Envelope {
	return ct.Seal(ct.Next(n.k.View().Map.Map), signers...)
}

func (n *node) deliver(envs ...candmap.Envelope) (candmap.Ack, error) {
	return n.k.Deliver(n.t.Context(), envs, nil)
}

func (n *node) mustDeliver(envs ...candmap.Envelope) candmap.Ack {
	n.t.Helper()
	ack, err := n.deliver(envs...)
	if err != nil {
		n.t.Fatal(err)
	}
	return ack
}

func TestAcceptanceOrder(t *testing.T) {
	n := newNode(t, 1)
	n.store.Fail = func(op string) error { n.note(op); return nil }
	ack := n.mustDeliver(n.next(1))
	if got, want := n.take(), "revoke:1.1>1.2 apply:1.2 SaveLink SaveCurrent announce"; got != want {
		t.Errorf("order is %s\nwant %s", got, want)
	}
	if !ack.Durable || ack.Version.String() != "1.2" || len(ack.Problems) > 0 || !ack.Fresh || len(ack.Missing) > 0 {
		t.Errorf("ack = %+v", ack)
	}
}

func ats(envs []candmap.Envelope) (list []string) {
	for _, e := range envs {
		m, err := candmap.DecodeMap(e.Payload)
		if err != nil {
			panic(err)
		}
		list = append(list, m.At().String())
	}
	return list
}

func TestKnownAndOlderMapsChangeNothing(t *testing.T) {
	n := newNode(t, 1)
	old := n.k.View().Map.Envelope
	n.mustDeliver(n.next(1))
	n.take()
	view := n.k.View()
	if ack := n.mustDeliver(view.Map.Envelope); ack.Version != view.At() || !ack.Durable {
		t.Errorf("ack of a known map: %+v", ack)
	}
	ack, err := n.deliver(old)
	if cluster.CodeOf(err) != cluster.CodeMapOlder || ack.Version != view.At() {
		t.Errorf("older map: %+v, %v; want map_older, and the version that is held", ack, err)
	}
	if n.k.View() != view || n.take() != "" {
		t.Error("a map that is not newer had effects")
	}
}

func TestDeliverTakesAChainAtOnce(t *testing.T) {
	n := newNode(t, 1)
	a := ct.Next(n.k.View().Map.Map)
	ct.SetVoters(a, 2)
	b := ct.Next(a)
	ct.SetVoters(b, 3)
	n.mustDeliver(ct.Seal(a, 1, 2), ct.Seal(b, 2, 3))
	if got, want := n.take(), "revoke:1.1>1.3 apply:1.3 announce"; got != want {
		t.Errorf("events: %s, want %s", got, want)
	}
	if got := ats(n.k.Since(cluster.Version{Epoch: 1, Version: 1})); !slices.Equal(got, []string{"1.2", "1.3"}) {
		t.Errorf("Since(1.1) = %v", got)
	}
}

func TestWhatLeadsOnIsTakenEvenIfTheRestIsBad(t *testing.T) {
	n := newNode(t, 1)
	a := ct.Next(n.k.View().Map.Map)
	ack, err := n.deliver(ct.Seal(a, 1), ct.Seal(ct.Next(a), 9))
	if cluster.CodeOf(err) != cluster.CodeBadSignature || ack.Version.String() != "1.2" || !ack.Durable {
		t.Errorf("%+v, %v", ack, err)
	}
}

func TestSenderThatHangsUp(t *testing.T) {
	n := newNode(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	n.onRevoke = func(_, _ *candmap.View) { cancel() }
	ack, err := n.k.Deliver(ctx, []candmap.Envelope{n.next(1)}, nil)
	if err != nil || !ack.Durable || !strings.Contains(n.take(), "apply:1.2") {
		t.Errorf("%+v, %v: the work was not finished", ack, err)
	}
}

// A map that comes in force while the one before is still being saved is applied
// too before that one is acknowledged: the acknowledgement is about the newer.
func TestAcknowledgedIsApplied(t *testing.T) {
	n := newNode(t, 1)
	r := ct.Roster(1, 2, 3, 4)
	m := ct.Next(n.k.View().Map.Map)
	m.Roster = r.Hash()
	newer := make(chan error, 1)
	n.store.Fail = func(op string) error {
		if op == "SaveRoster" && n.k.View().At().Version == 2 {
			go func() {
				_, err := n.k.Deliver(t.Context(), []candmap.Envelope{ct.Seal(ct.Next(m), 1)}, nil)
				newer <- err
			}()
			for n.k.View().At().Version == 2 {
				runtime.Gosched()
			}
		}
		return nil
	}
	ack, err := n.k.Deliver(t.Context(), []candmap.Envelope{ct.Seal(m, 1)}, ct.Docs(r))
	if err != nil || ack.Version.Version != 3 || len(ack.Problems) > 0 {
		t.Errorf("%+v, %v", ack, err)
	}
	if err := <-newer; err != nil {
		t.Error(err)
	}
}

// A map that was verified against a view that is gone by the time of its turn
// is judged again: otherwise two forks could follow one another.
func TestG3DeliveriesAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 1, 2, 3)
		base := ct.Next(n.k.View().Map.Map)
		a, b := ct.Next(base), ct.Next(base)
		b.LeaseSeconds = 60
		results := make(chan error, 2)
		n.onRevoke = func(_, _ *candmap.View) {
			n.onRevoke = nil
			for _, m := range []*candmap.Map{a, b} {
				go func() {
					_, err := n.k.Deliver(context.Background(), []candmap.Envelope{ct.Seal(m, 2, 3)}, nil)
					results <- err
				}()
			}
			synctest.Wait() // until both were verified and wait for their turn
		}
		n.mustDeliver(ct.Seal(base, 1, 2))
		codes := []cluster.Code{cluster.CodeOf(<-results), cluster.CodeOf(<-results)}
		if slices.Sort(codes); !slices.Equal(codes, []cluster.Code{"", cluster.CodeMapFork}) || n.k.View().At() != a.At() {
			t.Errorf("two forks at once: %q", codes)
		}
	})
}

func TestG3ForkIsKeptAsEvidence(t *testing.T) {
	n := newNode(t, 1, 2, 3)
	base := n.k.View().Map.Map
	a, b := ct.Next(base), ct.Next(base)
	b.LeaseSeconds = 60
	n.mustDeliver(ct.Seal(a, 1, 2))
	view := n.k.View()
	n.take()
	for range 2 {
		if _, err := n.deliver(ct.Seal(b, 2, 3)); cluster.CodeOf(err) != cluster.CodeMapFork {
			t.Errorf("Deliver = %v, want map_fork", err)
		}
	}
	if n.k.View() != view || n.k.Forks() != 1 || n.take() != "fork" {
		t.Errorf("a fork had effects, or was not kept once: %d", n.k.Forks())
	}
	// The same fork, when both are history.
	n.mustDeliver(n.next(1, 2))
	c := ct.Next(base)
	c.LeaseSeconds = 61
	if _, err := n.deliver(ct.Seal(c, 2, 3)); cluster.CodeOf(err) != cluster.CodeMapFork || n.k.Forks() != 2 {
		t.Errorf("fork of an older version: %v, %d kept", err, n.k.Forks())
	}
	// And told by a beacon.
	d := ct.Next(ct.Next(base))
	d.LeaseSeconds = 62
	if _, err := n.k.DeliverBeacon(ct.Beacon(d, ct.Epoch0, 1, 2)); cluster.CodeOf(err) != cluster.CodeMapFork || n.k.Forks() != 3 {
		t.Errorf("fork in a beacon: %v, %d kept", err, n.k.Forks())
	}
	n.start()
	if n.k.Forks() != 3 {
		t.Errorf("after a restart %d forks are known", n.k.Forks())
	}
}

func TestForksAreRecognisedAfterARestart(t *testing.T) {
	n := newNode(t, 1, 2, 3)
	base := n.k.View().Map.Map
	a, b := ct.Next(base), ct.Next(base)
	ct.SetVoters(a, 4, 5)
	n.mustDeliver(ct.Seal(a, 1, 2, 4, 5))
	n.start()
	b.LeaseSeconds = 60
	if _, err := n.deliver(ct.Seal(b, 2, 3)); cluster.CodeOf(err) != cluster.CodeMapFork {
		t.Errorf("Deliver = %v, want map_fork", err)
	}
}

func TestG3NothingIsDeliveredWithoutAMap(t *testing.T) {
	n := &node{t: t, store: &ct.Store{}, clock: ct.NewClock()}
	n.start()
	if _, err := n.deliver(ct.Seal(ct.Map(1), 1)); cluster.CodeOf(err) != cluster.CodeNoMap {
		t.Errorf("Deliver = %v, want no_map", err)
	}
	if _, err := n.k.DeliverBeacon(ct.Beacon(ct.Map(1), ct.Epoch0, 1)); cluster.CodeOf(err) != cluster.CodeNoMap {
		t.Errorf("DeliverBeacon = %v, want no_map", err)
	}
	if v := n.k.View(); v == nil || v.Map != nil || n.k.Fresh() || n.k.Since(cluster.Version{}) != nil {
		t.Error("an empty node holds something")
	}
}

func TestG7DamagedMapIsNoMap(t *testing.T) {
	n := newNode(t, 1)
	good := n.store.Current()
	old := n.k.View().Map
	n.mustDeliver(n.next(1))
	for name, b := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)/2], "junk": []byte("junk"),
		"payload changed": []byte(strings.Replace(string(n.store.Current()), "ey", "fy", 1)),
		"other cluster":   otherCluster().Encode(),
	} {
		n.store.Corrupt(b)
		n.start()
		if n.k.View().Map != nil || n.k.Damage() == nil {
			t.Fatalf("%s: a damaged map was used, or an older one", name)
		}
		_, err := n.deliver(n.k.Since(cluster.Version{})...)
		if cluster.CodeOf(err) != cluster.CodeNoMap || !strings.Contains(cluster.HintOf(err), "noded trust") {
			t.Errorf("%s: %v, hint %q", name, err, cluster.HintOf(err))
		}
		if _, err := n.k.Trust(t.Context(), old.Envelope, old.Hash, nil); cluster.CodeOf(err) != cluster.CodeMapOlder {
			t.Errorf("%s: trusting an older map than was held: %v", name, err)
		}
	}
	third := ct.Seal(ct.Next(ct.Next(old.Map)), 1)
	if _, err := n.k.Trust(t.Context(), third, third.Hash(), nil); err != nil || n.k.Damage() != nil {
		t.Errorf("Trust = %v, damage %v", err, n.k.Damage())
	}
}

func otherCluster() candmap.Envelope {
	m := ct.Map(1)
	m.Cluster = ct.NodeID(77)
	return ct.Seal(m, 1)
}

func TestRestartKeepsWhatWasHeld(t *testing.T) {
	n := newNode(t, 1)
	n.mustDeliver(n.next(1))
	before := n.k.View()
	n.start()
	after := n.k.View()
	if after.Map.Hash != before.Map.Hash || after.Roster.Hash() != before.Roster.Hash() {
		t.Error("a restart changed what is held")
	}
	if n.k.Fresh() {
		t.Error("a node that has just started is fresh")
	}
	if n.k.Lease().Last() != after.Map.Issued {
		t.Errorf("newest time %s, want that of the map", n.k.Lease().Last())
	}
	if _, err := n.k.DeliverBeacon(ct.Beacon(after.Map.Map, after.Map.Issued.Add(time.Second), 1)); err != nil || !n.k.Fresh() {
		t.Errorf("a beacon did not make it fresh: %v", err)
	}
}

func TestReadingDoesNotAllocate(t *testing.T) {
	n := newNode(t, 1)
	if a := testing.AllocsPerRun(100, func() { _, _ = n.k.View(), n.k.Fresh() }); a != 0 {
		t.Errorf("View and Fresh allocate %v times", a)
	}
}
