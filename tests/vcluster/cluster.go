package vcluster

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/cluster"
	"rolekey/internal/memnet"
	"rolekey/masterd/consensus"
)

// Defaults of Options. Raft is slower than in production, because in virtual
// time it is messages that cost, and not waiting.
var (
	defaultTiming = consensus.Timing{
		Heartbeat: time.Second, Election: time.Second, LeaderLease: 800 * time.Millisecond,
		Commit: 200 * time.Millisecond, Hung: 5 * time.Second,
	}
	defaultLease   = 6 * time.Second
	defaultLatency = time.Millisecond
	defaultPool    = 3
)

// Limit is how long, in virtual time, a cluster may take to settle.
const Limit = 60 * time.Second

// Options say how a cluster differs from the default one.
type Options struct {
	Timing  consensus.Timing
	Latency time.Duration // one way; negative: none
	Lease   time.Duration
	SSHDays int // ssh_lease in days; zero: one
	Pool    int // candidate_pool_size
	Policy  cluster.Policy
	Reach   cluster.SSHReach

	Recovery string // age recipient of the recovery key; "": no such key
}

func (o Options) withDefaults() Options {
	if o.Timing == (consensus.Timing{}) {
		o.Timing = defaultTiming
	}
	if o.Latency == 0 {
		o.Latency = defaultLatency
	}
	if o.Lease == 0 {
		o.Lease = defaultLease
	}
	if o.SSHDays == 0 {
		o.SSHDays = 1
	}
	if o.Pool == 0 {
		o.Pool = defaultPool
	}
	return o
}

// Cluster is some nodes, the first of which founded the cluster.
type Cluster struct {
	Net   *memnet.Network
	Nodes []*Node

	t     *testing.T
	opts  Options
	inner *memnet.Network // the unix sockets
	dir   string
	sshd  string
	start time.Time
	logs  *logs

	recovery []byte // the file with the private half of the recovery key
}

// Run makes a bubble with a cluster of n nodes that has settled, runs the
// scenario in it, and checks in the end that nothing is left half done.
func Run(t *testing.T, n int, o Options, scenario func(t *testing.T, c *Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := New(t, n, o)
		scenario(t, c)
		c.Settle()
		c.CheckForks()
	})
}

// New makes a cluster of n nodes inside a bubble; it ends with the test. The
// first node founded it, the others joined one after the other, and it has
// settled.
func New(t *testing.T, n int, o Options) *Cluster {
	t.Helper()
	c := Machines(t, n, o)
	c.Init(c.Nodes[0])
	for _, node := range c.Nodes[1:] {
		c.Join(node)
	}
	c.Settle()
	return c
}

// Machines makes n nodes that run both daemons and belong to no cluster.
func Machines(t *testing.T, n int, o Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, opts: o.withDefaults(), Net: memnet.New(), inner: memnet.New(), start: time.Now(), logs: newLogs()}
	if c.opts.Latency > 0 {
		c.Net.SetLatency(c.opts.Latency)
	}
	c.dir = folder(t)
	c.sshd = filepath.Join(c.dir, "sshd")
	// noded only asks it for its version.
	c.must(os.WriteFile(c.sshd, []byte("#!/bin/sh\necho OpenSSH_9.9p1\n"), 0o755))
	t.Cleanup(c.close)
	for i := range n {
		c.Nodes = append(c.Nodes, c.newNode(i+1))
	}
	for _, node := range c.Nodes {
		node.Start()
	}
	return c
}

// folder is in memory where there is such a file system: raft syncs often.
func folder(t *testing.T) string {
	const shm = "/dev/shm"
	if info, err := os.Stat(shm); err != nil || !info.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "rolekey-vcluster-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (c *Cluster) close() {
	if c.t.Failed() {
		c.t.Log(c.logs.text())
	}
	for _, n := range c.Nodes {
		n.stop()
	}
	c.Net.Close()
	c.inner.Close()
	for _, n := range c.Nodes {
		n.local.Close()
	}
	// memberlist's probes run on after its shutdown, for some seconds.
	time.Sleep(time.Minute) // why-sleep: virtual time, and nobody tells when they end
}

func (c *Cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// Now is how long the cluster has existed.
func (c *Cluster) Now() time.Duration { return time.Since(c.start) }

// Pass lets virtual time pass.
func (c *Cluster) Pass(d time.Duration) { time.Sleep(d) } // why-sleep: virtual time passes in no other way

// poll is how often a condition is looked at, in virtual time.
const poll = 50 * time.Millisecond

// Await waits until cond returns nil, and fails the test after the limit.
func (c *Cluster) Await(limit time.Duration, cond func() error) {
	c.t.Helper()
	if err := c.within(limit, cond); err != nil {
		c.t.Fatalf("at %v, after %v: %v", c.Now(), limit, err)
	}
}

func (c *Cluster) within(limit time.Duration, cond func() error) error {
	end := time.Now().Add(limit)
	for {
		err := cond()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(poll) // why-sleep: virtual time; a condition spans daemons that have no common event
	}
}

// Partition cuts the nodes off from all others; they reach one another. What
// is on its way arrives after Heal.
func (c *Cluster) Partition(nodes ...*Node) {
	var group []netip.Addr
	for _, n := range nodes {
		group = append(group, n.Addr)
	}
	c.Net.Partition(group)
}

// Heal ends all partitions.
func (c *Cluster) Heal() { c.Net.Heal() }

// Up lists the nodes whose daemons run.
func (c *Cluster) Up() []*Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return !n.Up() })
}

// Node finds a node by the number in its name.
func (c *Cluster) Node(i int) *Node { return c.Nodes[i-1] }

// ByID finds a node by its UUID, or returns nil.
func (c *Cluster) ByID(id cluster.NodeID) *Node {
	for _, n := range c.Nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// Masters lists the nodes that are master in office.
func (c *Cluster) Masters() []*Node {
	return slices.DeleteFunc(c.Up(), func(n *Node) bool { return n.ready() != nil })
}

// one returns the only master.
func (c *Cluster) one() (*Node, error) {
	m := c.Masters()
	if len(m) == 1 {
		return m[0], nil
	}
	names := []string{}
	var reasons []error
	for _, n := range c.Up() {
		if err := n.ready(); err == nil {
			names = append(names, n.Short())
		} else {
			reasons = append(reasons, fmt.Errorf("%s: %w", n.Short(), err))
		}
	}
	return nil, fmt.Errorf("%d masters [%s]: %w", len(m), strings.Join(names, " "), errors.Join(reasons...))
}

// Master waits until there is exactly one master, and returns it.
func (c *Cluster) Master() *Node {
	c.t.Helper()
	c.Await(Limit, func() error {
		_, err := c.one()
		return err
	})
	m, err := c.one()
	c.must(err)
	return m
}
