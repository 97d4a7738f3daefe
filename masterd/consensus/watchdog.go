package consensus

import (
	"context"
	"fmt"
	"time"
)

// probeKey is written again and again by a leader to learn whether its disk
// still takes writes. The stores have one writer, so a log write that hangs
// makes this one hang too; and unlike a raft no-op it leaves no entry behind.
var probeKey = []byte("rolekey/probe")

// watchDisk silences a leader whose disk hangs. Raft's heartbeats do not touch
// the disk, so such a leader would otherwise lead for ever, and nobody else
// could be elected. This goroutine touches no disk either.
func (n *Node) watchDisk(ctx context.Context) {
	tick := time.NewTicker(n.timing.Hung / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n.Leads() && !n.writes(ctx) && n.Leads() {
			_ = n.transport.Close() // only cancels
			n.fatal(fmt.Errorf("raft: this node leads but its disk has taken no write for %s; another candidate takes over", n.timing.Hung))
			return
		}
	}
}

// writes reports whether the stable store takes a write within the limit. The
// writer is not waited for: it may hang for ever.
func (n *Node) writes(ctx context.Context) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.stable.SetUint64(probeKey, n.Term()) // an error is not a hang; raft meets it by itself
	}()
	limit := time.NewTimer(n.timing.Hung)
	defer limit.Stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return true
	case <-limit.C:
		return false
	}
}
