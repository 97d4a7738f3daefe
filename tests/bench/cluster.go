package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// patience bounds every wait.
const patience = 30 * time.Second

// bench measures one cluster.
type bench struct {
	c      *kit.Cluster
	rounds int
	nodes  int // of the cluster
	bin    string
	master lab.Node
}

func newBench(ctx context.Context, dir string, rounds int) (*bench, error) {
	c, err := kit.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	st, err := c.State(ctx)
	if err != nil {
		return nil, err
	}
	b := &bench{c: c, rounds: rounds, nodes: len(st.Nodes), bin: st.Bin}
	return b, b.settle(ctx)
}

// settle waits until all nodes hold one fresh map, and notes who is master.
func (b *bench) settle(ctx context.Context) error {
	name, _, err := b.c.AwaitMaster(ctx, patience, "")
	if err != nil {
		return err
	}
	if b.master, err = b.c.Node(ctx, name); err != nil {
		return err
	}
	_, err = kit.Until(ctx, patience, func(ctx context.Context) error {
		m, err := b.c.ReadMap(ctx, name)
		if err != nil {
			return err
		}
		for _, n := range m.Nodes {
			if n.Hash != m.Hash || !n.Fresh {
				return fmt.Errorf("%s does not hold the newest map", n.Name)
			}
		}
		return nil
	})
	return err
}

// command runs a program on the master and returns its wall time.
func (b *bench) command(ctx context.Context, args ...string) (time.Duration, error) {
	_, took, err := b.output(ctx, args...)
	return took, err
}

// output does the same, and returns what the program prints too.
func (b *bench) output(ctx context.Context, args ...string) ([]byte, time.Duration, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, args[0]), args[1:]...)
	cmd.Env = append(os.Environ(), "ROLEKEY_ROOT="+b.master.Root)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, 0, fmt.Errorf("%v: %w: %s", args, err, out)
	}
	return out, time.Since(start), nil
}

// idle is how long the daemons are left alone before their memory counts.
const idle = 5 * time.Second

func (b *bench) memory(ctx context.Context) error {
	// why-sleep: an idle daemon is what is measured.
	time.Sleep(idle)
	all, err := b.c.Nodes(ctx)
	if err != nil {
		return err
	}
	var noded, masterd []float64
	for _, n := range all {
		for pid, into := range map[int]*[]float64{n.PIDs.Noded: &noded, n.PIDs.Masterd: &masterd} {
			rss, err := kit.RSS(pid)
			if err != nil {
				return err
			}
			*into = append(*into, float64(rss)/(1<<20))
		}
	}
	show("noded, resident memory, idle", "MiB", noded, atMost(30))
	show("masterd, resident memory, idle", "MiB", masterd, target{})
	return nil
}

// roles promotes and demotes node4.
func (b *bench) roles(ctx context.Context) error {
	var promote, demote, refused, refusedCommand []float64
	for range b.rounds {
		took, err := b.command(ctx, "gnt-node", "modify", "-C", "yes", "node4")
		if err != nil {
			return err
		}
		promote = append(promote, ms(took))
		start, end, err := b.watched(ctx, func() (time.Duration, error) {
			return b.command(ctx, "gnt-node", "modify", "-C", "no", "node4")
		}, &demote)
		if err != nil {
			return err
		}
		refusedCommand = append(refusedCommand, ms(end.Sub(start)))
		if _, err := b.command(ctx, "gnt-node", "modify", "-C", "yes", "node4"); err != nil {
			return err
		}
		if start, end, err = b.watched(ctx, func() (time.Duration, error) { return 0, b.request(ctx) }, nil); err != nil {
			return err
		}
		refused = append(refused, ms(end.Sub(start)))
	}
	show("gnt-node modify -C yes: wall time of the command", "ms", promote, atMost(150))
	show("gnt-node modify -C no: wall time of the command", "ms", demote, atMost(150))
	show("last of 4 nodes refuses, after the demotion's request", "ms", refused, atMost(50))
	show("last of 4 nodes refuses, after the command's start", "ms", refusedCommand, target{})
	return nil
}

// request demotes node4 by the request that the command would make.
func (b *bench) request(ctx context.Context) error {
	r := kit.NewRAPI(b.master)
	defer r.Close()
	job, err := r.Modify(ctx, "node4", map[string]bool{"master_candidate": false})
	if err != nil {
		return err
	}
	_, err = kit.Until(ctx, patience, func(ctx context.Context) error { return r.Done(ctx, job) })
	return err
}

