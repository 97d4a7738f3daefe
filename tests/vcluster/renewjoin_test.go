package vcluster

import (
	"fmt"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// TestJoinInTheMidstOfARenewal: a node that joins at any moment of a renewal has
// in the end what the others have, and nothing of before.
func TestJoinInTheMidstOfARenewal(t *testing.T) {
	for _, name := range []string{"certificates", "authority", "all"} {
		t.Run(name, func(t *testing.T) {
			Run(t, 4, Options{}, func(t *testing.T, c *Cluster) { joinsAtMoments(t, c, everyRenewal[name], c.Node(4)) })
		})
	}
}

func joinsAtMoments(t *testing.T, c *Cluster, r listed, n *Node) {
	r.change.ID = jobs.OpClusterRenew
	span, moments := c.span(r.change), 5
	if every {
		moments *= 10
	}
	for k := range moments {
		c.Must(Remove(n))
		c.Settle()
		c.Await(Limit, func() error { return n.local.Do(t.Context(), "POST", rpc.LocalLeave, nil, nil) })
		c.Pass(2 * time.Second) // certificates tell the second in which they were issued
		before := r.now(c)
		token, err := c.Token(n.Name)
		c.must(err)
		id, err := c.SubmitTo(c.Master(), r.change)
		c.must(err)
		at := moment(span, k, moments)
		c.Pass(at)
		var reply rpc.JoinReply
		c.Await(Limit, func() error {
			return n.local.Do(t.Context(), "POST", rpc.LocalJoin, rpc.JoinRequest{Token: token}, &reply)
		})
		n.ID = reply.Node
		if j := c.Job(id); j.Status != state.JobSuccess {
			t.Errorf("joined after %v: job is %s %s", at, j.Status, j.Error)
		}
		err = c.eventually(func() error {
			if err := r.whole(c); err != nil {
				return err
			}
			st, err := c.State()
			if err == nil && (st.Node(n.ID) == nil || !st.Node(n.ID).Joined) {
				err = fmt.Errorf("%s has not joined", n.Short())
			}
			if err != nil {
				return err
			}
			return c.none(before, func() []cluster.Digest { return r.now(c) })
		})
		if err != nil {
			t.Fatalf("joined after %v of %v: %v", at, span, err)
		}
		c.Settle()
	}
}
