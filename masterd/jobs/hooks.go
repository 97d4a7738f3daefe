package jobs

import (
	"context"
	"encoding/json"
	"maps"

	"rolekey/cluster"
	"rolekey/masterd/hooks"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// stepHooks is the last step of an operation: its post phase. A master that
// dies in it leaves it to the next one, which runs all of it again. An older
// build that resumes the job passes it over.
const stepHooks roles.StepKind = "hooks"

// hookOps are the operations that have hooks. A node is as it was before the
// change; an operation on the cluster has none.
var hookOps = map[string]func(s *state.State, op opNode, n *state.Node) hooks.Op{
	OpNodeSetParams: func(s *state.State, op opNode, n *state.Node) hooks.Op {
		return hooks.Op{Hook: rpc.HookNodeModify, Nodes: []cluster.NodeID{s.Master, n.UUID}, Vars: map[string]string{
			"MASTER_CANDIDATE": hooks.Flag(op.MasterCandidate), "OFFLINE": hooks.Flag(op.Offline), "DRAINED": hooks.Flag(op.Drained),
			"MASTER_CAPABLE": hooks.Flag(op.MasterCapable), "VM_CAPABLE": hooks.Flag(op.VMCapable),
		}}
	},
	OpNodeRename: func(s *state.State, _ opNode, n *state.Node) hooks.Op {
		return hooks.Op{Hook: rpc.HookNodeModify, Nodes: []cluster.NodeID{s.Master, n.UUID}}
	},
	OpNodeAdd:   hookAdd,
	OpNodeReadd: hookAdd,
	OpNodeRemove: func(s *state.State, _ opNode, n *state.Node) hooks.Op {
		return hooks.Op{Hook: rpc.HookNodeRemove, Nodes: hooks.All(s, n.UUID)} // a dead node must be removable
	},
	OpClusterSet: func(s *state.State, _ opNode, _ *state.Node) hooks.Op {
		return hooks.OnMaster(s, rpc.HookClusterModify)
	},
	OpClusterRename: func(s *state.State, _ opNode, _ *state.Node) hooks.Op {
		return hooks.OnMaster(s, rpc.HookClusterRename)
	},
}

func hookAdd(s *state.State, _ opNode, n *state.Node) hooks.Op {
	op := hooks.NodeAdd(n.Name, n.Addresses, n.Flags)
	op.Nodes = hooks.All(s)
	return op
}

// hookOp returns what hooks are told of the opcode under way.
func (r *run) hookOp(n *state.Node) (op hooks.Op, ok bool) {
	var head struct {
		ID string `json:"OP_ID"`
		opNode
	}
	if err := json.Unmarshal(r.job.Ops[r.op], &head); err != nil || hookOps[head.ID] == nil || r.dry {
		return op, false
	}
	op = hookOps[head.ID](r.c.State(), head.opNode, n)
	op.Code = head.ID
	op.Vars = maps.Clone(op.Vars)
	if op.Vars == nil {
		op.Vars = map[string]string{}
	}
	if n != nil {
		op.Vars["OP_TARGET"], op.Vars["NODE_NAME"] = string(n.Name), string(n.Name)
	}
	return op, true
}

// perform carries out a plan between the two phases of its hooks. The pre
// phase takes its time, so that the plan is made anew after it.
func (r *run) perform(ctx context.Context, plan func(*state.State) (roles.Plan, error)) (json.RawMessage, error) {
	p, err := plan(r.c.State())
	if err != nil {
		return nil, err
	}
	if n := r.c.State().Node(p.Node); n != nil && !p.NoOp() && !r.dry {
		if err := r.before(ctx, n); err != nil {
			return nil, err
		}
		if p, err = plan(r.c.State()); err != nil {
			return nil, err
		}
	}
	return r.carryOut(ctx, withPost(p))
}

// withPost appends the post phase to a plan that changes something.
func withPost(p roles.Plan) roles.Plan {
	if !p.NoOp() {
		p.Steps = append(p.Steps, postStep(p.Node))
	}
	return p
}

// postStep is the step of the post phase; the zero node means the cluster.
func postStep(id cluster.NodeID) roles.Step {
	return roles.Step{Kind: stepHooks, Node: id, MayFail: true}
}

// before runs the pre phase. Its error is a veto: nothing has been done yet.
func (r *run) before(ctx context.Context, n *state.Node) error {
	op, ok := r.hookOp(n)
	if !ok {
		return nil
	}
	r.idle = new(hooks.Idle)
	report := r.c.Hooks(ctx, hooks.Call{Op: op, Phase: rpc.HooksPre, Idle: r.idle})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	veto := report.Veto()
	if veto == nil {
		r.warnOf(report)
	}
	return veto
}

// postHooks runs the post phase, which changes nothing any more.
func (r *run) postHooks(ctx context.Context, n *state.Node) {
	if n.UUID.IsZero() {
		n = nil
	}
	op, ok := r.hookOp(n)
	if !ok {
		return
	}
	c := hooks.Call{Op: op, Phase: rpc.HooksPost, After: map[string]string{}, Idle: r.idle}
	if n != nil {
		if now := r.c.State().Node(n.UUID); now != nil {
			c.After = hooks.NodeNow(now)
		}
	}
	r.warnOf(r.c.Hooks(ctx, c))
}

func (r *run) warnOf(report hooks.Report) {
	for _, w := range report.Warnings() {
		r.say(" - WARNING: " + w)
	}
}
