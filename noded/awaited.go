package noded

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// awaitedLimit is how long local root waits for a delivery. The master tries
// every few seconds.
const awaitedLimit = 15 * time.Second

// awaited is a map that local root vouches for by its hash. Nobody can be asked
// for it whose key this node does not know, as when all certificates were renewed
// while it slept; but the master, who knows this node's, delivers it. Its hash
// proves it, whoever brings it.
type awaited struct {
	hash cluster.Digest
	took chan candmap.Ack // has room for one
}

// await lets deliveries bring the map until end is called.
func (m *member) await(hash cluster.Digest) (a *awaited, end func()) {
	a = &awaited{hash: hash, took: make(chan candmap.Ack, 1)}
	m.awaited.Store(a)
	return a, func() { m.awaited.CompareAndSwap(a, nil) }
}

// unheardOf reports whether a map may exist although nobody gave it.
func unheardOf(err error) bool {
	switch cluster.CodeOf(err) {
	case cluster.CodeIdentityMismatch, cluster.CodeUnavailable:
		return true
	}
	return false
}

// wait returns what was put in force; false: nothing came.
func (a *awaited) wait(ctx context.Context) (candmap.Ack, bool) {
	limit := time.NewTimer(awaitedLimit)
	defer limit.Stop()
	select {
	case ack := <-a.took:
		return ack, true
	case <-limit.C:
	case <-ctx.Done():
	}
	return candmap.Ack{}, false
}

// takeAwaited puts the awaited map in force, if a delivery brought it that was
// refused without the word of local root.
func (m *member) takeAwaited(ctx context.Context, d *rpc.MapDelivery, ack candmap.Ack, refused error) (candmap.Ack, bool) {
	a := m.awaited.Load()
	if a == nil {
		return ack, false
	}
	i := slices.IndexFunc(d.Maps, func(env candmap.Envelope) bool { return env.Hash() == a.hash })
	if i < 0 || !m.awaited.CompareAndSwap(a, nil) {
		return ack, false
	}
	if refused != nil {
		var err error
		if ack, err = m.takeTrusted(ctx, a.hash, &find{env: d.Maps[i], docs: d.Docs}); err != nil {
			m.log.Warn("the map that local root vouches for is refused", zap.Error(err))
			return ack, false
		}
	}
	a.took <- ack
	return ack, true
}
