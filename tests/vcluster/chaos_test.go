package vcluster

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
)

// TestG7Chaos makes random changes while random things happen to random nodes.
// What a job reports holds at that moment, and when all nodes are up and
// connected again the cluster settles. ROLEKEY_VCLUSTER_SEED chooses other
// changes; the order of events differs from run to run in any case.
func TestG7Chaos(t *testing.T) {
	seed, rounds := uint64(1), 12
	if s, err := strconv.ParseUint(os.Getenv("ROLEKEY_VCLUSTER_SEED"), 10, 64); err == nil {
		seed = s
	}
	if every {
		rounds = 200
	}
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 7))
	Run(t, 5, Options{}, func(t *testing.T, c *Cluster) {
		for round := range rounds {
			c.chaos(r)
			if round%4 == 3 {
				c.recover(fmt.Sprintf("seed %d, round %d", seed, round))
			}
		}
		c.recover(fmt.Sprintf("seed %d, end", seed))
	})
}

// chaos makes one change and disturbs it.
func (c *Cluster) chaos(r *rand.Rand) {
	c.t.Helper()
	target := c.Nodes[r.IntN(len(c.Nodes))]
	ch := c.anything(r, target)
	for _, m := range c.Masters() {
		if id, err := c.SubmitTo(m, ch); err == nil {
			c.Pass(time.Duration(r.IntN(40)) * step)
			c.anyhow(r)
			c.watch(id, ch, target)
			return
		}
	}
	c.Pass(time.Second)
	c.anyhow(r)
}

func (c *Cluster) anything(r *rand.Rand, n *Node) Change {
	switch r.IntN(6) {
	case 0:
		return Offline(n, true)
	case 1:
		return Offline(n, false)
	case 2, 3:
		return Candidate(n, false)
	default:
		return Candidate(n, true)
	}
}

// anyhow lets something happen to a node.
func (c *Cluster) anyhow(r *rand.Rand) {
	n := c.Nodes[r.IntN(len(c.Nodes))]
	switch r.IntN(6) {
	case 0:
		if n.Up() {
			n.Crash()
		} else {
			n.Start()
		}
	case 1:
		if n.Up() {
			n.Restart()
		}
	case 2:
		if n.Up() {
			n.PowerOff()
		}
	case 3:
		c.Partition(n, c.Nodes[r.IntN(len(c.Nodes))])
	case 4:
		c.Heal()
	}
	c.Pass(time.Duration(r.IntN(3000)) * time.Millisecond)
}

// watch follows a job for a while. If it succeeds, the nodes that it does not
// name must have taken over what it changed.
func (c *Cluster) watch(id int64, ch Change, target *Node) {
	c.t.Helper()
	for range 100 {
		for _, m := range c.Masters() {
			st, err := m.Masterd().State()
			if err != nil || st.Jobs[id] == nil || !st.Jobs[id].Status.Ended() {
				continue
			}
			if st.Jobs[id].Status == state.JobSuccess {
				c.effective(st, st.Jobs[id], ch, target)
			}
			return
		}
		c.Pass(poll)
	}
}

// effective checks G4: no node that a report does not name still trusts who
// has lost the role, neither for calls nor by SSH.
func (c *Cluster) effective(st *state.State, j *state.Job, ch Change, target *Node) {
	c.t.Helper()
	in := st.Node(target.ID)
	if in == nil || in.Flags.MasterCandidate || len(j.Progress) == 0 {
		return // nothing was changed, or no role taken
	}
	key, err := os.ReadFile(target.at.SSHPublicKey())
	if err != nil {
		key = nil // it is destroyed
	}
	for _, n := range c.Up() {
		listed := slices.ContainsFunc(j.Unreachable, func(u state.Unreachable) bool { return u.Node == string(n.Name) })
		if listed || st.Node(n.ID).Flags.Offline {
			continue
		}
		if m := n.onDisk(); m == nil || entryOf(m, target.ID) != nil {
			c.t.Errorf("job %d %+v succeeded, and %s, which it does not name, still has the node in its map", j.ID, ch, n.Short())
		}
		text, err := os.ReadFile(n.AuthorizedKeys())
		if err == nil && key != nil && bytes.Contains(text, bytes.Fields(key)[1]) {
			c.t.Errorf("job %d %+v succeeded, and %s, which it does not name, still authorizes the node's key", j.ID, ch, n.Short())
		}
	}
}

// onDisk reads the map that a node has saved, or returns nil.
func (n *Node) onDisk() *candmap.Map {
	text, err := os.ReadFile(n.at.CurrentMap())
	if err != nil {
		return nil
	}
	env, err := candmap.ParseEnvelope(text)
	if err != nil {
		return nil
	}
	m, err := candmap.DecodeMap(env.Payload)
	if err != nil {
		return nil
	}
	return m
}

// recover ends all disturbances and wants the cluster to settle by itself.
func (c *Cluster) recover(when string) {
	c.t.Helper()
	c.Heal()
	for _, n := range c.Nodes {
		if !n.Up() {
			n.Start()
		}
	}
	if err := c.within(3*Limit, c.Check); err != nil {
		c.t.Fatalf("%s: not settled: %v", when, err)
	}
	for _, n := range c.Nodes {
		st, err := c.State()
		c.must(err)
		// A node that was offline hears of the cluster only bit by bit.
		for tries := 10; tries > 0 && st.Role(n.ID) == cluster.RoleOffline; tries-- {
			if c.Do(Offline(n, false)).Status == state.JobSuccess {
				break
			}
			c.Pass(time.Second)
		}
	}
	if err := c.within(Limit, c.Check); err != nil {
		c.t.Fatalf("%s, with all nodes online: not settled: %v", when, err)
	}
}
