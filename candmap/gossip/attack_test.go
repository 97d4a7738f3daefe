package gossip_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/candmap/gossip"
	"rolekey/cluster"
)

var unspecified = netip.IPv4Unspecified()

// forger is a Holder that makes a node gossip what an attacker who has the
// gossip key wants: it believes its own map, and shows its own beacon.
type forger struct {
	view   *candmap.View
	beacon candmap.Envelope
}

func (f *forger) View() *candmap.View {
	if f.view == nil {
		return &candmap.View{}
	}
	return f.view
}

func (f *forger) Beacon() (candmap.Envelope, bool) { return f.beacon, f.beacon.Payload != nil }

func (f *forger) DeliverBeacon(candmap.Envelope) (bool, error) { return false, nil }

// startForger runs node n in the hands of an attacker whose own map is m,
// signed by signers, and who spreads env.
func (fl *fleet) startForger(n int, m *candmap.Map, env candmap.Envelope, signers ...int) *peer {
	fl.t.Helper()
	own := ct.Seal(m, signers...)
	v, err := candmap.Genesis(own, own.Hash())
	if err != nil {
		fl.t.Fatal(err)
	}
	p := fl.start(n, func(c *gossip.Config) {
		c.Holder = &forger{&candmap.View{Map: v, Roster: fl.roster}, env}
	})
	p.Announce(env)
	if p.Stats().Queued != 1 {
		fl.t.Fatal("the attacker does not attack")
	}
	return p
}

// unmoved checks that the honest nodes hold env and were told once, of it.
func (fl *fleet) unmoved(env candmap.Envelope, honest []*peer) {
	fl.t.Helper()
	for _, p := range honest {
		if s := p.Stats(); !p.holds(env) || p.told() > 1 || s.Queued != 1 || p.k.View().At() != fl.m.At() {
			fl.t.Errorf("node %d was moved: told %d times, %+v", p.n, p.told(), s)
		}
	}
}

func TestG3ReplayedBeaconChangesNothing(t *testing.T) {
	inBubble(t, 6, func(fl *fleet) {
		for n := 1; n <= 5; n++ {
			fl.start(n)
		}
		honest := fl.nodes[:5]
		env := fl.beacon(time.Hour, 1, 2)
		honest[0].announce(t, env)
		fl.until("five hold it", time.Minute, func() bool { return all(honest, holding(env)) })
		fl.startForger(6, fl.m, fl.beacon(time.Minute, 1, 2), 1, 2, 3)
		fl.until("the replay was counted by all", 10*time.Minute, func() bool {
			return all(honest, func(p *peer) bool { return p.Stats().Old > 0 })
		})
		fl.unmoved(env, honest)
	})
}

func TestG3BeaconOfOneVoterChangesNothing(t *testing.T) {
	inBubble(t, 6, func(fl *fleet) {
		for n := 1; n <= 5; n++ {
			fl.start(n)
		}
		honest := fl.nodes[:5]
		env := fl.beacon(time.Minute, 1, 2)
		honest[0].announce(t, env)
		fl.until("five hold it", time.Minute, func() bool { return all(honest, holding(env)) })
		// Voter 3 was taken over. It claims to be the only voter of map 1.9.
		forged := ct.Map(3)
		forged.Version, forged.Previous, forged.Roster = 9, ct.Pin("map", 8), fl.m.Roster
		fl.startForger(6, forged, ct.Beacon(forged, ct.Epoch0.Add(time.Hour), 3), 3)
		fl.until("the forgery was counted by all", 10*time.Minute, func() bool {
			return all(honest, func(p *peer) bool { return p.Stats().Unproven > 0 })
		})
		fl.unmoved(env, honest)
		fl.until("it is in the log", 2*time.Minute, func() bool { return len(fl.logged("gossip received what an honest peer")) > 0 })
	})
}

// Two voters of three, one of whom signed nothing: the second signature is
// another key's, under the second voter's key id.
func TestG3BorrowedKeyIDChangesNothing(t *testing.T) {
	inBubble(t, 3, func(fl *fleet) {
		p := fl.start(1)
		env := fl.beacon(time.Minute, 3)
		env = candmap.Merge(env, candmap.Signature{KeyID: candmap.KeyIDOf(ct.Public(2).Public()), Sig: env.Signatures[0].Sig})
		gossip.Receive(p.Gossip, env.Encode())
		fl.until("it was judged", time.Minute, func() bool { return p.Stats().Unproven == 1 })
		if _, ok := p.k.Beacon(); ok || p.told() != 0 {
			t.Error("it was believed")
		}
	})
}

// A fork that a majority signed is an attack: counted, and not passed on.
func TestG3ForkIsNotPassedOn(t *testing.T) {
	inBubble(t, 3, func(fl *fleet) {
		p := fl.start(1)
		other := *fl.m
		other.LeaseSeconds++
		gossip.Receive(p.Gossip, ct.Beacon(&other, ct.Epoch0.Add(time.Hour), 2, 3).Encode())
		fl.until("it was judged", time.Minute, func() bool { return p.Stats().Forked == 1 })
		if p.told() != 0 || p.Stats().Queued != 0 || p.k.Forks() != 1 {
			t.Errorf("told %d, %+v, %d forks kept", p.told(), p.Stats(), p.k.Forks())
		}
	})
}

