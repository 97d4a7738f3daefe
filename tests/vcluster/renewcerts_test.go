package vcluster

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/masterd/state"
)

// listed is a kind of what a renewal replaces: what is listed of it, and whether
// all of it is as it should be after a renewal.
type listed struct {
	change Change
	now    func(*Cluster) []cluster.Digest
	whole  func(*Cluster) error
}

// everyRenewal are the parts of a renewal that replace what map or roster list.
var everyRenewal = map[string]listed{
	"certificates": {Change{NewCerts: true}, (*Cluster).pins, (*Cluster).renewedAll},
	"authority":    {Change{NewCA: true}, (*Cluster).pins, (*Cluster).renewedAll},
	"SSH keys":     {Change{NewSSH: true}, (*Cluster).sshKeys, func(c *Cluster) error { return c.keysOfAll(c.sshKeys) }},
	"signing keys": {Change{NewSigning: true}, (*Cluster).signed, (*Cluster).oneSigningKey},
	"all": {
		Change{NewCA: true, NewSigning: true, NewGossip: true, NewSSH: true},
		func(c *Cluster) []cluster.Digest { return slices.Concat(c.pins(), c.sshKeys(), c.signed()) },
		func(c *Cluster) error {
			return errors.Join(c.renewedAll(), c.oneSigningKey(), c.oneGossipKey(), c.keysOfAll(c.sshKeys))
		},
	},
}

// pause stops a node for less time than its role would take to be lost, or about
// as much: what others say to it waits.
func pause(c *Cluster, n *Node) {
	c.Partition(n)
	c.Pass(time.Duration(rand.IntN(1500)) * time.Millisecond)
	c.Heal()
}

// keysOfAll returns nil if every candidate has one key.
func (c *Cluster) keysOfAll(keys func() []cluster.Digest) error {
	st, err := c.State()
	if err != nil {
		return err
	}
	if n, want := len(keys()), len(st.Candidates()); n != want {
		return fmt.Errorf("%d keys are listed of %d candidates", n, want)
	}
	return idle(st)
}

// span does a renewal that nothing disturbs, and returns how long it took.
func (c *Cluster) span(ch Change) time.Duration {
	c.t.Helper()
	m := c.Master()
	id, err := c.SubmitTo(m, ch)
	c.must(err)
	begun := c.Now()
	for {
		st, err := m.Masterd().State()
		c.must(err)
		if st.Jobs[id].Status.Ended() {
			return c.Now() - begun
		}
		c.Pass(step)
	}
}

// moment is one of so many that a span is divided into, give or take.
func moment(span time.Duration, k, of int) time.Duration {
	return time.Duration((float64(k) + rand.Float64()) / float64(of) * float64(span))
}

// eventually waits for what the master does now and then, and looks seldom.
func (c *Cluster) eventually(cond func() error) (err error) {
	for range 300 {
		if err = cond(); err == nil {
			return nil
		}
		c.Pass(time.Second)
	}
	return err
}

// inTheMidst does a renewal, has something happen to a node at each of some
// moments, and waits until all is as it should be and nothing of before is listed.
func inTheMidst(t *testing.T, c *Cluster, r listed, moments int, happen func(c *Cluster, n *Node, id int64), ends ...state.JobStatus) {
	r.change.ID = jobs.OpClusterRenew
	span := c.span(r.change)
	if every {
		moments *= 10
	}
	for k := range moments {
		c.Pass(2 * time.Second) // certificates tell the second in which they were issued
		c.Settle()
		before, target := r.now(c), c.Master()
		id, err := c.SubmitTo(target, r.change)
		c.must(err)
		if k%2 == 1 {
			target = c.other()
		}
		at := moment(span, k, moments)
		c.Pass(at)
		happen(c, target, id)
		j := c.Job(id)
		c.Settle()
		what := fmt.Sprintf("%s after %v of %v, job is %s %s", target.Short(), at, span, j.Status, j.Error)
		if !slices.Contains(ends, j.Status) {
			t.Error(what)
		}
		if err := c.eventually(func() error {
			if err := r.whole(c); err != nil || j.Status != state.JobSuccess {
				return err
			}
			return c.none(before, func() []cluster.Digest { return r.now(c) })
		}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		c.Settle()
		if back := r.now(c); j.Status == state.JobCanceled && c.none(before, func() []cluster.Digest { return back }) == nil {
			t.Errorf("%s: it did not go back", what)
		}
	}
}

// TestG7RenewalAndCrash: whatever happens to the master or to another node in the
// midst of a renewal, the job ends well, everything old is gone from map, roster
// and disk, and no prepared key is left anywhere.
func TestG7RenewalAndCrash(t *testing.T) {
	happens := maps.Clone(disturbances)
	happens["pause"] = pause
	happens["failover"] = func(c *Cluster, n *Node) {
		if n == c.Master() {
			n = c.other()
		}
		_, err := n.failover("")
		c.must(err)
	}
	for name, r := range everyRenewal {
		for what, disturb := range happens {
			t.Run(name+"/"+what, func(t *testing.T) {
				Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
					inTheMidst(t, c, r, 4, func(c *Cluster, n *Node, _ int64) { disturb(c, n) }, state.JobSuccess)
				})
			})
		}
	}
}

// TestG7RenewalIsCanceled: a renewal that is disturbed and then to be canceled
// goes back to what was, or on to its end; the next one is whole.
func TestG7RenewalIsCanceled(t *testing.T) {
	for name, r := range everyRenewal {
		t.Run(name, func(t *testing.T) {
			Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
				whole := r
				whole.whole = func(c *Cluster) error { return c.listedOnce(r.now) }
				inTheMidst(t, c, whole, 6, func(c *Cluster, n *Node, id int64) {
					n.Restart()
					err := c.Master().Masterd().Cancel(t.Context(), id, "test", "cancel")
					if st, _ := c.State(); err != nil && st != nil && !st.Jobs[id].Status.Ended() {
						t.Error(err)
					}
				}, state.JobSuccess, state.JobCanceled)
				inTheMidst(t, c, r, 1, func(*Cluster, *Node, int64) {}, state.JobSuccess)
			})
		})
	}
}

// listedOnce returns nil if nothing overlaps any more.
func (c *Cluster) listedOnce(now func(*Cluster) []cluster.Digest) error {
	st, err := c.State()
	if err != nil {
		return err
	}
	if st.CA.Next != nil || len(st.CA.Old) > 0 {
		return fmt.Errorf("%d authorities are trusted", len(st.CA.Roots()))
	}
	for _, n := range st.SortedNodes() {
		if keys := n.Keys; len(n.Server) != 1 || len(n.Identity) != 1 || keys != nil && (len(keys.Client) != 1 || len(keys.SSH) != 1) {
			return fmt.Errorf("two of a kind are listed of %s", n.Name)
		}
	}
	return idle(st)
}
