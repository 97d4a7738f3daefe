package masterip

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
)

// In these tests addresses are real: three network namespaces, two of them
// nodes, the third a neighbour whose caches are looked at. Namespaces and
// devices live as long as the processes that hold them, which die with the
// test whatever becomes of it.

// lan is a neighbour with a bridge, and two nodes behind it.
type lan struct {
	t         *testing.T
	neighbour *peer
	nodes     [2]*peer
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	if testing.Short() {
		t.Skip("needs network namespaces, which -short leaves out")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	l := &lan{t: t, neighbour: newPeer(t, "namespace")}
	for i := range l.nodes {
		l.nodes[i] = newPeer(t, "namespace")
	}
	l.neighbour.must("bridge")
	l.neighbour.must("up", "lo")
	for i, n := range l.nodes {
		n.must("up", "lo")
		l.neighbour.must("link", fmt.Sprintf("port%d", i+1), fmt.Sprint(n.pid()))
		n.must("up", "eth0", fmt.Sprintf("192.0.2.%d/24", i+1), fmt.Sprintf("2001:db8::%d/64", i+1))
		n.must("serve", fmt.Sprintf("node%d", i+1))
	}
	l.neighbour.must("up", "br0", "192.0.2.100/24", "2001:db8::100/64")
	return l
}

// holder starts a program with a Holder in the namespace of node i.
func (l *lan) holder(i int, m cluster.MasterAddress) *peer {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), "address.json")
	return newPeer(l.t, "holder", fmt.Sprint(l.nodes[i].pid()), file, m.Address.String(), m.Netdev)
}

// until asks again and again, for a limited time, and returns how long it took.
func until(t *testing.T, what string, ok func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := ok()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%s: %v", what, err)
		}
		<-time.After(5 * time.Millisecond) // nothing tells of a change in another namespace
	}
}

func is(p *peer, want string, command ...string) func() error {
	return func() error {
		if got := p.must(command...); got != want {
			return fmt.Errorf("%v: %q, want %q", command, got, want)
		}
		return nil
	}
}

func eachFamily(t *testing.T, f func(t *testing.T, m cluster.MasterAddress)) {
	for _, m := range []cluster.MasterAddress{ours4, ours6} {
		name := "IPv6"
		if m.Address.Addr().Is4() {
			name = "IPv4"
		}
		t.Run(name, func(t *testing.T) { f(t, m) })
	}
}

// TestFailoverMovesNeighbours: the address moves, and a neighbour that has used
// it talks to the new master at once, because it was told.
func TestFailoverMovesNeighbours(t *testing.T) {
	eachFamily(t, func(t *testing.T, m cluster.MasterAddress) {
		l := newLAN(t)
		ip := m.Address.Addr().String()
		a, b := l.holder(0, m), l.holder(1, m)
		macs := [2]string{l.nodes[0].must("mac", "eth0"), l.nodes[1].must("mac", "eth0")}
		b.must("news", "no", "1m")
		a.must("news", "yes", "1m")
		until(t, "the first master holds it", is(l.nodes[0], netip.PrefixFrom(m.Address.Addr(), m.Address.Addr().BitLen()).String(), "where", ip))
		until(t, "it answers", is(l.neighbour, "node1", "ask", ip))
		if got := l.neighbour.must("neighbour", ip); got != macs[0] {
			t.Fatalf("the neighbour has %s, want %s", got, macs[0])
		}
		began := time.Now()
		a.must("news", "no", "1m")
		b.must("news", "yes", "1m")
		until(t, "the neighbour's cache follows", is(l.neighbour, macs[1], "neighbour", ip))
		t.Logf("the neighbour's cache has followed %s after the change", time.Since(began).Round(time.Millisecond))
		until(t, "the new master answers", is(l.neighbour, "node2", "ask", ip))
		until(t, "the old master has given it up", is(l.nodes[0], "", "where", ip))
		// The node's own addresses are as before, and calls come from them.
		for i, n := range l.nodes {
			for _, own := range []string{fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("2001:db8::%d", i+1)} {
				if n.must("where", own) == "" {
					t.Errorf("node %d has lost %s", i+1, own)
				}
			}
		}
		to := map[bool]string{true: "192.0.2.100", false: "2001:db8::100"}[m.Address.Addr().Is4()]
		if from := l.nodes[1].must("source", to); from == ip {
			t.Errorf("the master calls from %s, which is the cluster's", from)
		}
	})
}

