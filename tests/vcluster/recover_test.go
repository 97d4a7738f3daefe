package vcluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// recoverable runs a scenario in a cluster that has a recovery key.
func recoverable(t *testing.T, n int, o Options, scenario func(t *testing.T, c *Cluster, id age.Identity)) {
	t.Helper()
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	o.Recovery = id.Recipient().String()
	Run(t, n, o, func(t *testing.T, c *Cluster) { scenario(t, c, id) })
}

// lose powers off all voters but one, which the others then cannot reach, and
// returns it and them.
func (c *Cluster) lose() (left *Node, lost []*Node) {
	c.t.Helper()
	st, err := c.State()
	c.must(err)
	for _, v := range st.Voters() {
		switch n := c.ByID(v); {
		case left == nil && v != st.Master:
			left = n
		default:
			lost = append(lost, n)
		}
	}
	for _, n := range lost {
		n.PowerOff()
	}
	return left, lost
}

// goOn recovers on a node, which may believe for a while that the master
// lives.
func (c *Cluster) goOn(n *Node, id age.Identity) rpc.RecoverReply {
	c.t.Helper()
	var r rpc.RecoverReply
	c.Await(Limit, func() (err error) {
		r, err = n.Recover(id)
		return err
	})
	return r
}

func TestRecoverLostMajority(t *testing.T) {
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			recoverable(t, size+1, Options{Pool: size}, func(t *testing.T, c *Cluster, id age.Identity) {
				left, lost := c.lose()
				if len(lost) != size-1 {
					t.Fatalf("%d voters are lost", len(lost))
				}
				r := c.goOn(left, id)
				if !r.Durable || r.Version.Epoch != 2 || len(r.Again) != size-1 || r.Behind {
					t.Errorf("reply %+v", r)
				}
				answered := 0
				for _, n := range r.Nodes {
					if n.Problem == "" {
						answered++
					}
				}
				if answered != 1 {
					t.Errorf("%d nodes answered, want the regular one: %+v", answered, r.Nodes)
				}
				if m := c.Master(); m != left {
					t.Fatalf("%s is master", m.Short())
				}
				c.Settle()
				c.Heal()
				for _, n := range lost {
					n.Start()
				}
				c.allAgain(size)
			})
		})
	}
}

// allAgain waits until every candidate of before is one again, with new keys.
func (c *Cluster) allAgain(size int) {
	c.t.Helper()
	c.Await(3*Limit, func() error {
		st, err := c.State()
		if err != nil {
			return err
		}
		if n := len(st.Candidates()); n != size || len(st.Again()) > 0 {
			return fmt.Errorf("%d candidates of %d, %d to come", n, size, len(st.Again()))
		}
		return nil
	})
	c.Settle()
}

// TestRecoverOfTwo: of two candidates one votes. When that one is lost, the
// other one has all of the state.
func TestRecoverOfTwo(t *testing.T) {
	recoverable(t, 2, Options{Pool: 2}, func(t *testing.T, c *Cluster, id age.Identity) {
		st, err := c.State()
		c.must(err)
		if len(st.Voters()) != 1 {
			t.Fatalf("%d vote", len(st.Voters()))
		}
		voter := c.ByID(st.Voters()[0])
		other := c.Node(1)
		if other == voter {
			other = c.Node(2)
		}
		c.Await(Limit, func() error { // until then it would hold nothing to go on with
			_, err := other.Masterd().State()
			return err
		})
		voter.PowerOff()
		c.goOn(other, id)
		c.Settle()
		c.Heal()
		voter.Start()
		c.allAgain(2)
	})
}

