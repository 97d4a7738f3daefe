package gossip_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/candmap/gossip"
)

// freePort returns a port that is free for TCP and UDP on an address.
func freePort(t *testing.T, at netip.Addr) uint16 {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		p, err := net.ListenPacket("udp", netip.AddrPortFrom(at, port).String())
		if err == nil {
			_ = p.Close()
		}
		if _ = l.Close(); err == nil {
			return port
		}
	}
	t.Fatal("no port is free for both")
	return 0
}

// realNode runs node n of the roster on the system's loopback; news gets what
// it is told.
func realNode(t *testing.T, env candmap.Envelope, r *candmap.Roster, n int, news chan<- candmap.Envelope) (*gossip.Gossip, *candmap.Keeper) {
	t.Helper()
	k, err := candmap.NewKeeper(candmap.KeeperConfig{Cluster: ct.Cluster, Store: &ct.Store{}, Clocks: ct.NewClock().Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Create(t.Context(), env, ct.Docs(r)); err != nil {
		t.Fatal(err)
	}
	self := r.Node(ct.NodeID(n))
	g, err := gossip.New(gossip.Config{
		Self: self.UUID, BindAddr: self.Addresses[0], Port: self.Ports.Gossip, Key: secret(1), Holder: k,
		OnNews: func(env candmap.Envelope) { news <- env },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("node %d: %v", n, err)
		}
	})
	return g, k
}

// Over the real sockets of this machine.
func TestRealSockets(t *testing.T) {
	var nodes []candmap.RosterNode
	for i, a := range []string{"127.0.0.1", "127.0.0.2"} {
		node := ct.RosterNode(i + 1)
		node.Addresses = []netip.Addr{netip.MustParseAddr(a)}
		node.Ports.Gossip = freePort(t, node.Addresses[0])
		nodes = append(nodes, node)
	}
	r, err := candmap.NewRoster(nodes, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := ct.Map(1, 2, 3)
	m.Roster = r.Hash()
	env := ct.Seal(m, 1, 2)
	news := make(chan candmap.Envelope, 1)
	first, k := realNode(t, env, r, 1, make(chan candmap.Envelope, 1))
	_, _ = realNode(t, env, r, 2, news)
	b := ct.Beacon(m, ct.Epoch0, 1, 2)
	if _, err := k.DeliverBeacon(b); err != nil {
		t.Fatal(err)
	}
	first.Announce(b)
	select {
	case got := <-news:
		if got.Hash() != b.Hash() {
			t.Error("another beacon arrived")
		}
	case <-time.After(time.Minute):
		t.Fatal("nothing arrived in a minute")
	}
}
