package vcluster

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"rolekey/masterd/jobs"
	"rolekey/masterd/state"
)

// manyStep is a change of several steps, and what it leads to.
type manyStep struct {
	name    string
	prepare func(c *Cluster)
	change  func(c *Cluster) Change
	reached func(c *Cluster, st *state.State) error
}

// pool is the change of the candidate pool's size.
func pool(n int) Change { return Change{ID: jobs.OpClusterSet, Pool: n} }

// manySteps starts from five nodes, of which the first three are candidates.
var manySteps = []manyStep{
	{
		name:   "offline, and another in its place",
		change: func(c *Cluster) Change { return Offline(c.other(), true) },
		reached: func(_ *Cluster, st *state.State) error {
			return counts(st, 3, func(n *state.Node) bool { return n.Flags.Offline }, 1)
		},
	},
	{
		name:    "online, and a candidate again",
		prepare: func(c *Cluster) { c.Must(Offline(c.other(), true)); c.Settle() },
		change: func(c *Cluster) Change {
			st, err := c.State()
			c.must(err)
			for _, n := range st.SortedNodes() {
				if n.Flags.Offline {
					return Offline(c.ByID(n.UUID), false)
				}
			}
			c.t.Fatal("no node is offline")
			return Change{}
		},
		reached: func(_ *Cluster, st *state.State) error {
			return counts(st, 4, func(n *state.Node) bool { return n.Flags.Offline || n.WasCandidate }, 0)
		},
	},
	{
		name: "drained, and another in its place",
		change: func(c *Cluster) Change {
			return Change{ID: jobs.OpNodeSetParams, Node: string(c.other().Name), Drained: new(true), AutoPromote: true}
		},
		reached: func(_ *Cluster, st *state.State) error {
			return counts(st, 3, func(n *state.Node) bool { return n.Flags.Drained }, 1)
		},
	},
	{
		name:   "a larger pool",
		change: func(*Cluster) Change { return pool(5) },
		reached: func(_ *Cluster, st *state.State) error {
			return counts(st, 5, func(*state.Node) bool { return st.Params.CandidatePoolSize == 5 }, 5)
		},
	},
	{
		name:   "removed, and another in its place",
		change: func(c *Cluster) Change { return Remove(c.other()) },
		reached: func(_ *Cluster, st *state.State) error {
			return counts(st, 3, func(*state.Node) bool { return true }, 4)
		},
	},
	{
		name: "renamed",
		change: func(c *Cluster) Change {
			return Change{ID: jobs.OpNodeRename, Node: c.other().ID.String(), NewName: "web.vc.test"}
		},
		reached: func(_ *Cluster, st *state.State) error {
			return counts(st, 3, func(n *state.Node) bool { return n.Name == "web.vc.test" }, 1)
		},
	},
	{
		name: "a second address",
		change: func(c *Cluster) Change {
			n := c.other()
			return Change{ID: jobs.OpNodeSetParams, Node: n.ID.String(), Addresses: []netip.Addr{n.Addr, elsewhere(n)}, Force: true}
		},
		reached: func(_ *Cluster, st *state.State) error {
			return counts(st, 3, func(n *state.Node) bool { return len(n.Addresses) == 2 }, 1)
		},
	},
	{
		name:   "about to be added again",
		change: func(c *Cluster) Change { return Change{ID: jobs.OpNodeReadd, Node: c.other().ID.String()} },
		reached: func(_ *Cluster, st *state.State) error {
			return counts(st, 2, func(n *state.Node) bool { return n.Flags.Offline }, 1)
		},
	},
}

// counts checks how many candidates there are, and nodes of some kind.
func counts(st *state.State, candidates int, kind func(*state.Node) bool, want int) error {
	got := 0
	for _, n := range st.Nodes {
		if kind(n) {
			got++
		}
	}
	if len(st.Candidates()) != candidates || got != want {
		return fmt.Errorf("%d candidates, want %d; %d other nodes, want %d", len(st.Candidates()), candidates, got, want)
	}
	return nil
}

// TestG7EveryChange disturbs the master in the middle of each change of several
// steps. The intent, once it is committed, is reached by itself: all steps are
// done, by whoever is master then.
func TestG7EveryChange(t *testing.T) {
	for _, s := range manySteps {
		for what, disturb := range disturbances {
			t.Run(s.name+"/"+what, func(t *testing.T) {
				for k := 0; k < 1 || every && k < 40; k++ {
					after := time.Duration(rand.IntN(40)) * step
					if every {
						after = time.Duration(k) * step
					}
					Run(t, 5, Options{}, func(_ *testing.T, c *Cluster) { c.disturbMaster(s, after, disturb) })
				}
			})
		}
	}
}

// disturbMaster makes the change and disturbs the master so long after it.
func (c *Cluster) disturbMaster(s manyStep, after time.Duration, disturb func(*Cluster, *Node)) {
	c.t.Helper()
	if s.prepare != nil {
		s.prepare(c)
	}
	change, master := s.change(c), c.Master()
	daemon, first := master.Masterd(), c.nextJob()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = c.submit(daemon, change) // the master may not live to answer
	}()
	c.Pass(after)
	disturb(c, master)
	<-ended
	what := fmt.Sprintf("%s, %v after the request", s.name, after)
	c.settled(what)
	st, err := c.State()
	c.must(err)
	if st.Jobs[first] == nil { // it never got into the log: nothing was promised
		c.again(what, change)
	} else if j := c.Job(first); j.Status != state.JobSuccess {
		c.again(what, change)
	}
	c.settled(what + ", in the end")
	st, err = c.State()
	c.must(err)
	if err := s.reached(c, st); err != nil {
		c.t.Errorf("%s: %v", what, err)
	}
}

// again makes a change that was refused or lost, unless the node that it is
// about has become the master meanwhile: then another change would be needed.
func (c *Cluster) again(what string, ch Change) {
	c.t.Helper()
	if m := c.Master(); string(m.Name) == ch.Node || m.ID.String() == ch.Node {
		c.t.Skipf("%s: the node has become the master", what)
	}
	if j := c.Do(ch); j.Status != state.JobSuccess {
		text, err := json.Marshal(j.OpResult)
		c.must(err)
		c.t.Errorf("%s, and again: %s %s", what, j.Status, text)
	}
}
