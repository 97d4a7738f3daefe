package candmap_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
)

// virtual runs f in a bubble whose time drives both clocks of a Keeper that
// holds map 1.1 and runs.
func virtual(t *testing.T, store *ct.Store, f func(v *virtualNode)) {
	synctest.Test(t, func(t *testing.T) {
		v := &virtualNode{t: t, store: store, start: time.Now()}
		k, err := candmap.NewKeeper(candmap.KeeperConfig{
			Cluster: ct.Cluster, Store: store, Effects: v,
			Clocks: func() candmap.Clocks {
				up := time.Since(v.start)
				return candmap.Clocks{Wall: ct.Epoch0.Add(up), Boot: up}
			},
			OnStale: func(stale bool) {
				v.mu.Lock()
				defer v.mu.Unlock()
				v.stale = append(v.stale, stale)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		v.k = k
		if k.View().Map == nil {
			if _, err := k.Create(t.Context(), ct.Seal(ct.Map(1), 1), nil); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx) }()
		synctest.Wait()
		f(v)
		cancel()
		v.result = <-ended
	})
}

type virtualNode struct {
	t     *testing.T
	k     *candmap.Keeper
	store *ct.Store
	start time.Time

	mu       sync.Mutex
	stale    []bool
	applies  int
	applyErr error
	result   error
}

func (v *virtualNode) Revoke(_ context.Context, _, _ *candmap.View) {}

func (v *virtualNode) Apply(context.Context, *candmap.View) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.applies++
	return v.applyErr
}

func (v *virtualNode) staleness() []bool {
	synctest.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.stale)
}

func (v *virtualNode) beacon() {
	v.t.Helper()
	now := ct.Epoch0.Add(time.Since(v.start))
	if news, err := v.k.DeliverBeacon(ct.Beacon(v.k.View().Map.Map, now, 1)); err != nil || !news {
		v.t.Fatalf("DeliverBeacon = %v, %v", news, err)
	}
}

func TestRunReportsStaleness(t *testing.T) {
	virtual(t, &ct.Store{}, func(v *virtualNode) {
		time.Sleep(lease - time.Second)
		if got := v.staleness(); !slices.Equal(got, []bool{false}) || !v.k.Fresh() {
			t.Errorf("before the end: %v", got)
		}
		time.Sleep(time.Second)
		if got := v.staleness(); !slices.Equal(got, []bool{false, true}) || v.k.Fresh() {
			t.Errorf("at the end: %v", got)
		}
		v.beacon()
		if got := v.staleness(); !slices.Equal(got, []bool{false, true, false}) || !v.k.Fresh() {
			t.Errorf("after a beacon: %v", got)
		}
		for range 10 {
			time.Sleep(lease / 3)
			v.beacon()
		}
		if got := v.staleness(); len(got) != 3 {
			t.Errorf("under steady beacons: %v", got)
		}
	})
}

func TestRunRecordsTheNewestTime(t *testing.T) {
	store := &ct.Store{}
	virtual(t, store, func(v *virtualNode) {
		for range 30 {
			time.Sleep(lease / 30)
			v.beacon()
		}
		saves := 0
		for _, op := range store.Ops() {
			if op == "SaveLast" {
				saves++
			}
		}
		if saves < 2 || saves > 4 {
			t.Errorf("%d writes in one lease, want one in a third", saves)
		}
		if age := v.k.Lease().Last().Sub(store.Last()); age > lease/3+5*time.Second {
			t.Errorf("what is recorded is %s old", age)
		}
		time.Sleep(time.Millisecond)
		v.beacon()
	})
	if store.Last().IsZero() || !store.Last().Equal(ct.Epoch0.Add(lease+time.Millisecond)) {
		t.Errorf("at the end %s was recorded", store.Last())
	}
}

