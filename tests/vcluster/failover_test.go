package vcluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// failover runs gnt-cluster master-failover on the node: to is empty, or whom
// the master hands its role to.
func (n *Node) failover(to string) (rpc.FailoverReply, error) {
	c := rpc.NewLocalClient(n.dialMasterd)
	defer c.Close()
	var r rpc.FailoverReply
	err := c.Do(n.c.t.Context(), "POST", rpc.LocalFailover, rpc.FailoverRequest{To: to}, &r)
	return r, err
}

// standby waits for the one candidate that is to have no vote, and returns it
// when it follows.
func (c *Cluster) standby() (n *Node) {
	c.t.Helper()
	c.Await(Limit, func() error {
		master, err := c.one()
		if err != nil {
			return err
		}
		_, list := c.voters()
		if len(list) != 1 || list[0] == master {
			return fmt.Errorf("%d nodes stand by", len(list))
		}
		n = list[0]
		_, err = n.Masterd().State()
		return err
	})
	return n
}

// voters lists the nodes that vote in the newest map.
func (c *Cluster) voters() (voters, standby []*Node) {
	c.t.Helper()
	st, err := c.State()
	c.must(err)
	for _, n := range c.Nodes {
		switch in := st.Node(n.ID); {
		case in != nil && in.Voter:
			voters = append(voters, n)
		case in != nil && in.Flags.MasterCandidate:
			standby = append(standby, n)
		}
	}
	return voters, standby
}

// TestFailoverThereAndBack moves the master role to every voter, with changes
// submitted the moment before: what the old master committed and did not finish
// goes on under the next one.
func TestFailoverThereAndBack(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		for round := range 6 {
			old, target := c.Master(), c.other()
			on := round%2 == 0
			id, err := c.SubmitTo(old, Candidate(c.Node(4), on))
			c.must(err)
			c.Pass(time.Duration(round) * 5 * step)
			if !slices.Contains(first(c.voters()), target) {
				t.Fatalf("%s does not vote", target.Short())
			}
			began := c.Now()
			r, err := target.failover("")
			c.must(err)
			took := c.Now() - began
			if c.Master() != target || r.Master != target.Name || r.Previous != old.Name {
				t.Fatalf("%s is master; the command says %+v", c.Master().Short(), r)
			}
			if took > c.opts.Timing.Election { // nobody waited for a timeout
				t.Errorf("it took %v: %v", took, r.Steps)
			}
			if v, err := old.View(); err != nil || v.Map.Hash() == (cluster.Digest{}) {
				t.Fatal(err)
			}
			if j := c.Job(id); j.Status != state.JobSuccess {
				t.Errorf("the job that the old master began: %s: %s", j.Status, j.Error)
			}
			c.Settle()
			if st, err := c.State(); err != nil || st.Node(c.Node(4).ID).Flags.MasterCandidate != on {
				t.Fatalf("the change is not made: %v", err)
			}
		}
	})
}

func first(voters, _ []*Node) []*Node { return voters }

// TestFailoverToStandby hands the role to a candidate without a vote, which the
// command refuses to do from there.
func TestFailoverToStandby(t *testing.T) {
	for _, n := range []int{2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			Run(t, n, Options{Pool: 4}, func(t *testing.T, c *Cluster) {
				for range 3 {
					old, to := c.Master(), c.standby()
					_, err := to.failover("")
					c.Refused("a failover without a vote", err, cluster.CodeConflict)
					_, err = to.failover(string(old.Name))
					c.Refused("a handover by who is not master", err, cluster.CodeNotMaster)
					if c.Master() != old {
						t.Fatal("the master has changed")
					}
					r, err := old.failover(to.Short())
					c.must(err)
					if c.Master() != to || r.Master != to.Name {
						t.Fatalf("%s is master: %+v", c.Master().Short(), r)
					}
					c.Settle()
				}
			})
		})
	}
}

func TestFailoverIsRefused(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		m := c.Master()
		_, err := m.failover("")
		c.Refused("a failover to the master", err, cluster.CodeConflict)
		_, err = m.failover(string(m.Name))
		c.Refused("a handover to itself", err, cluster.CodeConflict)
		_, err = m.failover("node9.vc.test")
		c.Refused("a handover to nobody", err, cluster.CodeNotFound)
		_, err = m.failover(string(c.Node(4).Name))
		c.Refused("a handover to a normal node", err, cluster.CodeConflict)
		_, err = c.Node(4).failover("")
		c.Refused("a failover to a normal node", err, cluster.CodeNotMaster)
		down := c.other()
		down.Crash()
		_, err = m.failover(string(down.Name))
		c.Refused("a handover to a dead node", err, cluster.CodeConflict, cluster.CodeUnavailable)
		down.Start()
		if c.Master() != m {
			t.Fatal("a refused command changed the master")
		}
	})
}

// TestG7FailoverDisturbed disturbs handovers to a standby, whose votes move in
// several steps, at the master and at the target.
func TestG7FailoverDisturbed(t *testing.T) {
	for what, disturb := range disturbances {
		for _, who := range []string{"master", "target"} {
			t.Run(who+"/"+what, func(t *testing.T) {
				Run(t, 4, Options{Pool: 4}, func(t *testing.T, c *Cluster) {
					for _, after := range []int{1, 4, 9, 16} {
						old, to := c.Master(), c.standby()
						ended := make(chan struct{})
						go func() {
							defer close(ended)
							_, _ = old.failover(string(to.Name)) // it may fail; that is the point
						}()
						c.Pass(time.Duration(after) * step)
						disturb(c, c.pick(who, old, to))
						c.settled(fmt.Sprintf("%v after the command", time.Duration(after)*step))
						<-ended
					}
				})
			})
		}
	}
}

// TestFailoverWithoutMajority: where too few voters are left, nothing is won
// and the command says so.
func TestFailoverWithoutMajority(t *testing.T) {
	Run(t, 3, Options{}, func(t *testing.T, c *Cluster) {
		old, to := c.Master(), c.other()
		for _, n := range c.Nodes {
			if n != old && n != to {
				n.Crash()
			}
		}
		c.Partition(to)
		_, err := to.failover("")
		c.Refused("a failover alone", err, cluster.CodeNoQuorum)
		c.Heal()
		for _, n := range c.Nodes {
			if !n.Up() {
				n.Start()
			}
		}
	})
}