// While an attacker floods with what costs most to refuse, the newest genuine
// message still gets through, and the checks stay bounded.
func TestFloodIsBounded(t *testing.T) {
	inBubble(t, 3, func(fl *fleet) {
		p := fl.start(1)
		junk := func(i int) []byte {
			env := fl.beacon(time.Duration(i)*time.Millisecond, 3)
			sig := candmap.Signature{KeyID: candmap.KeyIDOf(ct.Public(2).Public()), Sig: env.Signatures[0].Sig}
			return candmap.Merge(env, sig).Encode()
		}
		const sent = 3000
		for i := range sent {
			gossip.Receive(p.Gossip, junk(i))
			time.Sleep(time.Millisecond)
		}
		s := p.Stats()
		if s.Unproven == 0 || s.Unproven > 20+3*50+1 {
			t.Errorf("%d envelopes verified in 3 s", s.Unproven)
		}
		if s.Received != sent || s.Dropped < sent-s.Unproven-16-1 {
			t.Errorf("the rest was not dropped: %+v", s)
		}
		env := fl.beacon(time.Hour, 1, 2)
		gossip.Receive(p.Gossip, env.Encode())
		if took := fl.until("the newest is believed", time.Second, func() bool { return p.holds(env) }); took > 100*time.Millisecond {
			t.Errorf("the newest waited %v", took)
		}
	})
}

func TestMalformedIsCounted(t *testing.T) {
	inBubble(t, 3, func(fl *fleet) {
		p := fl.start(1)
		later := fl.beacon(time.Minute, 1, 2)
		later.PayloadType = "application/vnd.rolekey.beacon.v2+json"
		for _, msg := range [][]byte{{}, []byte("{}"), []byte("junk"), later.Encode(), append(fl.beacon(time.Minute, 1, 2).Encode(), ' ')} {
			gossip.Receive(p.Gossip, msg)
			fl.until("it was judged", time.Minute, func() bool { return gossip.Waiting(p.Gossip) == 0 })
		}
		gossip.Receive(p.Gossip, make([]byte, gossip.MaxMessage+1))
		time.Sleep(time.Second)
		if s := p.Stats(); s.Malformed != 5 || s.TooLarge != 1 || s.News != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWithoutMap(t *testing.T) {
	inBubble(t, 3, func(fl *fleet) {
		p := fl.start(1, func(c *gossip.Config) { c.Holder = &forger{} })
		gossip.Receive(p.Gossip, fl.beacon(time.Minute, 1, 2).Encode())
		fl.until("it was judged", time.Minute, func() bool { return p.Stats().NoMap == 1 })
		p.Announce(fl.beacon(time.Minute, 1, 2))
		if p.Stats().Refused != 1 {
			t.Error("announced what it cannot prove")
		}
	})
}

// A former member that still has the gossip key is not let in, nor is one that
// takes the name of another from its own address.
func TestG3StrangersAreNotLetIn(t *testing.T) {
	inBubble(t, 5, func(fl *fleet) {
		fl.startAll()
		for i, self := range []int{77, 5} {
			at := ct.Addr(200 + i)
			fl.start(self, func(c *gossip.Config) { c.BindAddr, c.Network = at, fl.net.Host(at) })
		}
		time.Sleep(2 * time.Minute)
		for _, p := range fl.nodes[:5] {
			for _, m := range p.Members() {
				if m.Node == ct.NodeID(77) || m.Addr.Addr() != ct.Addr(int(m.Node[15])) {
					t.Errorf("node %d let in %+v", p.n, m)
				}
			}
		}
		if fl.strangers() == 0 {
			t.Error("nobody counted the strangers")
		}
	})
}

func (fl *fleet) strangers() (n uint64) {
	for _, p := range fl.nodes[:5] {
		n += p.Stats().Strangers
	}
	return n
}

func TestG6NoKeyInLogs(t *testing.T) {
	inBubble(t, 3, func(fl *fleet) {
		fl.startAll()
		if err := fl.nodes[0].Rekey(secret('K')); err != nil {
			t.Fatal(err)
		}
		_ = fl.nodes[1].Rekey(cluster.NewSecret(make([]byte, 31)))
		time.Sleep(2 * time.Minute)
		cfg := fmt.Sprintf("%+v %#v", gossip.Config{Key: secret('K')}, gossip.Config{Key: secret('K')})
		var all strings.Builder
		all.WriteString(cfg)
		for _, e := range fl.logs.All() {
			fmt.Fprintln(&all, e.Message, e.ContextMap())
		}
		for _, leak := range []string{"KKKK", "4b4b4b", "75 75 75", "7 7 7 7", "070707", "S0tL"} {
			if strings.Contains(all.String(), leak) {
				t.Errorf("%q is in the log", leak)
			}
		}
		if fl.logs.Len() == 0 {
			t.Error("nothing was logged at all")
		}
	})
}
