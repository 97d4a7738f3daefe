package vcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/rpc"
)

// evict is gnt-cluster evict on the node.
func (n *Node) evict(target *Node, undo bool) {
	n.c.t.Helper()
	var r rpc.EvictReply
	err := n.local.Do(n.c.t.Context(), "POST", rpc.LocalEvict, rpc.EvictRequest{Node: string(target.Name), Undo: undo}, &r)
	n.c.must(err)
	if !r.Changed || r.Problem != "" || undo != (len(r.Evicted) == 0) {
		n.c.t.Fatalf("%s: evict %s: %+v", n.Short(), target.Short(), r)
	}
}

func (n *Node) evicted() []rpc.Eviction {
	n.c.t.Helper()
	var r rpc.EvictReply
	n.c.must(n.local.Do(n.c.t.Context(), "GET", rpc.LocalEvict, nil, &r))
	return r.Evicted
}

// usurperMaster has the keys of the master, whose daemons it has replaced: it
// heartbeats in a term of its own choice, so that all voters take it for the
// leader for ever, and has them sign beacons, so that all nodes obey it.
type usurperMaster struct {
	*Loot
	n      *Node
	id     raft.ServerID
	cancel context.CancelFunc
	done   sync.WaitGroup

	turn    chan struct{} // held for a round of messages: all voters know of one term
	mu      sync.Mutex
	term    uint64
	raising bool  // each heartbeat is of a later term
	beacons error // what the last beacon lacked
}

// usurpTerm is higher than any that an election has reached.
const usurpTerm = 1000

// Usurp replaces the master's daemons, and returns when all obey.
func (c *Cluster) Usurp(raising bool) *usurperMaster {
	c.t.Helper()
	u := &usurperMaster{n: c.Master(), turn: make(chan struct{}, 1), term: usurpTerm, raising: raising}
	u.Loot, u.id = u.n.Steal(), consensus.ServerID(u.n.ID, 1)
	v, err := u.n.View()
	c.must(err)
	u.n.Crash()
	u.n.Host.Start()
	ctx, cancel := context.WithCancel(context.Background())
	u.cancel = cancel
	c.t.Cleanup(func() {
		cancel()
		u.done.Wait()
	})
	u.done.Go(func() { u.each(ctx, 100*time.Millisecond, func() { u.heartbeat(ctx) }) })
	u.done.Go(func() { u.each(ctx, c.opts.Lease/4, func() { u.beacon(ctx, v.Map) }) })
	return u
}

func (u *usurperMaster) each(ctx context.Context, every time.Duration, do func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// End leaves the machine off.
func (u *usurperMaster) End() {
	u.cancel()
	u.done.Wait()
	u.n.Host.Stop()
}

func (u *usurperMaster) others(do func(to *Node)) {
	var all sync.WaitGroup
	for _, to := range u.n.c.Nodes {
		if to != u.n && to.Up() {
			all.Go(func() { do(to) })
		}
	}
	all.Wait()
}

func (u *usurperMaster) now() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.term
}

func (u *usurperMaster) raft(to *Node, message string, m any) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	body, err := json.Marshal(map[string]any{"message": m})
	u.n.c.must(err)
	return u.CallWith(ctx, to, rpc.Masterd, rpc.MethodRaft, message, json.RawMessage(body), nil)
}

func (u *usurperMaster) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(u.id), Addr: []byte(u.id)}
}

func (u *usurperMaster) heartbeat(context.Context) {
	u.turn <- struct{}{}
	defer func() { <-u.turn }()
	if u.raising {
		u.mu.Lock()
		u.term++
		u.mu.Unlock()
	}
	u.others(func(to *Node) {
		_ = u.raft(to, consensus.MessageAppendEntries, &raft.AppendEntriesRequest{RPCHeader: u.header(), Term: u.now()}) // who listens, listens
	})
}

// beacon has the voters sign that the map is the current one, and delivers it.
func (u *usurperMaster) beacon(ctx context.Context, held candmap.Envelope) {
	u.turn <- struct{}{}
	defer func() { <-u.turn }()
	m, err := candmap.DecodeMap(held.Payload)
	u.n.c.must(err)
	env := u.Loot.beacon(held.Payload, m.At(), held.Hash(), time.Now())
	req := rpc.SignRequest{PayloadType: candmap.BeaconType, Version: m.At(), Hash: held.Hash(), Payload: env.Payload, Term: u.now()}
	var mu sync.Mutex
	var errs []error
	u.others(func(to *Node) {
		if e := entryOf(m, to.ID); e == nil || !e.Voter {
			return
		}
		var reply rpc.SignReply
		err := u.CallWith(ctx, to, rpc.Masterd, rpc.MethodSign, "", req, &reply)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", to.Short(), err))
			return
		}
		env = candmap.Merge(env, reply.Signature)
	})
	u.others(func(to *Node) {
		if err := u.CallWith(ctx, to, rpc.Noded, rpc.MethodBeaconPut, "", env, nil); err != nil {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, fmt.Errorf("%s: %w", to.Short(), err))
		}
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	u.beacons = errors.Join(errs...)
}

func (u *usurperMaster) rules() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.beacons
}

