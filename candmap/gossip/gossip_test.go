package gossip_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/internal/memnet"
)

func TestAnnouncementReachesAll(t *testing.T) {
	inBubble(t, 20, func(fl *fleet) {
		fl.startAll()
		env := fl.beacon(time.Minute, 1, 2, 3)
		fl.nodes[4].announce(t, env)
		took := fl.until("all hold the beacon", 10*time.Second, func() bool { return all(fl.nodes, holding(env)) })
		t.Logf("reached 20 nodes in %v", took)
		time.Sleep(time.Minute) // retransmissions and push/pulls must add nothing
		for i, p := range fl.nodes {
			want := 1
			if i == 4 {
				want = 0 // it knew
			}
			if s := p.Stats(); p.told() != want || s.News != uint64(want) || s.Queued != 1 || s.Dropped != 0 {
				t.Errorf("node %d was told %d times, want %d: %+v", p.n, p.told(), want, s)
			}
			if have, _ := p.k.Beacon(); i != 4 && len(have.Signatures) != 2 {
				t.Errorf("node %d got %d signatures, want the bare majority of 3", p.n, len(have.Signatures))
			}
		}
	})
}

// Map version 2 itself does not travel; that it exists does.
func TestNewsOfNewerMap(t *testing.T) {
	inBubble(t, 5, func(fl *fleet) {
		fl.startAll()
		next := ct.Next(fl.m)
		if _, err := fl.nodes[0].k.Deliver(t.Context(), []candmap.Envelope{ct.Seal(next, 1, 2)}, nil); err != nil {
			t.Fatal(err)
		}
		env := ct.Beacon(next, ct.Epoch0.Add(2*time.Minute), 1, 2)
		fl.nodes[0].announce(t, env)
		fl.until("all know of map 1.2", 10*time.Second, func() bool {
			return all(fl.nodes[1:], func(p *peer) bool { at, ok := p.k.Behind(); return ok && at == next.At() })
		})
		fl.until("all are shown that node 1 holds it", 5*time.Minute, func() bool {
			return all(fl.nodes, func(p *peer) bool { return p.Members()[0].Version == next.At() })
		})
		if m := fl.nodes[1].Members()[0]; m.Node != ct.NodeID(1) || m.Name != ct.Name(1) || m.Addr.Addr() != ct.Addr(1) {
			t.Errorf("node 1 is shown as %+v", m)
		}
	})
}

func TestPartitionHeals(t *testing.T) {
	inBubble(t, 20, func(fl *fleet) {
		fl.startAll()
		left, right := fl.nodes[:10], fl.nodes[10:]
		fl.net.Partition(addrs(right))
		time.Sleep(3 * time.Minute) // each side has forgotten the other
		if n := alive(left[0]); n != 10 {
			t.Errorf("node 1 sees %d members behind the partition, want 10", n)
		}
		env := fl.beacon(time.Minute, 1, 2)
		left[0].announce(t, env)
		fl.until("its side holds the beacon", 10*time.Second, func() bool { return all(left, holding(env)) })
		if slices.ContainsFunc(right, holding(env)) {
			t.Error("a beacon crossed the partition")
		}
		fl.net.Heal()
		took := fl.until("all hold the beacon", 2*time.Minute, func() bool { return all(fl.nodes, holding(env)) })
		t.Logf("healed in %v", took)
		fl.until("all are members again", 5*time.Minute, func() bool { return all(fl.nodes, fl.seesAll) })
	})
}

// A node that was off while an announcement spread gets it by push/pull.
func TestLatecomer(t *testing.T) {
	inBubble(t, 5, func(fl *fleet) {
		for n := 1; n <= 4; n++ {
			fl.start(n)
		}
		env := fl.beacon(time.Minute, 2, 3)
		fl.nodes[0].announce(t, env)
		fl.until("four hold it", time.Minute, func() bool { return all(fl.nodes, holding(env)) })
		time.Sleep(time.Minute)
		late := fl.start(5)
		fl.until("the fifth holds it", time.Minute, func() bool { return late.holds(env) })
	})
}