// TestG3OldMajorityReturns keeps the old majority alive on its side of the
// network, at work, while the other side is recovered. In the end everybody
// follows the recovered map, and nothing that the old voters sign is worth
// anything.
func TestG3OldMajorityReturns(t *testing.T) {
	recoverable(t, 5, Options{}, func(t *testing.T, c *Cluster, id age.Identity) {
		left := c.other()
		bystander := c.Node(5)
		c.Partition(left, bystander)
		c.Await(Limit, func() error {
			if m, err := c.one(); err != nil || m == left {
				return errors.Join(errNoMaster, err)
			}
			return nil
		})
		r := c.goOn(left, id)
		c.Await(Limit, left.ready)
		c.Await(Limit, func() error {
			if e := epoch(mustView(c, bystander).Map); e != 2 {
				return fmt.Errorf("%s is in epoch %d", bystander.Short(), e)
			}
			return nil
		})
		loot := map[*Node]*Loot{}
		var old rpc.LocalViewReply
		for _, n := range c.Nodes {
			v, err := n.View()
			c.must(err)
			if epoch(v.Map) == 1 {
				old = v
				if m, err := candmap.DecodeMap(v.Map.Payload); err == nil && entryOf(m, n.ID) != nil {
					loot[n] = n.Steal()
				}
			}
		}
		if len(loot) != 2 {
			t.Fatalf("%d nodes follow the old majority", len(loot))
		}
		c.Heal()
		for n, l := range loot {
			err := l.Call(bystander, rpc.Noded, rpc.MethodMapPut, "", rpc.MapDelivery{Maps: []candmap.Envelope{old.Map}}, nil)
			c.Refused(n.Short()+" delivers the old map", err, cluster.CodeBadSignature, cluster.CodeMapOlder)
			if old.Beacon != nil {
				err = l.Call(bystander, rpc.Noded, rpc.MethodBeaconPut, "", *old.Beacon, nil)
				c.Refused(n.Short()+" delivers a beacon of the old map", err, cluster.CodeBadSignature, cluster.CodeMapOlder)
			}
			err = l.Call(left, rpc.Masterd, rpc.MethodRaft, "request-vote", []byte("x"), nil)
			c.Refused(n.Short()+" speaks raft", err, cluster.CodeNotInMap)
		}
		if m := c.Master(); m != left {
			t.Errorf("%s is master", m.Short())
		}
		c.allAgain(3)
		for _, n := range c.Nodes {
			if v := mustView(c, n); epoch(v.Map) != r.Version.Epoch {
				t.Errorf("%s is in epoch %d", n.Short(), epoch(v.Map))
			}
		}
		for n, l := range loot {
			err := l.Call(left, rpc.Masterd, rpc.MethodSeen, n.ID.String(), nil, nil)
			c.Refused("old keys of "+n.Short(), err, cluster.CodeNotInMap)
		}
	})
}

func epoch(e candmap.Envelope) uint64 {
	m, err := candmap.DecodeMap(e.Payload)
	if err != nil {
		return 0
	}
	return m.Epoch
}

func mustView(c *Cluster, n *Node) rpc.LocalViewReply {
	c.t.Helper()
	v, err := n.View()
	c.must(err)
	return v
}

// TestG7RecoverAtEveryStep kills the node before each step of a recovery that
// writes. Either nothing has happened, or the new state is in force by itself;
// and running it again completes it.
func TestG7RecoverAtEveryStep(t *testing.T) {
	for _, at := range []string{"commit", "exchange snapshots", "exchange raft.db", "answer"} {
		t.Run(at, func(t *testing.T) {
			recoverable(t, 3, Options{}, func(t *testing.T, c *Cluster, id age.Identity) {
				left, lost := c.lose()
				c.Await(Limit, func() error {
					_, err := left.PlanRecovery(true)
					return err
				})
				plan, err := left.PlanRecovery(false)
				c.must(err)
				reached := ""
				left.fault = func(step string) error {
					if reached == "" && step == at {
						reached = step
					}
					if reached != "" {
						return errors.New("crash before " + step)
					}
					return nil
				}
				if at == "answer" { // committed, and noded never hears of it
					left.fault = func(string) error { return nil }
				}
				if _, err := left.CommitRecovery(id, plan); at != "answer" && (err == nil || !strings.Contains(err.Error(), "crash before")) {
					t.Fatalf("the recovery ended with %v", err)
				}
				left.Crash()
				left.fault = nil
				left.Start()
				if at == "commit" {
					var again rpc.RecoverReply
					c.Await(Limit, func() (err error) {
						again, err = left.PlanRecovery(false)
						return err
					})
					if again.Hash != plan.Hash {
						t.Errorf("another payload for version %s", plan.Version)
					}
					c.goOn(left, id)
				}
				c.Await(Limit, left.ready)
				if v := mustView(c, left); epoch(v.Map) != 2 {
					t.Errorf("epoch %d", epoch(v.Map))
				}
				c.Heal()
				for _, n := range lost {
					n.Start()
				}
				c.allAgain(3)
			})
		})
	}
}

