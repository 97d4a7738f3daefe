package masterd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/task"
	"rolekey/masterd/consensus"
	"rolekey/masterd/hooks"
	"rolekey/masterd/state"
	"rolekey/masterd/verify"
	"rolekey/rpc"
)

// leader is the work of the elected master. It lives for one term: its context
// ends when leadership ends, and everything it started ends with it.
type leader struct {
	node    *consensus.Node
	self    cluster.NodeID
	keeper  *candmap.Keeper
	push    *pusher
	sign    signFunc
	nodes   nodeKeys
	ask     verify.Nodes
	repairs nodeRepairs
	settles nodeLogins
	scripts hooks.Asker
	alive   func(ctx context.Context, voter cluster.NodeID) bool // its masterd answers
	evicts  func(cluster.NodeID) bool                            // nil: nobody
	client  *rpc.Client
	levelOf func(ctx context.Context, node cluster.NodeID, d rpc.Daemon) int // highest feature level that the daemon knows; 0: it does not answer
	own     ownCert                                                          // nil: it is not looked at
	clock   *clock
	log     *zap.Logger
	audit   *audit.Log
	work    func(ctx context.Context, l *leader) error // runs the jobs

	term       context.Context // ends with the term; publications live in it
	publishing chan struct{}   // held by whoever collects signatures of maps
	moving     chan struct{}   // held by whoever gives and takes votes
	pinning    chan struct{}   // held by whoever changes the pins of certificates
	wake       chan struct{}
	admitting  chan struct{} // held by whoever asks hooks about a new node
	ready      chan struct{} // closes when this node has named itself master
	ensured    map[cluster.NodeID]ensured
	certs      certWatch
	rolled     time.Time                    // when a job was last given to replace SSH keys
	rollWait   time.Duration                // how long the next one waits
	levelAsked time.Time                    // when the nodes were asked last whether they are upgraded
	again      map[cluster.NodeID]time.Time // when a job was last given to promote a node again
	former     cluster.NodeID               // the master before this one; zero: this node was it
}

// nodeRepairs has nodes put their own files right.
type nodeRepairs interface {
	Repair(ctx context.Context, node cluster.NodeID) (rpc.RepairReply, error)
}

// nodeLogins has nodes wait for logins by SSH.
type nodeLogins interface {
	SSHSettle(ctx context.Context, node cluster.NodeID, r rpc.SSHSettleRequest) (rpc.SSHSettleReply, error)
}

// run leads until ctx ends or something fails; then raft elects again.
func (l *leader) run(ctx context.Context) error {
	defer l.push.wait()
	l.term = ctx
	if err := l.takeOffice(ctx); err != nil {
		return fmt.Errorf("take office: %w", err)
	}
	close(l.ready)
	defer l.auditOffice()()
	g := task.New(ctx)
	g.Go("beacons", l.beacons)
	g.Go("reconcile", l.reconcile)
	if !l.former.IsZero() {
		g.Go("hooks", func(ctx context.Context) error { l.failoverHooks(ctx, l.former); return nil })
	}
	g.Go("jobs", func(ctx context.Context) error { return l.work(ctx, l) })
	return g.Wait()
}

// officePatience bounds how long taking office waits for nodes to take a map:
// one of them is the master that died.
const officePatience = 500 * time.Millisecond

// takeOffice publishes what an earlier master committed and could not publish,
// has the clock confirmed, and then names this node master.
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
		if err := l.completeHead(ctx, st); err != nil {
			return err
		}
	}
	// Before anything is committed under its time, a majority confirms it.
	switch env, err := l.makeBeacon(ctx, beaconTimeout); {
	case errors.Is(err, errClockOnly):
		l.log.Warn("voters have evicted the master that the map names: there is no beacon before the next map")
	case err != nil:
		return err
	default:
		l.push.start(func() { l.deliverBeacon(ctx, env, beaconTimeout) })
	}
	if st.Master == l.self {
		return nil
	}
	result, err := l.commit(ctx, state.KindSetMaster, state.SetMaster{Node: l.self}, l.meta(selfActor, rpc.NewRequestID()))
	if err != nil {
		return err
	}
	l.former = st.Master
	l.node.Kick()
	return l.publishBriefly(ctx, result.Version)
}

// completeHead publishes what an earlier master committed. What names an evicted
// one is not delivered: the next map, which names this node, follows at once.
func (l *leader) completeHead(ctx context.Context, st *state.State) error {
	if !l.evicted(st.Master) {
		return l.publishBriefly(ctx, st.Head().Version)
	}
	_, err := l.prove(ctx, st.Head().Version)
	return err
}

// evicted reports whether root on this node has evicted another.
func (l *leader) evicted(id cluster.NodeID) bool { return l.evicts != nil && l.evicts(id) }

// publishBriefly publishes and does not wait for all nodes to answer.
func (l *leader) publishBriefly(ctx context.Context, v cluster.Version) error {
	d, err := l.prove(ctx, v)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	if !l.push.start(func() { defer close(ended); l.push.toAll(ctx, d, nil) }) {
		return errClosing
	}
	limit := time.NewTimer(officePatience)
	defer limit.Stop()
	select {
	case <-ended:
	case <-limit.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// now is the time that counts while this node leads.
func (l *leader) now() time.Time { return l.clock.now() }

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
