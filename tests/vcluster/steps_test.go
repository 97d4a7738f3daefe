package vcluster

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"rolekey/masterd/state"
)

// step is the distance of the moments at which a change is disturbed: half of
// the time that a message takes, so that every message is once on its way and
// once answered.
var step = defaultLatency / 2

// moments is about how many steps a promotion and a demotion take.
var moments = map[bool]int{true: 16, false: 28}

// every has all moments tried; otherwise each run picks some.
var every = os.Getenv("ROLEKEY_VCLUSTER") == "all"

// disturbances are what happens to a node in the middle of a change.
var disturbances = map[string]func(c *Cluster, n *Node){
	// The daemons are killed, and the service manager starts them again.
	"restart": func(_ *Cluster, n *Node) { n.Restart() },
	// They stay dead until the cluster has had time to go on without them.
	"crash": func(c *Cluster, n *Node) {
		n.Crash()
		c.Pass(8 * time.Second)
		n.Start()
	},
	// The network fails, and comes back with all that was on its way.
	"partition": func(c *Cluster, n *Node) {
		c.Partition(n)
		c.Pass(8 * time.Second)
		c.Heal()
	},
	// The machine loses power: nobody hears that its connections ended.
	"power": func(c *Cluster, n *Node) {
		n.PowerOff()
		c.Pass(8 * time.Second)
		c.Heal()
		n.Start()
	},
}

// TestG7EveryStep disturbs promotions and demotions at every message, at the
// master, at the target and at a voter. The cluster converges by itself to
// what was committed, and running the change again completes it.
func TestG7EveryStep(t *testing.T) {
	for _, who := range []string{"master", "target", "voter"} {
		for what, disturb := range disturbances {
			t.Run(who+"/"+what, func(t *testing.T) {
				Run(t, 4, Options{}, func(_ *testing.T, c *Cluster) { everyStep(c, who, disturb) })
			})
		}
	}
}

// TestG7EveryStepOfAVoter demotes and promotes a voter of three. Then the map
// has only one voter for a while, and raft still has three.
func TestG7EveryStepOfAVoter(t *testing.T) {
	for what, disturb := range disturbances {
		t.Run(what, func(t *testing.T) {
			Run(t, 3, Options{Pool: 1}, func(_ *testing.T, c *Cluster) {
				for _, n := range c.Nodes[1:] {
					c.Must(Candidate(n, true))
				}
				c.Settle()
				c.eachMoment(func() *Node { return c.other() }, "master", disturb)
			})
		})
	}
}

func everyStep(c *Cluster, who string, disturb func(*Cluster, *Node)) {
	c.eachMoment(func() *Node { return c.Node(4) }, who, disturb)
}

// eachMoment disturbs promotions and demotions of a target.
func (c *Cluster) eachMoment(choose func() *Node, who string, disturb func(*Cluster, *Node)) {
	c.t.Helper()
	for _, on := range []bool{true, false} {
		next := 0
		for over := false; !over; next++ {
			k := next
			if !every {
				k = rand.IntN(moments[on])
				over = true
			}
			target := choose()
			c.Must(Candidate(target, !on))
			c.Settle()
			over = c.disturbed(target, on, time.Duration(k)*step, who, disturb) || over
			if c.Master() != target {
				c.Must(Candidate(target, true))
				c.Settle()
			}
		}
	}
}

// disturbed makes one change, disturbs it after the time given, and reports
// whether it was over by then.
func (c *Cluster) disturbed(target *Node, on bool, after time.Duration, who string, disturb func(*Cluster, *Node)) (over bool) {
	c.t.Helper()
	master := c.Master()
	type submitted struct {
		id  int64
		err error
	}
	done := make(chan submitted, 1)
	daemon, first := master.Masterd(), c.nextJob()
	go func() {
		id, err := c.submit(daemon, Candidate(target, on))
		done <- submitted{id, err}
	}()
	c.Pass(after)
	st, err := daemon.State()
	c.must(err)
	over = st.Jobs[first] != nil && st.Jobs[first].Status.Ended()
	what := fmt.Sprintf("candidate=%t, %v after the request", on, after)
	disturb(c, c.pick(who, master, target))
	c.settled(what)
	if s := <-done; s.err == nil {
		c.agrees(what, s.id, target, on)
	}
	if c.Master() != target { // it may have become the master
		c.Must(Candidate(target, on))
		c.settled(what + ", and again")
	}
	return over
}

func (c *Cluster) settled(what string) {
	c.t.Helper()
	if err := c.within(Limit, c.Check); err != nil {
		c.t.Fatalf("%s: not settled: %v", what, err)
	}
}

func (c *Cluster) nextJob() int64 {
	st, err := c.State()
	c.must(err)
	return st.NextJob
}

// agrees compares the end of a job with what became of the node.
func (c *Cluster) agrees(what string, id int64, target *Node, on bool) {
	c.t.Helper()
	j := c.Job(id)
	st, err := c.State()
	c.must(err)
	if is := st.Node(target.ID).Flags.MasterCandidate; j.Status == state.JobSuccess && is != on {
		c.t.Fatalf("%s: the job succeeded, and the node's flag is %t", what, is)
	}
}

// pick finds the node that a scenario is about.
func (c *Cluster) pick(who string, master, target *Node) *Node {
	switch who {
	case "master":
		return master
	case "target":
		return target
	}
	for _, n := range c.Nodes {
		if n != master && n != target {
			return n
		}
	}
	return nil
}