// A machine that loses power says nothing; one that hangs takes connections
// and never answers. Neither delays the others.
func TestStoppedPeersBlockNobody(t *testing.T) {
	inBubble(t, 20, func(fl *fleet) {
		fl.startAll()
		dead, hung := fl.nodes[18], fl.nodes[19]
		fl.net.Partition(addrs([]*peer{dead}))
		fl.net.Host(ct.Addr(dead.n)).Stop()
		for _, p := range fl.nodes {
			fl.net.Block(ct.Addr(hung.n), ct.Addr(p.n)) // it hears, and is never heard
		}
		env := fl.beacon(time.Minute, 1, 2)
		fl.nodes[0].announce(t, env)
		took := fl.until("the others hold it", 10*time.Second, func() bool { return all(fl.nodes[:18], holding(env)) })
		t.Logf("reached 18 of 20 nodes in %v", took)
		start := time.Now()
		fl.nodes[1].stop()
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("stopping took %v", d)
		}
	})
}

func TestLeaveAndReturn(t *testing.T) {
	inBubble(t, 5, func(fl *fleet) {
		fl.startAll()
		fl.nodes[4].stop()
		rest := fl.nodes[:4]
		took := fl.until("the others saw it leave", time.Minute, func() bool {
			return all(rest, func(p *peer) bool { return p.Members()[4].State == gossip.StateGone })
		})
		if took > 2*time.Second {
			t.Errorf("that took %v: it did not say goodbye", took)
		}
		again := fl.start(5)
		fl.until("it is back", time.Minute, func() bool { return all(append(rest, again), fl.seesAll) })
	})
}

// The other end of a firewall: gossip is down or alone, says so, and comes
// back by itself.
func TestSocketsLost(t *testing.T) {
	inBubble(t, 3, func(fl *fleet) {
		fl.startAll()
		host := fl.net.Host(ct.Addr(3))
		host.Stop()
		fl.until("it noticed", time.Minute, func() bool { return len(fl.nodes[2].Members()) == 0 })
		if fl.logs.FilterMessage("gossip is down, trying again").Len() == 0 {
			t.Error("it did not say so")
		}
		host.Start()
		fl.until("it is back", 3*time.Minute, func() bool { return all(fl.nodes, fl.seesAll) })
	})
}

func TestAloneIsLoggedOnce(t *testing.T) {
	inBubble(t, 2, func(fl *fleet) {
		fl.start(1)
		time.Sleep(5 * time.Minute)
		const alone, again = "gossip reaches nobody", "gossip reaches others again"
		if n := len(fl.logged(alone)); n != 1 {
			t.Errorf("%d lines %q, want 1", n, alone)
		}
		fl.start(2)
		fl.until("they met", time.Minute, func() bool { return len(fl.logged(again)) == 1 })
	})
}

func (fl *fleet) logged(start string) (lines []string) {
	for _, e := range fl.logs.All() {
		if strings.HasPrefix(e.Message, start) {
			lines = append(lines, e.Message)
		}
	}
	return lines
}

func TestRekey(t *testing.T) {
	inBubble(t, 4, func(fl *fleet) {
		fl.startAll()
		old, next := secret(7), secret(8)
		steps := [][]cluster.Secret{{old, next}, {next, old}, {next}}
		for i, keys := range steps {
			for j, p := range fl.nodes[:3] {
				if err := p.Rekey(keys[0], keys[1:]...); err != nil {
					t.Fatal(err)
				}
				// One after another, and an announcement at each moment.
				env := fl.beacon(time.Duration(10*i+j+1)*time.Minute, 1, 2)
				fl.nodes[j].announce(t, env)
				fl.until(fmt.Sprintf("step %d.%d: three hold it", i, j), 2*time.Minute, func() bool { return all(fl.nodes[:3], holding(env)) })
			}
		}
		// The fourth was removed, so nobody told it the new key.
		removed := fl.nodes[3]
		time.Sleep(3 * time.Minute)
		env := fl.beacon(time.Hour, 1, 2)
		fl.nodes[0].announce(t, env)
		fl.until("three hold it", time.Minute, func() bool { return all(fl.nodes[:3], holding(env)) })
		time.Sleep(5 * time.Minute)
		if removed.holds(env) || alive(removed) != 1 || alive(fl.nodes[0]) != 3 {
			t.Errorf("with the old key: holds %v, sees %d; the others see %d", removed.holds(env), alive(removed), alive(fl.nodes[0]))
		}
	})
}

func TestRekeyRefusesBadKeys(t *testing.T) {
	inBubble(t, 3, func(fl *fleet) {
		p := fl.start(1)
		short := cluster.NewSecret(make([]byte, 16))
		for _, keys := range [][]cluster.Secret{{short}, {secret(1), {}}, {secret(1), secret(2), secret(3), secret(4)}} {
			if err := p.Rekey(keys[0], keys[1:]...); err == nil {
				t.Errorf("%d keys accepted", len(keys))
			}
		}
	})
}

