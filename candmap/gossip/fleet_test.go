package gossip_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/internal/memnet"
)

const latency = time.Millisecond

// fleet is a cluster of Keepers joined by gossip alone, in virtual time.
type fleet struct {
	t      *testing.T
	net    *memnet.Network
	m      *candmap.Map
	env    candmap.Envelope
	roster *candmap.Roster
	logs   *observer.ObservedLogs
	log    *zap.Logger
	nodes  []*peer // all that were started
}

// peer is one node of a fleet.
type peer struct {
	*gossip.Gossip
	n      int
	k      *candmap.Keeper
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	news []candmap.Envelope
}

func (p *peer) told() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.news)
}

// secret is a gossip key made of one byte.
func secret(b byte) cluster.Secret {
	key := make([]byte, gossip.KeySize)
	for i := range key {
		key[i] = b
	}
	return cluster.NewSecret(key)
}

// inBubble runs f with a fleet whose roster has size nodes and whose voters
// are the first three. What f started is stopped after it.
func inBubble(t *testing.T, size int, f func(*fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var ids []int
		for n := 1; n <= size; n++ {
			ids = append(ids, n)
		}
		core, logs := observer.New(zapcore.DebugLevel)
		fl := &fleet{t: t, net: memnet.New(), m: ct.Map(1, 2, 3), roster: ct.Roster(ids...), logs: logs, log: zap.New(core)}
		fl.net.SetLatency(latency)
		fl.m.Roster = fl.roster.Hash()
		fl.env = ct.Seal(fl.m, 1, 2, 3)
		defer fl.end()
		f(fl)
	})
}

// end stops everything, and gives memberlist's own goroutines, which nobody
// can wait for, the virtual time to see it.
func (fl *fleet) end() {
	for _, p := range fl.nodes {
		p.stop()
	}
	fl.net.Close()
	time.Sleep(time.Minute)
}

func (p *peer) stop() {
	p.cancel()
	<-p.done
}

func (fl *fleet) keeper() *candmap.Keeper {
	k, err := candmap.NewKeeper(candmap.KeeperConfig{Cluster: ct.Cluster, Store: &ct.Store{}, Clocks: ct.NewClock().Now})
	if err != nil {
		fl.t.Fatal(err)
	}
	if _, err := k.Create(fl.t.Context(), fl.env, ct.Docs(fl.roster)); err != nil {
		fl.t.Fatal(err)
	}
	return k
}

// start runs node n on its host.
func (fl *fleet) start(n int, edit ...func(*gossip.Config)) *peer {
	fl.t.Helper()
	p := &peer{n: n, k: fl.keeper(), done: make(chan struct{})}
	cfg := gossip.Config{
		Self: ct.NodeID(n), BindAddr: ct.Addr(n), Port: cluster.DefaultPorts.Gossip, Key: secret(7), Holder: p.k,
		Network: fl.net.Host(ct.Addr(n)), Log: fl.log,
		OnNews: func(env candmap.Envelope) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.news = append(p.news, env)
		},
	}
	for _, e := range edit {
		e(&cfg)
	}
	g, err := gossip.New(cfg)
	if err != nil {
		fl.t.Fatal(err)
	}
	p.Gossip = g
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go func() {
		defer close(p.done)
		if err := g.Run(ctx); err != nil {
			fl.t.Errorf("node %d: %v", n, err)
		}
	}()
	fl.nodes = append(fl.nodes, p)
	return p
}

// startAll runs all nodes and waits until each sees all.
func (fl *fleet) startAll() {
	fl.t.Helper()
	for n := 1; n <= len(fl.roster.Nodes()); n++ {
		fl.start(n)
	}
	fl.until("all are members", 2*time.Minute, func() bool { return all(fl.nodes, fl.seesAll) })
}

func (fl *fleet) seesAll(p *peer) bool { return alive(p) == len(fl.roster.Nodes()) }

func alive(p *peer) int {
	n := 0
	for _, m := range p.Members() {
		if m.State == gossip.StateAlive {
			n++
		}
	}
	return n
}

func all(peers []*peer, ok func(*peer) bool) bool {
	for _, p := range peers {
		if !ok(p) {
			return false
		}
	}
	return true
}

// until looks every ten virtual milliseconds whether something holds, and
// returns how long that took.
func (fl *fleet) until(what string, limit time.Duration, ok func() bool) time.Duration {
	fl.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			fl.t.Fatalf("after %v still not: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// beacon says that the fleet's map was current this long after it was issued.
func (fl *fleet) beacon(after time.Duration, signers ...int) candmap.Envelope {
	return ct.Beacon(fl.m, ct.Epoch0.Add(after), signers...)
}

// announce is what a node does with a beacon that the master pushed to it.
func (p *peer) announce(t *testing.T, env candmap.Envelope) {
	t.Helper()
	if news, err := p.k.DeliverBeacon(env); err != nil || !news {
		t.Fatalf("node %d takes a beacon: %v, %v", p.n, news, err)
	}
	p.Announce(env)
}

func (p *peer) holds(env candmap.Envelope) bool {
	have, ok := p.k.Beacon()
	return ok && have.Hash() == env.Hash()
}

func holding(env candmap.Envelope) func(*peer) bool {
	return func(p *peer) bool { return p.holds(env) }
}

func addrs(peers []*peer) (list []netip.Addr) {
	for _, p := range peers {
		list = append(list, ct.Addr(p.n))
	}
	return list
}
