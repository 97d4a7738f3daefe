package jobs

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

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
var hookOps = map[string]func(s *state.State, op opHook, n *state.Node) hooks.Op{
	OpNodeSetParams: hookModify,
	OpNodeRename:    hookModify,
	OpNodeAdd:       hookAdd,
	OpNodeReadd:     hookAdd,
	OpNodeRemove: func(s *state.State, _ opHook, n *state.Node) hooks.Op {
		return hooks.Op{Hook: rpc.HookNodeRemove, Nodes: hooks.All(s, n.UUID)} // a dead node must be removable
	},
	OpClusterSet: func(s *state.State, _ opHook, _ *state.Node) hooks.Op {
		return hooks.OnMaster(s, rpc.HookClusterModify)
	},
	OpClusterRenew: func(s *state.State, _ opHook, _ *state.Node) hooks.Op {
		return hooks.OnMaster(s, rpc.HookClusterRenew)
	},
	OpClusterRename: func(s *state.State, op opHook, _ *state.Node) hooks.Op {
		o := hooks.OnMaster(s, rpc.HookClusterRename)
		if name, err := cluster.ParseName(op.Name); err == nil {
			o.Vars["NEW_NAME"] = string(name)
		}
		return o
	},
}

// opHook are the fields of opcodes that hooks are told.
type opHook struct {
	ID string `json:"OP_ID"`
	opNode
	New  string `json:"new_name"`
	Name string `json:"name"`
}

// hookModify is a change of a node that stays in the cluster.
func hookModify(s *state.State, op opHook, n *state.Node) hooks.Op {
	out := hooks.Op{Hook: rpc.HookNodeModify, Nodes: []cluster.NodeID{s.Master, n.UUID}, Vars: map[string]string{
		"MASTER_CANDIDATE": hooks.Flag(op.MasterCandidate), "OFFLINE": hooks.Flag(op.Offline), "DRAINED": hooks.Flag(op.Drained),
		"MASTER_CAPABLE": hooks.Flag(op.MasterCapable), "VM_CAPABLE": hooks.Flag(op.VMCapable),
	}}
	maps.Copy(out.Vars, hooks.Place("NODE_", n.Addresses))
	if name, err := cluster.ParseName(op.New); err == nil {
		out.Vars["NEW_NAME"] = string(name)
	}
	if addrs, err := op.wanted(n); err == nil && !slices.Equal(addrs, n.Addresses) {
		maps.Copy(out.Vars, hooks.Place("NEW_", addrs))
	}
	return out
}

func hookAdd(s *state.State, _ opHook, n *state.Node) hooks.Op {
	op := hooks.NodeAdd(n.Name, n.Addresses, n.Flags)
	op.Nodes = hooks.All(s)
	return op
}

// hookOp returns what hooks are told of the opcode under way.
func (r *run) hookOp(n *state.Node) (op hooks.Op, ok bool) {
	var head opHook
	if err := json.Unmarshal(r.job.Ops[r.op], &head); err != nil || hookOps[head.ID] == nil || r.dry {
		return op, false
	}
	op = hookOps[head.ID](r.c.State(), head, n)
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
		if err := r.before(ctx, n, loses(p)); err != nil {
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

// loses reports whether a plan takes a role away. Who is to lose one is not
// asked before: it could veto that, or gain time.
func loses(p roles.Plan) bool {
	was, is := p.OldFlags, p.NewFlags
	return p.Demotes() || is.Offline && !was.Offline || is.Drained && !was.Drained
}

// before runs the pre phase. Its error is a veto: nothing has been done yet.
func (r *run) before(ctx context.Context, n *state.Node, loses bool) error {
	op, ok := r.hookOp(n)
	if !ok {
		return nil
	}
	if loses {
		op.Nodes = slices.DeleteFunc(op.Nodes, func(id cluster.NodeID) bool { return id == n.UUID })
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