func TestOversizeIsRefused(t *testing.T) {
	inBubble(t, 3, func(fl *fleet) {
		p := fl.start(1)
		p.Announce(ct.SealBytes(candmap.BeaconType, make([]byte, 900), 1, 2))
		p.Announce(ct.SealBytes(candmap.BeaconType, []byte("{}"), 1, 2)) // fits, and is none
		p.Announce(fl.beacon(time.Minute, 1))
		p.Announce(fl.env) // a map
		if s := p.Stats(); s.Refused != 4 || s.Queued != 0 {
			t.Errorf("%+v, want 4 refused", s)
		}
		entries := fl.logs.FilterMessage("announcement refused").All()
		if len(entries) != 4 || !strings.Contains(entries[0].ContextMap()["error"].(string), "1363") {
			t.Errorf("logged %v", entries)
		}
		p.Announce(fl.beacon(2*time.Minute, 1, 2))
		p.Announce(fl.beacon(time.Minute, 1, 2)) // older: must not evict the newer
		if s := p.Stats(); s.Queued != 1 || s.Refused != 4 {
			t.Errorf("%+v, want 1 queued", s)
		}
	})
}

// The largest beacon that there can be fits: seven voters, the largest
// numbers.
func TestLargestBeaconFits(t *testing.T) {
	m := ct.Map(1, 2, 3, 4, 5, 6, 7)
	b := candmap.Beacon{
		Cluster: ct.Cluster, Epoch: candmap.MaxNumber - 1, Version: candmap.MaxNumber - 1,
		Map: cluster.DigestOf(nil), Time: candmap.Stamp(ct.Epoch0),
	}
	doc, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	env := ct.SealBytes(candmap.BeaconType, doc, 1, 2, 3, 4)
	if n := len(env.Encode()); n > gossip.MaxMessage {
		t.Errorf("it has %d bytes, the limit is %d", n, gossip.MaxMessage)
	} else {
		t.Logf("%d bytes with %d of %d voters", n, m.Authority().Majority(), len(m.Authority().Voters))
	}
}

func TestNewRefuses(t *testing.T) {
	good := func() gossip.Config {
		return gossip.Config{Self: ct.NodeID(1), BindAddr: ct.Addr(1), Port: 1, Key: secret(1), Holder: &forger{}, Network: memnet.New().Host(ct.Addr(1))}
	}
	if _, err := gossip.New(good()); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*gossip.Config){
		"self":      func(c *gossip.Config) { c.Self = cluster.NodeID{} },
		"holder":    func(c *gossip.Config) { c.Holder = nil },
		"address":   func(c *gossip.Config) { c.BindAddr = netip.Addr{} },
		"port":      func(c *gossip.Config) { c.Port = 0 },
		"key":       func(c *gossip.Config) { c.Key = cluster.NewSecret(make([]byte, 31)) },
		"advertise": func(c *gossip.Config) { c.BindAddr = unspecified },
	} {
		cfg := good()
		edit(&cfg)
		if _, err := gossip.New(cfg); err == nil {
			t.Errorf("no error with a bad %s", name)
		}
	}
}

// By IPv6, bound to all addresses, and with an address that does not answer
// listed before the one that does.
func TestSeveralAddresses(t *testing.T) {
	inBubble(t, 2, func(fl *fleet) {
		at := func(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00::%d", n)) }
		var list []candmap.RosterNode
		for n := 1; n <= 2; n++ {
			node := ct.RosterNode(n)
			node.Addresses = []netip.Addr{ct.Addr(n), at(n)}
			list = append(list, node)
		}
		r, err := candmap.NewRoster(list, nil)
		if err != nil {
			t.Fatal(err)
		}
		fl.roster, fl.m.Roster = r, r.Hash()
		fl.env = ct.Seal(fl.m, 1, 2, 3)
		for n := 1; n <= 2; n++ {
			fl.start(n, func(c *gossip.Config) {
				c.BindAddr, c.AdvertiseAddr, c.Network = netip.IPv6Unspecified(), at(n), fl.net.Host(at(n))
			})
		}
		fl.until("they met", time.Minute, func() bool { return all(fl.nodes, fl.seesAll) })
		env := fl.beacon(time.Minute, 1, 2)
		fl.nodes[0].announce(t, env)
		fl.until("both hold it", time.Minute, func() bool { return all(fl.nodes, holding(env)) })
		if m := fl.nodes[0].Members()[1]; m.Addr != netip.AddrPortFrom(at(2), 1813) {
			t.Errorf("node 2 is shown at %v", m.Addr)
		}
	})
}
