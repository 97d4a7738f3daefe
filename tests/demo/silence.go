package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

func (t *teller) silence(ctx context.Context) {
	if t.claim("node5, cut off, refuses even candidates once its lease is over", func() (string, error) { return t.cutOff(ctx) }) {
		t.claim("the cut healed, it serves again by itself", func() (string, error) {
			if err := t.c.Heal(ctx); err != nil {
				return "", err
			}
			took, err := t.node5Serves(ctx)
			return ms(took) + " after healing", err
		})
	}
	t.claim("all machines off longer than the lease, then on: all serve again", func() (string, error) {
		return t.blackout(ctx)
	})
}

// insider calls node5 from its own address, past the cut, with the certificate
// of a true candidate.
func (t *teller) insider(ctx context.Context) (kit.Caller, lab.Node, error) {
	n, err := t.node(ctx, "node5")
	if err != nil {
		return kit.Caller{}, n, err
	}
	l, err := t.rob(ctx, "node4", "node4")
	if err != nil {
		return kit.Caller{}, n, err
	}
	c := t.loot["node5"].Caller(l.Candidate)
	return c, n, t.served(ctx, c, n)
}

func (t *teller) cutOff(ctx context.Context) (string, error) {
	c, n, err := t.insider(ctx)
	if err != nil {
		return "", err
	}
	if err := t.c.Partition(ctx, "node5"); err != nil {
		if errors.Is(err, lab.ErrNoNamespaces) {
			return "", skipf("no network namespaces here, so no cuts")
		}
		return "", err
	}
	took, err := kit.Until(ctx, patience, func(ctx context.Context) error {
		a, err := c.Call(ctx, t.c.Noded(n), http.MethodGet, "/v1/state", nil, nil)
		return kit.Refused(a, err, "map_stale")
	})
	if err == nil && took > lease+time.Second {
		err = fmt.Errorf("the lease is %v", lease)
	}
	return fmt.Sprintf("503 map_stale %s after the cut, lease %s", ms(took), ms(lease)), err
}

func (t *teller) node5Serves(ctx context.Context) (time.Duration, error) {
	n, err := t.node(ctx, "node5")
	if err != nil {
		return 0, err
	}
	l := t.loot["node4"]
	return kit.Until(ctx, patience, func(ctx context.Context) error {
		return t.served(ctx, t.loot["node5"].Caller(l.Candidate), n)
	})
}

// blackout stops everything, waits, and starts everything.
func (t *teller) blackout(ctx context.Context) (string, error) {
	all, err := t.c.Nodes(ctx)
	if err != nil {
		return "", err
	}
	if err := each(all, func(n lab.Node) error { return t.c.Stop(ctx, n.Name) }); err != nil {
		return "", err
	}
	off := time.Now()
	// why-sleep: the passing of the lease is what this is about.
	time.Sleep(lease + 500*time.Millisecond)
	start := time.Now()
	if err := each(all, func(n lab.Node) error { return t.c.Start(ctx, n.Name) }); err != nil {
		return "", err
	}
	l := t.loot["node4"]
	for _, n := range all {
		_, err := kit.Until(ctx, patience, func(ctx context.Context) error { return t.served(ctx, l.Caller(l.Candidate), n) })
		if err != nil {
			return "", fmt.Errorf("%s: %w", n.Short(), err)
		}
	}
	took := time.Since(start)
	if err := t.settle(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("off for %s; all %d serve %s after the start", ms(start.Sub(off)), len(all), ms(took)), nil
}

// each does something to all nodes at once.
func each(nodes []lab.Node, do func(lab.Node) error) error {
	var g errgroup.Group
	for _, n := range nodes {
		g.Go(func() error { return do(n) })
	}
	return g.Wait()
}

func (t *teller) sleeper(ctx context.Context) {
	l, err := t.rob(ctx, "node4", "node4")
	if err != nil {
		t.claim("node4 is robbed once more", func() (string, error) { return "", err })
		return
	}
	asleep := t.claim("node4 is demoted while node5 is off: exit 3 says what is open", func() (string, error) {
		return t.demoteWithout(ctx)
	})
	if !asleep {
		return
	}
	t.claim("node5, started again, never accepts node4's certificate", func() (string, error) {
		return t.wakeUp(ctx, l)
	})
}

func (t *teller) demoteWithout(ctx context.Context) (string, error) {
	if err := t.c.Stop(ctx, "node5"); err != nil {
		return "", err
	}
	r, err := t.c.Must(ctx, 3, t.master, "gnt-node", "modify", "-C", "no", "node4")
	if err != nil {
		return "", err
	}
	for line := range strings.SplitSeq(r.Stderr, "\n") {
		if strings.Contains(line, "node5") && strings.Contains(line, "RPC") && strings.Contains(line, "sshd") {
			return fmt.Sprintf("exit 3 in %s: %q", ms(r.Took), strings.TrimSpace(line)), nil
		}
	}
	return "", fmt.Errorf("standard error does not name node5 with its two bounds: %q", r.Stderr)
}

// wakeUp starts node5 and asks it with the demoted certificate from before its
// start until it has the newest map, and then some.
func (t *teller) wakeUp(ctx context.Context, l *kit.Loot) (string, error) {
	n, err := t.node(ctx, "node5")
	if err != nil {
		return "", err
	}
	watch := t.assail(ctx, l, n)
	start := time.Now()
	if err := t.c.Start(ctx, "node5"); err != nil {
		watch.end()
		return "", err
	}
	err = t.settle(ctx)
	took := time.Since(start)
	tried, served, codes := watch.end()
	switch {
	case err != nil:
		return "", err
	case served > 0:
		return "", fmt.Errorf("%d of %d calls were served", served, tried)
	case codes["not_in_map"] == 0:
		return "", fmt.Errorf("%d calls, and none was refused for the map: %v", tried, codes)
	}
	return fmt.Sprintf("%d calls from its start on, none served; caught up in %s", tried, ms(took)), nil
}

// assault asks one node again and again.
type assault struct {
	cancel context.CancelFunc
	done   chan struct{}
	served int
	codes  map[string]int
	tried  int
}

func (t *teller) assail(ctx context.Context, l *kit.Loot, n lab.Node) *assault {
	a := &assault{done: make(chan struct{}), codes: map[string]int{}}
	ctx, a.cancel = context.WithCancel(ctx)
	go func() {
		defer close(a.done)
		for ctx.Err() == nil {
			ans, err := l.Caller(l.Candidate).Call(ctx, t.c.Noded(n), http.MethodGet, "/v1/state", nil, nil)
			switch {
			case err != nil:
				// why-sleep: nobody listens there yet; what matters comes after.
				time.Sleep(5 * time.Millisecond)
				continue
			case ans.OK():
				a.served++
			}
			a.codes[ans.Code]++
			a.tried++
			// why-sleep: leaves the processor to the node that starts.
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return a
}

func (a *assault) end() (tried, served int, codes map[string]int) {
	a.cancel()
	<-a.done
	return a.tried, a.served, a.codes
}

func (t *teller) inspection(ctx context.Context) {
	t.claim("gnt-cluster verify finds nothing wrong", func() (string, error) {
		r, err := t.c.Must(ctx, 0, t.master, "gnt-cluster", "verify")
		if err != nil {
			return "", err
		}
		for line := range strings.SplitSeq(r.Stdout, "\n") {
			if strings.Contains(line, "ERROR") || strings.Contains(line, "WARNING") {
				return "", errors.New(strings.TrimSpace(line))
			}
		}
		return "exit 0 in " + ms(r.Took), nil
	})
}
