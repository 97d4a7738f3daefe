package vcluster

import (
	"testing"

	"rolekey/masterd/jobs"
)

// renewalsOfTrust are those after which a node that was away recognises nobody.
var renewalsOfTrust = map[string]Change{
	"authority":    {ID: jobs.OpClusterRenew, NewCA: true},
	"certificates": {ID: jobs.OpClusterRenew, NewCerts: true},
}

// TestG7VoterMissedRenewal: voters are away while all certificates are replaced,
// and come back when the master and others are dead for good, so that nobody can
// be elected without them. Whoever is left tells them of the map by which they
// recognise it.
func TestG7VoterMissedRenewal(t *testing.T) {
	for what, ch := range renewalsOfTrust {
		for voters, away := range map[int]int{3: 1, 5: 2} {
			t.Run(what, func(t *testing.T) {
				Run(t, voters, Options{Pool: voters}, func(t *testing.T, c *Cluster) { missed(t, c, ch, away) })
			})
		}
	}
}

func missed(t *testing.T, c *Cluster, ch Change, away int) {
	gone := c.Nodes[len(c.Nodes)-away:]
	for _, n := range gone {
		if n == c.Master() {
			t.Fatalf("%s is to be away, and is the master", n.Short())
		}
		n.Crash()
	}
	c.Must(ch)
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
	c.Await(Limit, c.renewedAll)
}
