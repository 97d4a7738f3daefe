package vcluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/rpc"
)

// TestG3RestoredDisk gives a voter an old copy of its disk. It refuses to take
// part, the cluster goes on without it, and losing and regaining the role
// makes it whole.
func TestG3RestoredDisk(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		n := c.other()
		backup := n.Backup("backup")
		c.Must(Candidate(c.Node(4), true))
		c.Must(Candidate(c.Node(4), false))
		c.Settle()
		n.Crash()
		n.RestoreMasterd(backup)
		n.Start()
		c.Await(Limit, func() error { return n.said("restored or cloned") })
		c.Pass(2 * c.opts.Lease)
		loot := c.Master().Steal()
		c.Refused("a signature of the restored copy", loot.Call(n, rpc.Masterd, rpc.MethodSign, "", rpc.SignRequest{}, nil), cluster.CodeUnavailable)
		c.Must(Candidate(c.Node(4), true))
		c.Must(Candidate(n, false))
		c.Await(Limit, n.clean)
		c.Pass(2 * restartPause) // masterd ended, and is started again
		c.Must(Candidate(n, true))
		c.Settle()
	})
}

// TestG3RestoredMaster is the same with the disk of the master, while the
// others are down and up again: whoever ran on knows better.
func TestG3RestoredMaster(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		old := c.Master()
		backup := old.Backup("backup")
		c.Must(Candidate(c.Node(4), true))
		c.Must(Candidate(c.Node(4), false))
		c.Settle()
		old.PowerOff()
		old.RestoreMasterd(backup)
		c.Heal()
		old.Start()
		c.Await(Limit, func() error { return old.said("restored or cloned") })
		if m := c.Master(); m == old {
			t.Error("the restored copy is master")
		}
		c.Must(Candidate(old, false))
		c.Await(Limit, old.clean)
	})
}

// TestG2PausedMaster stops the master's traffic without ending anything, as
// SIGSTOP does, in the middle of changes. Another one takes over. What the old
// one had on its way arrives when it is awake again, and changes nothing.
func TestG2PausedMaster(t *testing.T) {
	Run(t, 5, Options{}, func(t *testing.T, c *Cluster) {
		for k := range 6 {
			old, loot, s := c.Master(), c.Master().Steal(), c.stamp()
			target, on := c.bystander()
			id, err := c.SubmitTo(old, Candidate(target, on))
			c.must(err)
			c.Pass(time.Duration(3*k) * step)
			c.Partition(old)
			c.Await(Limit, func() error {
				for _, n := range c.Nodes {
					if n != old && n.ready() == nil {
						return nil
					}
				}
				return errNoMaster
			})
			c.Pass(c.opts.Lease)
			c.Heal()
			c.Settle()
			for _, n := range c.Nodes {
				c.Refused("an order of the master that was paused", loot.order(n, s), cluster.CodeNotMaster)
			}
			c.agrees("paused", id, target, on)
			c.Must(Candidate(target, on))
			c.Settle()
		}
	})
}

// bystander returns a node that does not vote, and what its flag may become
// without a change of voters: while a voter leaves, the others may be too few.
func (c *Cluster) bystander() (n *Node, on bool) {
	c.t.Helper()
	st, err := c.State()
	c.must(err)
	for _, node := range c.Nodes {
		switch in := st.Node(node.ID); {
		case in.Voter:
		case in.Flags.MasterCandidate:
			return node, false
		default:
			n, on = node, true
		}
	}
	return n, on
}

// TestWrongClockOfOneVoter: one clock that is wrong stops nobody but its own
// machine, and that only if it is ahead.
func TestWrongClockOfOneVoter(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
				n := c.other()
				n.Crash()
				n.Skew = skew
				n.Start()
				c.Pass(3 * c.opts.Lease)
				c.Must(Candidate(c.Node(4), true))
				c.Must(Candidate(c.Node(4), false))
				if s, err := n.Status(); err != nil || s.Fresh != (skew < 0) {
					t.Errorf("with a clock that is %v ahead: fresh=%t, %v", skew, s.Fresh, err)
				}
				n.Crash()
				n.Skew = 0
				n.Start()
			})
		})
	}
}

// said returns nil if a daemon of the node gave this reason for ending.
func (n *Node) said(what string) error {
	for _, err := range n.Exits() {
		if strings.Contains(err.Error(), what) {
			return nil
		}
	}
	return errSilent
}

var (
	errSilent   = errors.New("no daemon has ended for this reason")
	errNoMaster = errors.New("nobody else is master yet")
)
