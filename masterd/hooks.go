package masterd

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/masterd/hooks"
	"rolekey/masterd/rapi"
	"rolekey/masterd/roles"
	"rolekey/masterd/verify"
	"rolekey/rpc"
)

// hooks has nodes run the scripts of one phase of an operation.
func (l *leader) hooks(ctx context.Context, c hooks.Call) hooks.Report {
	began := time.Now()
	report := hooks.Run(ctx, l.scripts, l.node.State(), c, func(id cluster.NodeID) bool {
		return l.push.reach.of(id).failures > 0
	})
	l.log.Debug("hooks", zap.String("hook", c.Hook), zap.String("phase", c.Phase), zap.Int("results", len(report)), zap.Duration("took", time.Since(began)))
	return report
}

// verifier is what verify asks: nodes, and the hooks on them.
type verifier struct {
	verify.Nodes
	w worker
}

// Hooks implements verify.Asker.
func (v verifier) Hooks(ctx context.Context, away func(cluster.NodeID) bool) hooks.Report {
	return hooks.Run(ctx, v.w.l.scripts, v.w.State(), hooks.Call{Op: hooks.Verify(v.w.State()), Phase: rpc.HooksPost}, away)
}

// Voting implements verify.Asker.
func (v verifier) Voting(ctx context.Context) roles.View { return v.w.Voting(ctx) }

// failoverHooks runs the post phase of a change of master, on the new one. It
// is run at most once: a master that dies in it is followed by another change.
func (l *leader) failoverHooks(ctx context.Context, old cluster.NodeID) {
	st := l.node.State()
	var name cluster.Name
	if n := st.Node(old); n != nil {
		name = n.Name
	}
	report := hooks.Run(ctx, l.scripts, st, hooks.Call{Op: hooks.Failover(st, name), Phase: rpc.HooksPost}, nil)
	for _, w := range report.Warnings() {
		l.log.Warn("hooks of the change of master", zap.String("problem", w))
	}
}

// mayAdmit runs the pre phase of node-add, before the admission string is made.
// One at a time: a node runs the scripts of few calls at once.
func (l *leader) mayAdmit(ctx context.Context, spec rapi.AdmitSpec) error {
	select {
	case l.admitting <- struct{}{}:
		defer func() { <-l.admitting }()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.term.Done():
		return errClosing
	}
	flags := cluster.Flags{
		MasterCapable: spec.MasterCapable == nil || *spec.MasterCapable, VMCapable: spec.VMCapable == nil || *spec.VMCapable,
	}
	addresses, _ := spec.Apply(spec.Addresses, cluster.Ports{})
	op := hooks.NodeAdd(spec.Name, addresses, flags)
	op.Nodes = hooks.All(l.node.State())
	report := l.hooks(ctx, hooks.Call{Op: op, Phase: rpc.HooksPre})
	err := report.Veto()
	var veto *hooks.Abort
	if errors.As(err, &veto) {
		return cluster.Errorf(cluster.CodeHooksFailed, "%v", veto)
	}
	for _, w := range report.Warnings() {
		l.log.Warn("hooks of node-add", zap.String("problem", w))
	}
	return nil
}
