package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"rolekey/internal/lab"
	"rolekey/internal/paths"
	"rolekey/tests/kit"
)

// renewals are what is replaced, and its target.
var renewals = []struct {
	flag, what string
	target     target
}{
	{"--new-node-certificates", "renewal of the nodes' certificates", atMost(1000)},
	{"--new-cluster-certificate", "renewal of the authority", atMost(1000)},
	{"--new-signing-keys", "renewal of the signing keys", atMost(1000)},
	{"--new-gossip-key", "renewal of the gossip key", atMost(1000)},
	{"--new-ssh-keys", "renewal of the SSH keys", atMost(1000)},
}

// callPause is the pace of the calls to each node meanwhile.
const callPause = 10 * time.Millisecond

// renew measures how long keys take to be replaced, and calls every node all the
// time. No two renewals of one part follow each other within a second: what was
// replaced in the second in which a renewal begins counts as new.
func (b *bench) renew(ctx context.Context) error {
	took, failed := make([][]float64, len(renewals)), make([][]float64, len(renewals))
	for range min(b.rounds, 5) {
		for i, r := range renewals {
			calls, stop, err := b.callAll(ctx)
			if err != nil {
				return err
			}
			d, err := b.command(ctx, "gnt-cluster", "renew-crypto", r.flag, "-f")
			stop()
			if err != nil {
				return err
			}
			if calls.done == 0 {
				return errors.New("no call was made meanwhile")
			}
			took[i], failed[i] = append(took[i], ms(d)), append(failed[i], float64(calls.failed))
		}
	}
	for i, r := range renewals {
		show(fmt.Sprintf("%s, %d nodes", r.what, b.nodes), "ms", took[i], r.target)
		show("calls that failed meanwhile", "", failed[i], target{})
	}
	return nil
}

// tally counts calls.
type tally struct {
	mu           sync.Mutex
	done, failed int
}

// holder knows what a candidate calls with now.
type holder struct {
	node lab.Node
	mu   sync.Mutex
	with []byte // its certificate
	held *kit.Loot
}

func (h *holder) loot(ctx context.Context) (*kit.Loot, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now, err := os.ReadFile(paths.Layout{Root: h.node.Root}.CandidateCert())
	if err != nil || bytes.Equal(now, h.with) {
		return h.held, err
	}
	if h.held, err = kit.StealWhole(ctx, h.node); err == nil {
		h.with = now
	}
	return h.held, err
}

// call makes a call as the daemons do: once more, if it was refused and the
// certificate had been replaced before it was shown.
func (h *holder) call(ctx context.Context, at netip.AddrPort) error {
	for {
		l, err := h.loot(ctx)
		if err != nil {
			return err
		}
		a, err := l.Caller(l.Candidate).Call(ctx, at, "GET", "/v1/map?from=1.1000000", nil, nil)
		if err == nil && !a.OK() {
			err = fmt.Errorf("refused with %d", a.Status)
		}
		if now, e := h.loot(ctx); err == nil || e != nil || now == l {
			return err
		}
	}
}

// callAll calls every node from a candidate, on a new connection each time, until
// it is stopped.
func (b *bench) callAll(ctx context.Context) (*tally, func(), error) {
	nodes, err := b.c.Nodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	from := &holder{node: nodes[1]}
	if _, err := from.loot(ctx); err != nil {
		return nil, nil, err
	}
	t, over := &tally{}, make(chan struct{})
	var all sync.WaitGroup
	for _, n := range nodes {
		at := b.c.Noded(n)
		all.Go(func() {
			tick := time.NewTicker(callPause)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-over:
					return
				}
				err := from.call(ctx, at)
				t.mu.Lock()
				t.done++
				if err != nil {
					t.failed++
				}
				t.mu.Unlock()
			}
		})
	}
	return t, func() { close(over); all.Wait() }, nil
}