// TestKernelEndsADeadHolder: noded is killed, and the kernel removes the
// address when its lifetime ends. What an administrator put there stays.
func TestKernelEndsADeadHolder(t *testing.T) {
	eachFamily(t, func(t *testing.T, m cluster.MasterAddress) {
		l := newLAN(t)
		ip := m.Address.Addr().String()
		a := l.holder(0, m)
		a.must("news", "yes", "3s")
		until(t, "it is held", is(l.nodes[0], m32(m), "where", ip))
		died := time.Now()
		a.kill()
		if got := l.nodes[0].must("where", ip); got == "" {
			t.Error("the address is gone at once: then every restart would move it")
		}
		until(t, "the kernel removes it", is(l.nodes[0], "", "where", ip))
		took := time.Since(died)
		t.Logf("with a lease of 3 s, the kernel has removed it %s after the death", took.Round(10*time.Millisecond))
		if took > 3*time.Second+1500*time.Millisecond {
			t.Errorf("%s after the death, and the lease was 3 s", took)
		}
		if got := l.nodes[0].must("where", map[bool]string{true: "192.0.2.1", false: "2001:db8::1"}[m.Address.Addr().Is4()]); got == "" {
			t.Error("the node's own address is gone too")
		}
	})
}

// TestStaleHolderGivesUp: a master that hears nothing gives the address up by
// itself, and it comes back with the next beacon.
func TestStaleHolderGivesUp(t *testing.T) {
	eachFamily(t, func(t *testing.T, m cluster.MasterAddress) {
		l := newLAN(t)
		ip := m.Address.Addr().String()
		a := l.holder(0, m)
		began := time.Now()
		a.must("news", "yes", "2s")
		until(t, "it is held", is(l.nodes[0], m32(m), "where", ip))
		until(t, "it is given up", is(l.nodes[0], "", "where", ip))
		t.Logf("with a lease of 2 s, it was given up after %s", time.Since(began).Round(10*time.Millisecond))
		a.must("news", "yes", "1m")
		until(t, "it is held again", is(l.nodes[0], m32(m), "where", ip))
		// Renewed many times, it neither multiplies nor changes.
		for range 20 {
			a.must("news", "yes", "1m")
		}
		until(t, "it is held", is(l.nodes[0], m32(m), "where", ip))
	})
}

func m32(m cluster.MasterAddress) string {
	return netip.PrefixFrom(m.Address.Addr(), m.Address.Addr().BitLen()).String()
}

// TestRealKernelRefusals: what cannot be done is told in words.
func TestRealKernelRefusals(t *testing.T) {
	l := newLAN(t)
	a := l.holder(0, cluster.MasterAddress{Address: ours4.Address, Netdev: "nosuch0"})
	a.must("news", "yes", "1m")
	until(t, "the problem is told", func() error {
		if s := a.must("status"); !strings.Contains(s, "there is no network device nosuch0") {
			return errors.New(s)
		}
		return nil
	})
	l.nodes[1].must("up", "eth0", ours4.Address.String())
	b := l.holder(1, ours4)
	b.must("news", "yes", "1m")
	until(t, "the foreign address is told", func() error {
		if s := b.must("status"); !strings.Contains(s, "192.0.2.9/24 is on eth0 already, and not by this noded") {
			return errors.New(s)
		}
		return nil
	})
	b.must("news", "no", "1m")
	until(t, "not master is heard", func() error {
		if s := b.must("status"); s != "held false" {
			return errors.New(s)
		}
		return nil
	})
	if got := l.nodes[1].must("where", "192.0.2.9"); got != "192.0.2.9/24" {
		t.Errorf("the administrator's address became %q", got)
	}
}