// TestG3RecoverAsksTheOthers: the survivor was away while a candidate was
// demoted and a node removed. A regular node knows.
func TestG3RecoverAsksTheOthers(t *testing.T) {
	recoverable(t, 5, Options{}, func(t *testing.T, c *Cluster, id age.Identity) {
		left, gone := c.other(), c.Node(4)
		c.Partition(left)
		c.Await(Limit, func() error {
			m, err := c.one()
			if err == nil && m == left {
				err = errNoMaster
			}
			return err
		})
		j := c.Do(Remove(gone))
		t.Logf("removal: %s %s", j.Status, j.Error)
		var lost []*Node
		for _, n := range c.Nodes {
			if n != left && n != gone && n != c.Node(5) {
				lost = append(lost, n)
				n.Crash()
			}
		}
		gone.Crash()
		c.Heal()
		plan := c.goOn(left, id)
		if len(plan.Removed) != 1 || plan.Removed[0] != gone.Name || !plan.Behind {
			t.Errorf("plan %+v", plan)
		}
		c.Await(Limit, func() error {
			st, err := c.State()
			if err == nil && st.Node(gone.ID) != nil {
				t.Fatal("a node that was removed is back")
			}
			return err
		})
		for _, n := range lost {
			n.Start()
		}
		c.allAgain(3)
	})
}

// TestRecoverIsRefused where nothing is lost, where it makes no sense, and with
// other keys.
func TestRecoverIsRefused(t *testing.T) {
	recoverable(t, 4, Options{}, func(t *testing.T, c *Cluster, id age.Identity) {
		if _, err := c.Master().Recover(id); cluster.CodeOf(err) != cluster.CodeConflict {
			t.Errorf("on the master: %v", err)
		}
		if _, err := c.other().Recover(id); cluster.CodeOf(err) != cluster.CodeConflict {
			t.Errorf("on a voter: %v", err)
		}
		if _, err := c.Node(4).Recover(id); cluster.CodeOf(err) != cluster.CodeNotInMap {
			t.Errorf("on a regular node: %v", err)
		}
		left, lost := c.lose()
		var plan rpc.RecoverReply
		c.Await(Limit, func() (err error) {
			plan, err = left.PlanRecovery(false)
			return err
		})
		req := rpc.RecoverRequest{Payload: plan.Payload}
		if err := left.local.Do(t.Context(), "POST", rpc.LocalRecover, req, nil); cluster.CodeOf(err) != cluster.CodeBadSignature {
			t.Errorf("without a signature: %v", err)
		}
		stolen := left.Steal()
		sig, err := candmap.Sign(stolen.Signing, candmap.MapType, plan.Payload)
		c.must(err)
		req.Signatures = []candmap.Signature{sig}
		if err := left.local.Do(t.Context(), "POST", rpc.LocalRecover, req, nil); cluster.CodeOf(err) != cluster.CodeBadSignature {
			t.Errorf("with the voter's own signature: %v", err)
		}
		c.Heal()
		for _, n := range lost {
			n.Start()
		}
		c.Await(Limit, func() error { _, err := c.one(); return err })
	})
}

// TestRecoverAfterALongSilence: nobody looked for two months.
func TestRecoverAfterALongSilence(t *testing.T) {
	recoverable(t, 3, Options{}, func(_ *testing.T, c *Cluster, id age.Identity) {
		left, lost := c.lose()
		left.Stop()
		c.Pass(60 * 24 * time.Hour)
		left.Start()
		c.goOn(left, id)
		c.Await(Limit, left.ready)
		// The others slept as long, and believe nobody: local root must vouch.
		c.Heal()
		for _, n := range lost {
			n.Start()
			c.Await(Limit, func() error {
				return n.local.Do(c.t.Context(), "POST", rpc.LocalTrust, rpc.TrustRequest{Hash: mustView(c, left).Map.Hash()}, nil)
			})
		}
		c.allAgain(3)
	})
}
