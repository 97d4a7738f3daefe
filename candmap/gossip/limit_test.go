package gossip_test

import (
	"bytes"
	"testing"
	"time"

	"rolekey/candmap/gossip"
)

// MaxMessage is computed from memberlist's insides; this asks memberlist. A
// message of that size arrives, one byte more never leaves and is never
// reported.
func TestMaxMessageIsExact(t *testing.T) {
	if gossip.MaxMessage != 1363 {
		t.Errorf("MaxMessage is %d, the documents say 1363", gossip.MaxMessage)
	}
	inBubble(t, 3, func(fl *fleet) {
		fl.startAll()
		from, to := fl.nodes[0], fl.nodes[1]
		time.Sleep(time.Minute) // the membership has settled and takes no space
		gossip.Enqueue(from.Gossip, bytes.Repeat([]byte("x"), gossip.MaxMessage))
		fl.until("the largest arrived", 10*time.Second, func() bool { return to.Stats().Malformed > 0 })
		fl.until("it was sent often enough", 10*time.Second, func() bool { return gossip.Queued(from.Gossip) == 0 })
		time.Sleep(time.Second) // the last one is on its way
		before := to.Stats().Received
		gossip.Enqueue(from.Gossip, bytes.Repeat([]byte("x"), gossip.MaxMessage+1))
		time.Sleep(5 * time.Minute)
		if to.Stats().Received != before || gossip.Queued(from.Gossip) != 1 {
			t.Errorf("a larger one: received %d, still queued %d", to.Stats().Received-before, gossip.Queued(from.Gossip))
		}
	})
}

// TestConvergence measures, in virtual time with one millisecond of latency,
// how long an announcement takes to reach every node by gossip alone.
func TestConvergence(t *testing.T) {
	for _, size := range []int{5, 20, 50} {
		inBubble(t, size, func(fl *fleet) {
			start := time.Now()
			fl.startAll()
			joined := time.Since(start)
			var worst, sum time.Duration
			const rounds = 5
			for i := range rounds {
				time.Sleep(40 * time.Second) // a third of the lease
				env := fl.beacon(time.Duration(i+1)*time.Minute, 1, 2)
				fl.nodes[i].announce(t, env)
				took := fl.until("all hold the beacon", 10*time.Minute, func() bool { return all(fl.nodes, holding(env)) })
				worst, sum = max(worst, took), sum+took
			}
			t.Logf("%2d nodes: joined in %v; announcement at all: mean %v, worst %v of %d", size, joined, sum/rounds, worst, rounds)
		})
	}
}
