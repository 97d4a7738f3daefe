package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// sizes of the clusters in which role changes are compared.
var sizes = []int{4, 8, 16, 32}

// grown is one cluster, asked from outside of its network: its sockets lie in
// the file system.
type grown struct {
	size            int
	cluster         *kit.Cluster
	node            string // that is promoted and demoted
	rapi            *kit.RAPI
	promote, demote []float64 // milliseconds
}

// growth promotes and demotes one node in clusters of several sizes that run
// side by side, in turns. A role change ends when its job ends: the last node
// has written the map to its disk and said so.
func growth(ctx context.Context, rounds int) (err error) {
	var all []*grown
	defer func() {
		for _, g := range all {
			g.rapi.Close()
			err = errors.Join(err, g.cluster.Down(context.WithoutCancel(ctx)))
		}
	}()
	for _, n := range sizes {
		g, err := grow(ctx, n)
		if err != nil {
			return fmt.Errorf("growth: cluster of %d: %w", n, err)
		}
		all = append(all, g)
	}
	for round := range rounds + 1 {
		for _, g := range all {
			if err := g.change(ctx, round > 0); err != nil {
				return fmt.Errorf("growth: cluster of %d: %w", g.size, err)
			}
		}
	}
	showGrowth("promote one node", all, func(g *grown) []float64 { return g.promote })
	showGrowth("demote one node", all, func(g *grown) []float64 { return g.demote })
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

// open finds the master and a node that is no candidate.
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
	for _, n := range m.Nodes {
		if !m.Has(n.Name) {
			return &grown{size: len(m.Nodes), cluster: &kit.Cluster{Cluster: up, Ports: c.Ports}, node: n.Name, rapi: kit.NewRAPI(master)}, nil
		}
	}
	return nil, errors.New("all nodes are candidates")
}

// change is one round; the first one opens connections and does not count.
func (g *grown) change(ctx context.Context, counts bool) error {
	for _, to := range []struct {
		candidate bool
		times     *[]float64
	}{{true, &g.promote}, {false, &g.demote}} {
		start := time.Now()
		job, err := g.rapi.Modify(ctx, g.node, map[string]bool{"master_candidate": to.candidate})
		if err == nil {
			err = g.rapi.Wait(ctx, job)
		}
		if err == nil {
			err = g.rapi.Everywhere(ctx, job, g.size)
		}
		if err != nil {
			return err
		}
		if counts {
			*to.times = append(*to.times, ms(time.Since(start)))
		}
	}
	return nil
}

func showGrowth(what string, all []*grown, times func(*grown) []float64) {
	small, large := all[0], all[len(all)-1]
	var ratios []float64
	for i, t := range times(large) {
		ratios = append(ratios, t/times(small)[i])
	}
	for _, g := range all {
		show(fmt.Sprintf("%s of %d, until the last has it on disk", what, g.size), "ms", times(g), target{})
	}
	show(fmt.Sprintf("%s: %d nodes against %d", what, large.size, small.size), "ratio", ratios, atMost(2))
}
