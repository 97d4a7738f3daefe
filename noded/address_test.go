package noded

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/noded/masterip"
	"rolekey/rpc"
)

// wires is a machine's kernel, as far as it has addresses.
type wires struct {
	mu     sync.Mutex
	places []masterip.Place
	life   time.Duration // of the newest Set
}

func (w *wires) Places() ([]masterip.Place, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.places), nil
}

func (w *wires) Set(dev string, p netip.Prefix, life time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.life = life; !slices.Contains(w.places, masterip.Place{Netdev: dev, Prefix: p}) {
		w.places = append(w.places, masterip.Place{Netdev: dev, Prefix: p})
	}
	return nil
}

func (w *wires) Delete(dev string, p netip.Prefix) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.places = slices.DeleteFunc(w.places, func(o masterip.Place) bool { return o.Netdev == dev && o.Prefix == p })
	return nil
}

func (w *wires) Announce(string, netip.Addr) error { return nil }

func (w *wires) holds() bool {
	places, _ := w.Places()
	return len(places) > 0
}

// TestClusterAddressFollowsTheMap: the master holds the address, and gives it
// up to the next map, at the end of its lease, and when it leaves; a restart
// leaves it where it is.
func TestClusterAddressFollowsTheMap(t *testing.T) {
	t.Parallel()
	h, k := newHost(t), &wires{}
	h.cfg.Kernel = k
	w := foundedOn(t, h)
	second := joined(t, w)
	w.promote(second, false)
	id, other := h.member().id.Node, second.member().id.Node
	address := cluster.MasterAddress{Address: netip.MustParsePrefix("192.0.2.9/24"), Netdev: "eth0"}
	state := func() *rpc.AddressState {
		var s rpc.NodeState
		if err := w.call(id, rpc.MethodState, "", nil, &s); err != nil {
			t.Fatal(err)
		}
		return s.MasterAddress
	}
	if s := state(); s != nil || k.holds() {
		t.Errorf("a cluster without address: %+v", s)
	}
	w.settle(candmap.Settings{Name: "dev.example", Address: &address}, func(*candmap.Map) {})
	w.mustPush(id)
	h.poll("the master holds the address", func() bool { return h.member().address.Status().Held })
	if s := state(); s == nil || !s.Held || s.Address != "192.0.2.9/24" || s.Netdev != "eth0" || s.Problem != "" || !k.holds() {
		t.Errorf("state %+v", s)
	}
	if left := h.member().keeper.Left(); k.life < time.Second || k.life > left+time.Second {
		t.Errorf("it has %s, and the lease %s", k.life, left)
	}
	h.stop()
	if !k.holds() {
		t.Fatal("a restart moves the address")
	}
	h.up()
	h.poll("the new run knows that it is there", func() bool { return h.member().address.Status().Held })
	w.mustPush(id)
	w.next(func(m *candmap.Map) { m.Master = other })
	w.mustPush(id)
	h.poll("a former master gives it up", func() bool { return !k.holds() })
	w.next(func(m *candmap.Map) { m.Master = id })
	w.mustPush(id)
	h.poll("the next master takes it", k.holds)
	if err := h.post(rpc.LocalLeave, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	if k.holds() {
		t.Error("a node that has left holds the address")
	}
	if _, err := os.Stat(filepath.Join(h.cfg.Paths.NodeDir(), addressNote)); err == nil {
		t.Error("the record stays")
	}
}

// TestStaleMasterHoldsNoClusterAddress: under best_effort, too, where it goes
// on to serve: another may be master by now.
func TestStaleMasterHoldsNoClusterAddress(t *testing.T) {
	t.Parallel()
	h, k := newHost(t), &wires{}
	h.cfg.Kernel = k
	w := foundedOn(t, h)
	id := h.member().id.Node
	address := &cluster.MasterAddress{Address: netip.MustParsePrefix("2001:db8::9/64"), Netdev: "eth0"}
	w.settle(candmap.Settings{Name: "dev.example", Address: address}, func(m *candmap.Map) { m.LeaseSeconds, m.Policy = 2, cluster.PolicyBestEffort })
	w.mustPush(id)
	h.poll("it holds the address", k.holds)
	h.poll("it is stale, and gives it up", func() bool { return !k.holds() })
	if h.member().keeper.Fresh() {
		t.Error("it gave the address up while its map was fresh")
	}
	h.stop()
	lines := readAudit(t, h.cfg.Paths.NodedAudit())
	for _, act := range []audit.Act{audit.AddressTaken, audit.AddressReleased} {
		if got := linesOf(lines, act); len(got) != 1 || got[0].Target != "2001:db8::9/64" || got[0].After["netdev"] != "eth0" {
			t.Errorf("%s: %+v", act, got)
		}
	}
}