// refused checks that nothing that the usurper may say has an effect.
func (u *usurperMaster) refused(c *Cluster) {
	c.t.Helper()
	v, err := c.Master().View()
	c.must(err)
	m, err := candmap.DecodeMap(v.Map.Payload)
	c.must(err)
	forged := u.forge(v.Map.Payload, m.Master)
	beacon := u.Loot.beacon(v.Map.Payload, m.At(), v.Map.Hash(), time.Now())
	stamp := rpc.Stamp{Version: m.At(), Term: u.now() + 9}
	u.others(func(to *Node) {
		c.Refused("an order of the evicted master", u.order(to, stamp), cluster.CodeNotInMap)
		c.Refused("a map of it", u.Call(to, rpc.Noded, rpc.MethodMapPut, "", rpc.MapDelivery{Maps: []candmap.Envelope{forged}}, nil), cluster.CodeBadSignature)
		c.Refused("a beacon of it", u.Call(to, rpc.Noded, rpc.MethodBeaconPut, "", beacon, nil), cluster.CodeBadSignature)
		if m := entryOf(m, to.ID); m == nil {
			return
		}
		req := rpc.SignRequest{PayloadType: candmap.BeaconType, Version: m.At(), Hash: v.Map.Hash(), Payload: beacon.Payload, Term: u.now()}
		c.Refused("a request to sign", u.Call(to, rpc.Masterd, rpc.MethodSign, "", req, nil), cluster.CodeNotInMap)
		c.Refused("a heartbeat", u.raft(to, consensus.MessageAppendEntries, &raft.AppendEntriesRequest{RPCHeader: u.header(), Term: u.now() + 1}), cluster.CodeNotInMap)
	})
}

// deposeWithin is how long the voters may take to elect another master, and it
// to come into office.
const deposeWithin = 8 * time.Second

// TestG3EvictHostileMaster: a master that lies about terms and keeps
// heartbeating rules for ever, until a majority of the voters evicts it.
func TestG3EvictHostileMaster(t *testing.T) {
	for _, s := range []struct {
		voters, evict int
		raising       bool
	}{{3, 2, false}, {3, 2, true}, {5, 3, false}, {5, 4, true}} {
		t.Run(fmt.Sprintf("%d of %d, raising terms %t", s.evict, s.voters, s.raising), func(t *testing.T) {
			Run(t, s.voters+1, Options{Pool: s.voters, Reach: cluster.ReachMaster}, func(t *testing.T, c *Cluster) {
				u := c.Usurp(s.raising)
				normal := c.Node(s.voters + 1)
				c.Pass(3 * c.opts.Lease)
				if n := len(c.Masters()); n != 0 {
					t.Fatalf("%d masters in office under the usurper", n)
				}
				c.must(u.rules())
				c.must(u.order(normal, u.stamp(normal)))
				for _, n := range c.Nodes[:s.voters] {
					if n != u.n && s.evict > 0 {
						n.evict(u.n, false)
						s.evict--
						if s.evict > 0 {
							c.Pass(time.Second) // nobody types in two places at once
						}
					}
				}
				c.Await(deposeWithin, func() error { _, err := c.one(); return err })
				c.Must(Offline(u.n, true))
				c.Settle()
				u.refused(c)
				for _, n := range c.Up() {
					if list := n.evicted(); len(list) > 0 {
						t.Errorf("%s still refuses %v, which is no candidate any more", n.Short(), list)
					}
				}
				u.End()
			})
		})
	}
}

// stamp is one that the node obeys.
func (u *usurperMaster) stamp(to *Node) rpc.Stamp {
	v, err := to.View()
	u.n.c.must(err)
	m, err := candmap.DecodeMap(v.Map.Payload)
	u.n.c.must(err)
	return rpc.Stamp{Version: m.At(), Term: u.now()}
}

// TestEvictionByMinority does no harm: one voter does not take part.
func TestEvictionByMinority(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		master, alone := c.Master(), c.other()
		alone.evict(master, false)
		for round := range 4 {
			c.Must(Candidate(c.Node(4), round%2 == 0))
			c.Pass(c.opts.Lease)
			if c.Master() != master {
				t.Fatal("one voter has deposed the master")
			}
			c.must(c.Check())
			if round == 1 {
				alone.Restart()
			}
		}
		if len(alone.evicted()) != 1 {
			t.Fatal("the eviction has not survived a restart")
		}
		c.Refused("a call of the evicted one", master.Steal().State(alone), cluster.CodeEvicted)
		alone.evict(master, true)
		c.Settle()
		c.Await(Limit, func() error { // it follows again, and may lead
			_, err := alone.failover("")
			return err
		})
		if c.Master() != alone {
			t.Fatal("the voter does not lead")
		}
	})
}

// TestEvictHonestMaster deposes a master that runs as it should, which is
// restarted, and comes back in the end.
func TestEvictHonestMaster(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		old := c.Master()
		for _, n := range c.Nodes[:3] {
			if n != old {
				n.evict(old, false)
			}
		}
		c.Await(deposeWithin, func() error {
			m, err := c.one()
			if err == nil && m == old {
				err = errors.New("the old master is still in office")
			}
			return err
		})
		old.Restart()
		c.Pass(10 * time.Second)
		now := c.Master()
		if now == old {
			t.Fatal("the evicted node is master again")
		}
		c.Must(Candidate(c.Node(4), true))
		c.Must(Offline(old, true))
		c.Settle()
		c.Must(Offline(old, false))
		c.Must(Candidate(old, true))
		c.Settle()
	})
}

// TestG7EvictDisturbed restarts the evicting nodes at once, and evicts a master
// that died in the middle of a change: what it committed is completed although
// it names the evicted one.
func TestG7EvictDisturbed(t *testing.T) {
	for k := range 12 {
		if !every && k%4 != 1 {
			continue
		}
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
				old := c.Master()
				_, err := c.SubmitTo(old, Candidate(c.Node(4), true))
				c.must(err)
				c.Pass(time.Duration(k) * step)
				old.Crash()
				for _, n := range c.Nodes[:3] {
					if n != old {
						n.evict(old, false)
						n.Restart()
					}
				}
				c.Await(Limit, func() error { _, err := c.one(); return err })
				old.Start()
				c.Pass(5 * time.Second)
				c.Must(Offline(old, true))
				c.Settle()
				c.Must(Offline(old, false))
			})
		})
	}
}