// watched demotes while every other node is asked with node4's certificate. It
// returns when the demotion was begun, and when the last node had refused.
func (b *bench) watched(ctx context.Context, demote func() (time.Duration, error), times *[]float64) (start, end time.Time, err error) {
	node4, err := b.c.Node(ctx, "node4")
	if err != nil {
		return start, end, err
	}
	l, err := kit.Steal(node4)
	if err != nil {
		return start, end, err
	}
	others, err := b.c.Others(ctx, "node4")
	if err != nil {
		return start, end, err
	}
	siege, err := kit.LaySiege(ctx, l.Caller(l.Candidate), b.c.NodedOf(others)...)
	if err != nil {
		return start, end, err
	}
	start = time.Now()
	took, err := demote()
	falls, lerr := siege.Lift(patience)
	if err = errors.Join(err, lerr); err != nil {
		return start, end, err
	}
	if times != nil {
		*times = append(*times, ms(took))
	}
	return start, kit.Last(falls), nil
}

// coldStart kills noded of a normal node and starts it again.
func (b *bench) coldStart(ctx context.Context) error {
	var took []float64
	for range b.rounds {
		n, err := b.c.Node(ctx, "node5")
		if err != nil {
			return err
		}
		if err := b.c.Kill(ctx, "node5", lab.Noded); err != nil {
			return err
		}
		d, err := b.start(ctx, n)
		if err != nil {
			return err
		}
		took = append(took, ms(d))
	}
	show("noded, from its start to the first call served", "ms", took, atMost(100))
	return b.settle(ctx)
}

// start starts a node and returns when it serves a call.
func (b *bench) start(ctx context.Context, n lab.Node) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	started := make(chan error, 1)
	begin := time.Now()
	go func() { started <- b.c.Start(ctx, n.Name) }()
	caller := kit.Caller{From: netip.MustParseAddr(b.master.Address)}
	for {
		a, err := caller.Call(ctx, b.c.Noded(n), http.MethodGet, "/v1/health", nil, nil)
		if err == nil && a.OK() {
			return time.Since(begin), <-started
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("%s does not serve: %w", n.Name, errors.Join(err, <-started))
		}
		// why-sleep: the resolution of the figure; it leaves the processor to noded.
		time.Sleep(time.Millisecond)
	}
}

// failover kills the master, and waits until another commits a change.
func (b *bench) failover(ctx context.Context) error {
	var took []float64
	for range max(3, b.rounds/4) {
		old := b.master
		others, err := b.c.Others(ctx, old.Name, "node4", "node5")
		if err != nil {
			return err
		}
		begin := time.Now()
		if err := b.c.Kill(ctx, old.Name, lab.Masterd); err != nil {
			return err
		}
		if _, err := kit.Until(ctx, patience, func(ctx context.Context) error { return works(ctx, others) }); err != nil {
			return err
		}
		took = append(took, ms(time.Since(begin)))
		if err := b.c.Start(ctx, old.Name); err != nil {
			return err
		}
		if err := b.settle(ctx); err != nil {
			return err
		}
	}
	show("from kill -9 of the master to a change by another", "ms", took, atMost(2000))
	return nil
}

// handover moves the master role to another voter, by the command, until that
// has committed a change.
func (b *bench) handover(ctx context.Context) error {
	var took, accepted []float64
	for range max(4, b.rounds/2) {
		others, err := b.c.Others(ctx, b.master.Name, "node4", "node5")
		if err != nil {
			return err
		}
		b.master = others[0] // where the command runs
		begin := time.Now()
		d, err := b.command(ctx, "gnt-cluster", "master-failover")
		if err != nil {
			return err
		}
		if err := works(ctx, others[:1]); err != nil {
			return err
		}
		accepted = append(accepted, ms(time.Since(begin)))
		took = append(took, ms(d))
		if err := b.settle(ctx); err != nil {
			return err
		}
	}
	show("gnt-cluster master-failover: wall time of the command", "ms", took, target{})
	show("from its start to a change accepted by the new master", "ms", accepted, atMost(500))
	return nil
}

// works returns nil when one of the nodes has committed a change.
func works(ctx context.Context, nodes []lab.Node) error {
	var errs []error
	for _, n := range nodes {
		r := kit.NewRAPI(n)
		_, err := r.Modify(ctx, "node5", map[string]bool{"drained": false})
		r.Close()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
