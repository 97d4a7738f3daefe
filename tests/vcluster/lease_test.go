package vcluster

import (
	"context"
	"errors"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// order makes a mutating call as the master makes it, with the stamp given. On
// a normal node it changes nothing.
func (l *Loot) order(to *Node, s rpc.Stamp) error {
	return l.CallWith(rpc.WithStamp(context.Background(), s), to, rpc.Noded, rpc.MethodKeyDestroy, "", struct{}{}, nil)
}

// stamp is what the master's orders carry at this moment.
func (c *Cluster) stamp() rpc.Stamp {
	c.t.Helper()
	st, err := c.State()
	c.must(err)
	v, err := c.Master().View()
	c.must(err)
	return rpc.Stamp{Version: st.Head().Version, Term: v.Term}
}

// TestG4CutOffStrict cuts the master and a normal node off from the rest. The
// node obeys the master until its lease ends and not a moment longer; when the
// network heals it obeys the new one.
func TestG4CutOffStrict(t *testing.T) {
	Run(t, 5, Options{}, func(t *testing.T, c *Cluster) {
		old, node := c.Master(), c.Node(5)
		master, s := old.Steal(), c.stamp()
		c.must(master.order(node, s))
		c.Partition(old, node)
		v, err := node.Status()
		c.must(err)
		if !v.Fresh {
			t.Fatal("the node is stale before its lease ends")
		}
		c.Await(c.opts.Lease+time.Second, func() error {
			if err := master.order(node, s); err == nil {
				return errors.New("the order is still obeyed")
			}
			return nil
		})
		c.Refused("an order under a stale map", master.order(node, s), cluster.CodeMapStale)
		c.Refused("a candidate's call under a stale map", master.State(node), cluster.CodeMapStale)
		c.must(master.Call(node, rpc.Noded, rpc.MethodHealth, "", nil, nil))
		c.Heal()
		c.Settle()
		c.Refused("an order of the former master", master.order(node, s), cluster.CodeNotMaster)
		c.must(c.Master().Steal().order(node, c.stamp()))
	})
}

// TestG4CutOffBestEffort: under this policy a node that is cut off serves on,
// and the report of a change says that there is no bound.
func TestG4CutOffBestEffort(t *testing.T) {
	Run(t, 5, Options{Policy: cluster.PolicyBestEffort}, func(t *testing.T, c *Cluster) {
		master, node := c.Master(), c.Node(5)
		other := c.Node(3)
		if other == master {
			other = c.Node(2)
		}
		loot := other.Steal()
		c.Partition(other, node)
		c.Pass(3 * c.opts.Lease)
		if s, err := node.Status(); err != nil || s.Fresh {
			t.Errorf("the node that was cut off is fresh: %+v, %v", s, err)
		}
		c.must(loot.State(node))
		j := c.Do(Candidate(other, false))
		checkUnreachable(t, j, node, false, true)
		c.Heal()
		c.Settle()
		c.Refused("a former candidate's call", loot.State(node), cluster.CodeNotInMap)
	})
}

// checkUnreachable wants a node in a job's report, with or without its bounds.
func checkUnreachable(t *testing.T, j *state.Job, n *Node, rpcBound, sshBound bool) {
	t.Helper()
	for _, u := range j.Unreachable {
		if u.Node != string(n.Name) {
			continue
		}
		if (u.RPCUntil != nil) != rpcBound || (u.SSHUntil != nil) != sshBound {
			t.Errorf("job %d: %s has the bounds %v and %v", j.ID, n.Short(), u.RPCUntil, u.SSHUntil)
		}
		return
	}
	t.Errorf("job %d does not name %s: %+v, %s", j.ID, n.Short(), j.Unreachable, j.Error)
}

// TestG4MissedDemotion demotes a candidate while a node is down, and another
// one cut off together with the candidate. The report names both. The one that
// is cut off trusts the candidate for no longer than the report says; the one
// that was down serves the candidate at no moment of its return (W3).
func TestG4MissedDemotion(t *testing.T) {
	Run(t, 5, Options{}, func(t *testing.T, c *Cluster) {
		c.Must(Candidate(c.Node(4), true))
		c.Settle()
		candidate, cut, down := c.Node(4), c.Node(5), c.Node(3)
		if c.Master() == down {
			down = c.Node(2)
		}
		loot := candidate.Steal()
		c.must(loot.State(down))
		down.Crash()
		c.Partition(candidate, cut)
		c.must(loot.State(cut))
		j := c.Must(Candidate(candidate, false))
		checkUnreachable(t, j, down, true, true)
		checkUnreachable(t, j, cut, true, true)
		c.refusedInTime(j, loot, cut)
		c.Heal()
		down.Start()
		for i := 0; i < 50 || c.Check() != nil; i++ {
			if err := loot.State(down); err == nil {
				t.Fatalf("call %d to the node that came back was served", i)
			}
			c.Pass(time.Duration(i) * step)
		}
		c.Refused("a former candidate's call", loot.State(down), cluster.CodeNotInMap)
		c.Refused("a former candidate's call", loot.State(cut), cluster.CodeNotInMap)
	})
}

// refusedInTime waits until a node that cannot be reached refuses the calls,
// which must be so by the time that the job promised.
func (c *Cluster) refusedInTime(j *state.Job, loot *Loot, n *Node) {
	c.t.Helper()
	var until time.Time
	for _, u := range j.Unreachable {
		if u.Node == string(n.Name) && u.RPCUntil != nil {
			until = *u.RPCUntil
		}
	}
	c.Pass(time.Until(until))
	c.Refused("a call after the bound", loot.State(n), cluster.CodeMapStale)
}

// TestG7YearOff turns all machines off for a year. They start again without
// anybody's help, and their certificates are renewed in time.
func TestG7YearOff(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		for _, n := range c.Nodes {
			n.Crash()
		}
		c.Pass(365 * 24 * time.Hour)
		for _, n := range c.Nodes {
			n.Start()
		}
		c.Settle()
		c.Must(Candidate(c.Node(4), true))
		c.Settle()
	})
}

// TestG7YearOffOneByOne is the same with machines that come back an hour apart.
func TestG7YearOffOneByOne(t *testing.T) {
	Run(t, 4, Options{Lease: 10 * time.Minute}, func(t *testing.T, c *Cluster) {
		for _, n := range c.Nodes {
			n.Crash()
		}
		c.Pass(365 * 24 * time.Hour)
		for _, n := range c.Nodes {
			n.Start()
			c.Pass(20 * time.Minute)
		}
		c.Settle()
	})
}
