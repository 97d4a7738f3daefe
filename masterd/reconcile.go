package masterd

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// reconcilePause is how long the reconciler rests when nothing pokes it.
const reconcilePause = time.Second

// reconcile makes reality match the intent: nodes that are behind get the map,
// candidates that lack their certificate get it, raft gets the right servers.
func (l *leader) reconcile(ctx context.Context) error {
	for {
		l.publishHead(ctx)
		l.catchUp(ctx)
		if l.renewOwn(ctx) {
			l.ensureKeys(ctx)
			l.ensureSSHKeys(ctx)
			l.ensureCertificates(ctx)
		}
		l.raiseLevel(ctx)
		l.promoteAgain(ctx)
		moved, err := l.stepVoters(ctx)
		if err != nil && ctx.Err() == nil {
			l.log.Warn("raft membership does not follow the map yet", zap.Error(err))
		}
		if moved && err == nil {
			continue
		}
		timer := time.NewTimer(reconcilePause)
		select {
		case <-l.wake:
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// publishHead publishes what was committed by a call that ended before it was
// published.
func (l *leader) publishHead(ctx context.Context) {
	if !l.unpublished() {
		return
	}
	head := l.node.State().Head().Version
	if _, err := l.publish(ctx, head, nil); err != nil && ctx.Err() == nil {
		l.log.Warn("a committed map is not published yet", zap.Stringer("version", head), zap.Error(err))
	}
}

// catchUp delivers the newest map to the nodes that answered with an older one
// or that lack roster documents. Those that were given up are tried too, and
// nobody waits for them.
func (l *leader) catchUp(ctx context.Context) {
	st, held := l.node.State(), l.held()
	what := rpc.MapDelivery{Maps: []candmap.Envelope{held.Envelope}, Docs: docsOf(st.Roster())}.Shared()
	var all sync.WaitGroup
	for _, n := range st.SortedNodes() {
		c := l.push.reach.of(n.UUID)
		behind := held.At().Newer(c.ack.Version) || len(c.ack.Missing) > 0 || !c.enforces()
		if n.Flags.Offline || !behind || l.now().Sub(c.asked) < c.rest() {
			continue
		}
		l.push.reach.asking(n.UUID, l.now())
		one := func() { l.catchUpOne(ctx, n, held.At(), what) }
		if c.givenUp() {
			l.push.start(one)
		} else {
			all.Go(one)
		}
	}
	all.Wait()
}

func (l *leader) catchUpOne(ctx context.Context, n *state.Node, at cluster.Version, what rpc.MapDelivery) {
	ack, err := l.push.toOne(ctx, n.UUID, what)
	switch {
	case err != nil:
		l.log.Debug("node is behind and does not take the map", zap.String("node", string(n.Name)), zap.Error(err))
		return
	case !enforces(ack):
		l.log.Warn("node holds the map and does not follow all of it", zap.String("node", string(n.Name)), zap.Strings("problems", ack.Problems))
		return
	}
	l.log.Info("node caught up", zap.String("node", string(n.Name)), zap.Stringer("version", at))
}
