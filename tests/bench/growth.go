package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// sizes of the clusters in which role changes are compared.
var sizes = []int{4, 8, 16, 32}

// rest is the pause before each change.
const rest = time.Second

// grown is one cluster, asked from outside of its network: its sockets lie in
// the file system.
type grown struct {
	size            int
	cluster         *kit.Cluster
	node, other     lab.Node // the one that is promoted and demoted, and one that it logs in to
	rapi            *kit.RAPI
	key             string // file: a copy of the node's SSH key
	promote, demote roleTimes
}

// roleTimes are the figures of one kind of change, in milliseconds.
type roleTimes struct {
	took     []float64
	now, all []cputime // processor time until the end of the job, and with what it left to do
}

// growth promotes and demotes one node in clusters of several sizes that run
// side by side, in turns. A role change ends when its job ends: the last node
// has written the map to its disk and said so. Logins prove each.
func growth(ctx context.Context, rounds int) (err error) {
	keys, err := os.MkdirTemp("", "rolekey-bench-")
	if err != nil {
		return fmt.Errorf("growth: %w", err)
	}
	var all []*grown
	defer func() {
		for _, g := range all {
			g.rapi.Close()
			err = errors.Join(err, g.cluster.Down(context.WithoutCancel(ctx)))
		}
		err = errors.Join(err, os.RemoveAll(keys))
	}()
	for _, n := range sizes {
		g, err := grow(ctx, n)
		if err != nil {
			return fmt.Errorf("growth: cluster of %d: %w", n, err)
		}
		g.key = filepath.Join(keys, fmt.Sprint(n))
		all = append(all, g)
	}
	for round := range rounds + 1 {
		for _, g := range all {
			if err := g.round(ctx, round > 0); err != nil {
				return fmt.Errorf("growth: cluster of %d: %w", g.size, err)
			}
		}
	}
	showGrowth("promote", all, func(g *grown) roleTimes { return g.promote })
	showGrowth("demote", all, func(g *grown) roleTimes { return g.demote })
	return nil
}

func grow(ctx context.Context, nodes int) (*grown, error) {
	var steps bytes.Buffer
	up, err := lab.Up(ctx, lab.Config{Nodes: nodes, CandidatePoolSize: 3, Progress: &steps})
	if err != nil {
		fmt.Fprint(os.Stderr, steps.String())
		return nil, err
	}
	g, err := open(ctx, up)
	if err != nil {
		return nil, errors.Join(err, up.Down(context.WithoutCancel(ctx)))
	}
	return g, nil
}

// open finds the master, a node that is no candidate, and another one.
func open(ctx context.Context, up *lab.Cluster) (*grown, error) {
	c, err := kit.Open(ctx, up.Dir())
	if err != nil {
		return nil, err
	}
	name, _, err := c.AwaitMaster(ctx, patience, "")
	if err != nil {
		return nil, err
	}
	master, err := c.Node(ctx, name)
	if err != nil {
		return nil, err
	}
	m, err := c.ReadMap(ctx, name)
	if err != nil {
		return nil, err
	}
	g := &grown{size: len(m.Nodes), cluster: &kit.Cluster{Cluster: up, Ports: c.Ports}, rapi: kit.NewRAPI(master), other: master}
	for _, n := range m.Nodes {
		if !m.Has(n.Name) {
			g.node, err = c.Node(ctx, n.Name)
			return g, err
		}
	}
	return nil, errors.New("all nodes are candidates")
}

// round promotes and demotes; the first one opens connections and does not
// count.
func (g *grown) round(ctx context.Context, counts bool) error {
	for _, to := range []struct {
		candidate bool
		into      *roleTimes
		prove     func(ctx context.Context) error
	}{{true, &g.promote, g.logsIn}, {false, &g.demote, g.isDenied}} {
		var r roleTimes
		if err := g.change(ctx, to.candidate, &r); err != nil {
			return err
		}
		if err := to.prove(ctx); err != nil {
			return fmt.Errorf("the job has ended well, but: %w", err)
		}
		if counts {
			to.into.took = append(to.into.took, r.took...)
			to.into.now, to.into.all = append(to.into.now, r.now...), append(to.into.all, r.all...)
		}
	}
	return nil
}

// change makes one change and waits for its end.
func (g *grown) change(ctx context.Context, candidate bool, r *roleTimes) error {
	// why-sleep: what the change before left to do in the background is over.
	time.Sleep(rest)
	before, err := readCPU(ctx, g.cluster)
	if err != nil {
		return err
	}
	start := time.Now()
	job, err := g.rapi.Modify(ctx, g.node.Name, map[string]bool{"master_candidate": candidate})
	if err == nil {
		err = g.rapi.Wait(ctx, job)
	}
	took := time.Since(start)
	if err != nil {
		return err
	}
	now, err := readCPU(ctx, g.cluster)
	if err != nil {
		return err
	}
	if err := g.rapi.Everywhere(ctx, job, g.size); err != nil {
		return err
	}
	// why-sleep: what the change leaves to do in the background counts as well.
	time.Sleep(rest)
	all, err := readCPU(ctx, g.cluster)
	if err != nil {
		return err
	}
	r.took, r.now, r.all = []float64{ms(took)}, []cputime{now.since(before)}, []cputime{all.since(before)}
	return nil
}

// logsIn returns nil if the node opens another one with its key, by plain ssh,
// and keeps a copy of the key.
func (g *grown) logsIn(ctx context.Context) error {
	loot, err := kit.Steal(g.node)
	if err == nil {
		err = os.WriteFile(g.key, loot.SSHKey, 0o600)
	}
	if err != nil {
		return err
	}
	return g.cluster.Login(ctx, g.node, g.other)
}

// isDenied returns nil if the copy of the key opens nothing any more.
func (g *grown) isDenied(ctx context.Context) error {
	return kit.ShutOut(g.cluster.LoginWith(ctx, g.key, g.node, g.other))
}

func showGrowth(what string, all []*grown, times func(*grown) roleTimes) {
	large := all[len(all)-1]
	for _, g := range all {
		limit := target{}
		if g.size == 8 {
			limit = atMost(200)
		}
		show(fmt.Sprintf("%s one node of %d, until the last has it on disk", what, g.size), "ms", slices.Clone(times(g).took), limit)
	}
	for _, small := range all[:2] {
		var ratios []float64
		for i, t := range times(large).took {
			ratios = append(ratios, t/times(small).took[i])
		}
		show(fmt.Sprintf("%s one node: %d nodes against %d", what, large.size, small.size), "ratio", ratios, atMost(2))
	}
	for _, g := range all {
		showCPU(fmt.Sprintf("%s, processor time of %d nodes", what, g.size), times(g))
	}
}

// showCPU shows what a change costs the daemons of all nodes together.
func showCPU(what string, r roleTimes) {
	for _, part := range []struct {
		name string
		of   []cputime
		get  func(cputime) float64
	}{
		{"noded", r.now, func(t cputime) float64 { return t.noded }},
		{"masterd", r.now, func(t cputime) float64 { return t.masterd }},
		{"both, and 1 s on", r.all, func(t cputime) float64 { return t.noded + t.masterd }},
	} {
		var values []float64
		for _, t := range part.of {
			values = append(values, part.get(t))
		}
		show(what+": "+part.name, "ms", values, target{})
	}
}
