package vcluster

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// clean returns nil if nothing of a candidate lies on the node's disk.
func (n *Node) clean() error {
	if left := n.Leftovers(); len(left) > 0 {
		return fmt.Errorf("%s still has %v", n.Short(), left)
	}
	return nil
}

// TestG5CrashBeforeDestruction kills a node at every moment of its demotion.
// Once it is back its keys are gone, however young they were.
func TestG5CrashBeforeDestruction(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		target := c.Node(4)
		for k, over := 0, false; !over; k++ {
			c.Must(Candidate(target, true))
			c.Settle()
			master := c.Master()
			id, err := c.SubmitTo(master, Candidate(target, false))
			c.must(err)
			c.Pass(time.Duration(k) * step)
			st, err := master.Masterd().State()
			c.must(err)
			over = st.Jobs[id].Status.Ended()
			target.Restart()
			c.Job(id)
			c.Await(15*time.Second, target.clean)
			c.Settle()
		}
	})
}

// TestG5InterruptedPromotion cuts a promotion off between the making of the
// keys and the commit. Nothing is authorized by them, and after some minutes
// they are gone.
func TestG5InterruptedPromotion(t *testing.T) {
	Run(t, 2, Options{Pool: 1, Lease: time.Minute}, func(t *testing.T, c *Cluster) {
		target := c.Node(2)
		for k := range moments[true] {
			c.Pass(c.opts.Lease) // the master's beacons keep a connection to every node
			id, err := c.SubmitTo(c.Master(), Candidate(target, true))
			c.must(err)
			c.Pass(time.Duration(k) * step)
			target.Crash()
			c.Job(id)
			target.Start()
			c.Settle()
			st, err := c.State()
			c.must(err)
			if !st.Node(target.ID).Flags.MasterCandidate && target.clean() != nil {
				c.Await(12*time.Minute, target.clean)
				return
			}
		}
		t.Error("no promotion was cut off after the keys were made")
	})
}

// TestG5OfflineCandidate: a candidate that is set offline while it is down has
// no keys any more soon after it is back, and may do nothing until it is set
// online and promoted again.
func TestG5OfflineCandidate(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		gone := c.Node(3)
		loot := gone.Steal()
		gone.PowerOff()
		c.Must(Offline(gone, true))
		c.Heal()
		gone.Start()
		c.Await(Limit, gone.clean)
		c.Refused("an offline node's call", loot.State(c.Node(4)), "not_in_map")
		c.Settle()
		c.Must(Offline(gone, false))
		c.Must(Candidate(gone, true))
	})
}

// TestG5RegainedRole gives a candidate that was away its role back at the very
// moments at which it learns that it lost it. It never goes on with its old
// keys, and is left with neither too few nor too many.
func TestG5RegainedRole(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		for k := range 6 {
			target := c.other()
			loot := target.Steal()
			target.PowerOff()
			c.Must(Candidate(target, false))
			c.Heal()
			target.Start()
			c.Pass(time.Duration(k) * step)
			for c.Do(Candidate(target, true)).Status != state.JobSuccess {
				c.Pass(step)
			}
			c.Settle()
			if again := target.Steal(); again.Signing.Equal(loot.Signing) {
				t.Errorf("%v after its return %s is a candidate again with its old signing key", time.Duration(k)*step, target.Short())
			}
			c.Refused("a call with the old certificate", loot.State(c.Node(4)), cluster.CodeNotInMap)
		}
	})
}

// TestG8SlowLook: where the kernel tells nothing of files, and the cluster
// nothing either, what others do to the block is put right within 30 s.
func TestG8SlowLook(t *testing.T) {
	Run(t, 3, Options{}, func(t *testing.T, c *Cluster) {
		n := c.Node(3)
		c.Partition(n)
		c.Pass(2 * c.opts.Lease)
		const foreign = "# the manager's\n"
		c.must(os.WriteFile(n.AuthorizedKeys(), []byte(foreign), 0o600))
		if keys, err := n.Authorized(); err != nil || len(keys) != 0 {
			t.Fatalf("%v, %v", keys, err)
		}
		c.Await(30*time.Second, func() error {
			keys, err := n.Authorized()
			if err == nil && len(keys) == 0 {
				err = errors.New("no key of the cluster is there")
			}
			return err
		})
		if text, err := os.ReadFile(n.AuthorizedKeys()); err != nil || !strings.Contains(string(text), foreign) {
			t.Errorf("the manager's line is gone: %v\n%s", err, text)
		}
		c.Heal()
		c.Settle()
	})
}
