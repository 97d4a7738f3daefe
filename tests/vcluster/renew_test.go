package vcluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/masterd/jobs"
)

// gossipRing lists the gossip keys on the node's disk, by their digests.
func (n *Node) gossipRing() (ring []cluster.Digest, err error) {
	text, err := os.ReadFile(filepath.Join(n.at.NodeDir(), "gossip.key"))
	for key := range slices.Chunk(text, gossip.KeySize) {
		ring = append(ring, cluster.DigestOf(key))
	}
	return ring, err
}

// oneGossipKey returns nil if all nodes that are up hold one key, the state's.
func (c *Cluster) oneGossipKey() error {
	st, err := c.State()
	if err != nil {
		return err
	}
	if err := idle(st); err != nil {
		return err
	}
	keys := st.GossipKeys()
	want := cluster.DigestOf(keys[0].Reveal())
	for _, n := range c.Up() {
		if st.Node(n.ID) == nil {
			continue
		}
		ring, err := n.gossipRing()
		if err != nil || len(keys) != 1 || len(ring) != 1 || ring[0] != want {
			return errors.Join(err, fmt.Errorf("%s holds %d gossip keys, the state has %d", n.Short(), len(ring), len(keys)))
		}
	}
	return nil
}

// disturbRenewal does a renewal over and over, and disturbs each at another
// moment: the master, or one of the others.
func disturbRenewal(t *testing.T, ch Change, good func(*Cluster) error) {
	ch.ID = jobs.OpClusterRenew
	for what, disturb := range disturbances {
		t.Run(what, func(t *testing.T) {
			Run(t, 4, Options{}, func(_ *testing.T, c *Cluster) {
				for k := range 8 {
					c.Settle()
					target := c.Master()
					id, err := c.SubmitTo(target, ch)
					c.must(err)
					if k%2 == 1 {
						target = c.other()
					}
					c.Pass(time.Duration(3*k) * step)
					disturb(c, target)
					c.Job(id)
					c.Settle()
					c.Await(5*time.Minute, func() error { return good(c) })
				}
			})
		})
	}
}

// TestG7GossipKeyChangesAndCrash: whatever happens to the master or to another
// node while the gossip key is replaced, all hold the new one in the end.
func TestG7GossipKeyChangesAndCrash(t *testing.T) {
	disturbRenewal(t, Change{NewGossip: true}, (*Cluster).oneGossipKey)
}

// The key that a removed node knows is replaced by itself, and a node that was
// away meanwhile catches up.
func TestGossipKeyAfterRemoval(t *testing.T) {
	Run(t, 5, Options{}, func(t *testing.T, c *Cluster) {
		gone, away := c.Node(5), c.Node(4)
		before, err := gone.gossipRing()
		c.must(err)
		away.Crash()
		c.Must(Remove(gone))
		c.Await(Limit, c.oneGossipKey)
		now, err := c.Node(1).gossipRing()
		c.must(err)
		if slices.Contains(before, now[0]) {
			t.Error("the removed node knows the gossip key")
		}
		away.Start()
		c.Await(Limit, c.oneGossipKey)
	})
}

// oneSigningKey returns nil if every candidate holds one signing key, on disk.
func (c *Cluster) oneSigningKey() error {
	st, err := c.State()
	if err != nil {
		return err
	}
	for _, n := range st.Candidates() {
		if _, err := os.Lstat(c.ByID(n.UUID).at.NextSigningKey()); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s holds two signing keys: %v", n.Name, err)
		}
	}
	return idle(st)
}

// Signing keys change, again and again, and every change of the map goes on.
func TestG3SigningKeysChange(t *testing.T) {
	Run(t, 5, Options{}, func(t *testing.T, c *Cluster) {
		known := map[string]bool{}
		for range 3 {
			c.Must(Change{ID: jobs.OpClusterRenew, NewSigning: true})
			st, err := c.State()
			c.must(err)
			for _, n := range st.Candidates() {
				if known[string(n.Keys.Signing)] {
					t.Errorf("%s has a signing key again that was replaced", n.Name)
				}
				known[string(n.Keys.Signing)] = true
			}
			c.Await(Limit, c.oneSigningKey)
			c.Must(Candidate(c.other(), false))
			c.Settle()
		}
		c.Master().Restart()
		c.Settle()
	})
}
