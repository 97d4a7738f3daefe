package vcluster

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/jobs"
)

// TestG7VoterMissedRenewal: voters are away while keys or certificates are
// replaced, and come back when the master and others are dead for good, so that
// nobody can be elected without them. Those that do not recognise whoever is left
// are told by it of the map by which they do.
func TestG7VoterMissedRenewal(t *testing.T) {
	for what, r := range everyRenewal {
		for voters, away := range map[int]int{3: 1, 5: 2} {
			t.Run(fmt.Sprintf("%s/%d", what, voters), func(t *testing.T) {
				Run(t, voters, Options{Pool: voters}, func(t *testing.T, c *Cluster) { missed(t, c, r, away) })
			})
		}
	}
}

func missed(t *testing.T, c *Cluster, r listed, away int) {
	before := r.now(c)
	r.change.ID = jobs.OpClusterRenew
	gone := c.Nodes[len(c.Nodes)-away:]
	for _, n := range gone {
		if n == c.Master() {
			t.Fatalf("%s is to be away, and is the master", n.Short())
		}
		n.Crash()
	}
	c.Must(r.change)
	st, err := c.State()
	c.must(err)
	if n := len(st.Voters()); n != len(c.Nodes) {
		t.Fatalf("%d nodes vote, so that the others are not needed", n)
	}
	dead := append([]*Node{c.Master()}, c.others(away-1)...)
	for _, n := range dead {
		n.Crash()
	}
	for _, n := range gone {
		n.Start()
	}
	c.Settle()
	for _, n := range dead {
		n.Start()
	}
	c.Settle()
	c.Await(Limit, func() error {
		return errors.Join(r.whole(c), c.none(before, func() []cluster.Digest { return r.now(c) }))
	})
}

// signed lists the signing keys of the map.
func (c *Cluster) signed() (keys []cluster.Digest) {
	c.t.Helper()
	st, err := c.State()
	c.must(err)
	for _, n := range st.Candidates() {
		keys = append(keys, cluster.DigestOf(n.Keys.Signing))
	}
	return keys
}

// TestSigningRenewalMissed: candidates that were away while signing keys were
// replaced are marked, and get new ones when they are back, from another master,
// also if they are no majority.
func TestSigningRenewalMissed(t *testing.T) {
	Run(t, 5, Options{Pool: 5}, func(t *testing.T, c *Cluster) {
		before := c.signed()
		away := c.Nodes[3:]
		for _, n := range away {
			n.Crash()
		}
		c.Must(Change{ID: jobs.OpClusterRenew, NewSigning: true})
		st, err := c.State()
		c.must(err)
		for i, n := range c.Nodes {
			key := st.Node(n.ID).Keys
			if marked := key.RenewSigning; marked != (i > 2) || slices.Contains(before, cluster.DigestOf(key.Signing)) != marked {
				t.Errorf("%s: marked: %t", n.Short(), marked)
			}
		}
		for _, n := range away {
			n.Start()
		}
		c.Master().Restart()
		c.Settle()
		c.Await(Limit, func() error { return errors.Join(c.oneSigningKey(), c.none(before, c.signed)) })
	})
}

// TestSSHRenewalMissed: the old SSH key of a candidate that was away opens
// nothing, and it gets a new one.
func TestSSHRenewalMissed(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		before, away := c.sshKeys(), c.others(1)[0]
		away.Crash()
		c.Must(Change{ID: jobs.OpClusterRenew, NewSSH: true})
		c.must(c.none(before, c.sshKeys))
		away.Start()
		c.Settle()
		c.Await(Limit, func() error {
			if n := len(c.sshKeys()); n != 3 {
				return fmt.Errorf("the map lists %d SSH keys", n)
			}
			return c.none(before, c.sshKeys)
		})
	})
}
