package masterd

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/task"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/masterd/verify"
	"rolekey/rpc"
)

// leader is the work of the elected master. It lives for one term: its context
// ends when leadership ends, and everything it started ends with it.
type leader struct {
	node   *consensus.Node
	self   cluster.NodeID
	keeper *candmap.Keeper
	push   *pusher
	sign   signFunc
	nodes  nodeKeys
	ask    verify.Asker
	client *rpc.Client
	now    func() time.Time
	log    *zap.Logger
	work   func(ctx context.Context, l *leader) error // runs the jobs

	publishing chan struct{} // held by whoever publishes
	wake       chan struct{}
	ready      chan struct{} // closes when this node has named itself master
	ensured    map[cluster.NodeID]cluster.Digest
}

// run leads until ctx ends or something fails; then raft elects again.
func (l *leader) run(ctx context.Context) error {
	defer l.push.wait()
	if err := l.takeOffice(ctx); err != nil {
		return fmt.Errorf("take office: %w", err)
	}
	close(l.ready)
	g := task.New(ctx)
	g.Go("beacons", l.beacons)
	g.Go("reconcile", l.reconcile)
	g.Go("jobs", func(ctx context.Context) error { return l.work(ctx, l) })
	return g.Wait()
}

// takeOffice publishes what an earlier master committed and could not publish,
// and then names this node master.
func (l *leader) takeOffice(ctx context.Context) error {
	if err := l.node.Barrier(ctx); err != nil {
		return err
	}
	st := l.node.State()
	if !st.Founded() {
		return fmt.Errorf("the log holds no cluster")
	}
	if head := st.Head().Version; head.Newer(l.held().At()) {
		l.log.Info("completing unpublished map versions", zap.Stringer("head", head))
		if _, err := l.publish(ctx, head, nil); err != nil {
			return err
		}
	}
	if st.Master == l.self {
		return nil
	}
	_, _, err := l.change(ctx, state.KindSetMaster, state.SetMaster{Node: l.self}, l.meta("masterd", ""), nil)
	return err
}

// meta stamps a command.
func (l *leader) meta(actor, request string) state.Meta {
	return state.Meta{Time: candmap.Stamp(l.now()), Actor: actor, RequestID: request}
}

// held returns the newest map that this node can prove.
func (l *leader) held() *candmap.Verified { return l.keeper.View().Map }

// poke makes the reconciler look at once.
func (l *leader) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