func TestRunDoesAgainWhatFailed(t *testing.T) {
	full := errors.New("no space left on device")
	broken := false
	var mu sync.Mutex
	store := &ct.Store{Fail: func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		if broken && op == "SaveCurrent" {
			return full
		}
		return nil
	}}
	virtual(t, store, func(v *virtualNode) {
		mu.Lock()
		broken = true
		mu.Unlock()
		v.mu.Lock()
		v.applyErr = full
		v.mu.Unlock()
		env := ct.Seal(ct.Next(v.k.View().Map.Map), 1)
		ack, err := v.k.Deliver(t.Context(), []candmap.Envelope{env}, nil)
		if err != nil || ack.Durable || len(ack.Problems) != 2 {
			t.Fatalf("Deliver = %+v, %v", ack, err)
		}
		mu.Lock()
		broken = false
		mu.Unlock()
		v.mu.Lock()
		v.applyErr = nil
		v.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if string(store.Current()) != string(env.Encode()) {
			t.Error("the map was not saved later")
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		if done := v.applies; done != 3 { // 1.1; 1.2 in vain; 1.2
			t.Errorf("applied %d times", done)
		}
	})
}

func TestStartAppliesWhatIsHeld(t *testing.T) {
	store := &ct.Store{}
	virtual(t, store, func(*virtualNode) {})
	virtual(t, store, func(v *virtualNode) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.applies != 1 {
			t.Errorf("applied %d times at start, want once", v.applies)
		}
	})
}

func TestRunReportsThatItCannotRecord(t *testing.T) {
	store := &ct.Store{Fail: func(op string) error {
		if op == "SaveLast" {
			return errors.New("read-only file system")
		}
		return nil
	}}
	var n *virtualNode
	virtual(t, store, func(v *virtualNode) { n = v })
	if n.result == nil {
		t.Error("Run lost the newest time and said nothing")
	}
}

func TestBeacons(t *testing.T) {
	n := newNode(t, 1)
	m := n.k.View().Map.Map
	at := func(d time.Duration) candmap.Envelope { return ct.Beacon(m, ct.Epoch0.Add(d), 1) }
	deliver := func(what string, env candmap.Envelope, want bool) {
		t.Helper()
		if news, err := n.k.DeliverBeacon(env); err != nil || news != want {
			t.Errorf("%s: news %v, %v, want %v", what, news, err, want)
		}
	}
	if _, ok := n.k.Beacon(); ok {
		t.Error("a beacon from nowhere")
	}
	deliver("first", at(time.Minute), true)
	deliver("again", at(time.Minute), false)
	deliver("replayed", at(time.Second), false)
	deliver("newer", at(2*time.Minute), true)
	if env, ok := n.k.Beacon(); !ok || env.Hash() != at(2*time.Minute).Hash() {
		t.Error("Beacon is not the newest")
	}
	if last := n.k.Lease().Last(); !last.Equal(ct.Epoch0.Add(2 * time.Minute)) {
		t.Errorf("newest time is %s", last)
	}
	next := ct.Next(m)
	ahead := ct.Beacon(next, ct.Epoch0.Add(3*time.Minute), 1)
	deliver("of a later map", ahead, true)
	deliver("of the map that was replaced", at(4*time.Minute), false)
	if last := n.k.Lease().Last(); !last.Equal(ct.Epoch0.Add(2 * time.Minute)) {
		t.Errorf("a beacon of a later map moved the lease of this one to %s", last)
	}
	if v, ok := n.k.Behind(); !ok || v != next.At() {
		t.Errorf("Behind = %s, %v", v, ok)
	}
	n.mustDeliver(ct.Seal(next, 1))
	if last := n.k.Lease().Last(); !last.Equal(ct.Epoch0.Add(3 * time.Minute)) {
		t.Errorf("with the map came the lease %s", last)
	}
	if _, ok := n.k.Behind(); ok {
		t.Error("still behind")
	}
	n.mustDeliver(n.next(1))
	if _, ok := n.k.Beacon(); ok {
		t.Error("the beacon of an older map is still passed on")
	}
}

func TestBeaconsAreTakenDuringADelivery(t *testing.T) {
	n := newNode(t, 1)
	m := n.k.View().Map.Map
	n.onRevoke = func(_, next *candmap.View) {
		if _, err := n.k.DeliverBeacon(ct.Beacon(next.Map.Map, ct.Epoch0.Add(time.Hour), 1)); err != nil {
			t.Errorf("DeliverBeacon = %v", err)
		}
		if _, err := n.k.DeliverBeacon(ct.Beacon(m, ct.Epoch0.Add(2*time.Hour), 1)); err == nil {
			t.Error("a beacon of the map before was taken")
		}
	}
	n.mustDeliver(n.next(1))
	if last := n.k.Lease().Last(); !last.Equal(ct.Epoch0.Add(time.Hour)) {
		t.Errorf("newest time is %s", last)
	}
}
