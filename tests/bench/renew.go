package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

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
// time.
func (b *bench) renew(ctx context.Context) error {
	for _, r := range renewals {
		var took, failed []float64
		for range min(b.rounds, 5) {
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
			took, failed = append(took, ms(d)), append(failed, float64(calls.failed))
		}
		show(fmt.Sprintf("%s, %d nodes", r.what, b.nodes), "ms", took, r.target)
		show("calls that failed during the "+r.what, "", failed, target{})
	}
	return nil
}

// tally counts calls.
type tally struct {
	mu           sync.Mutex
	done, failed int
}

// callAll calls every node from a candidate, on a new connection each time, until
// it is stopped.
func (b *bench) callAll(ctx context.Context) (*tally, func(), error) {
	nodes, err := b.c.Nodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	l, err := kit.Steal(nodes[1])
	if err != nil {
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
				a, err := l.Caller(l.Candidate).Call(ctx, at, "GET", "/v1/map?from=1.1000000", nil, nil)
				t.mu.Lock()
				t.done++
				if err != nil || !a.OK() {
					t.failed++
				}
				t.mu.Unlock()
			}
		})
	}
	return t, func() { close(over); all.Wait() }, nil
}
