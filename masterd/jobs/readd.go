package jobs

import (
	"context"
	"encoding/json"
	"fmt"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
)

// OpNodeReadd prepares a node to be added again, after its machine was set up
// anew or has lost its disk. Ganeti does that within OP_NODE_ADD.
const OpNodeReadd = "OP_NODE_READD"

// nodeReadd takes away what the node's former life can do. A candidate is set
// offline: nobody waits for it then, and it is not promoted again before the
// new life has begun. Another node has no power to take away. What is left, the
// identity, is replaced at the admission.
func nodeReadd(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	var op opNode
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	s := r.c.State()
	n, err := roles.Find(s, op.Node)
	if err != nil {
		return nil, prereq(roles.UnknownEntity, "Node %.64s is not in the configuration", op.Node)
	}
	if n.UUID == s.Master {
		p := prereq(roles.WrongState, "Cannot readd the master node")
		p.Hint = "make another candidate the master first: gnt-cluster master-failover on it"
		return nil, p
	}
	if !n.Flags.MasterCandidate {
		return json.Marshal([][2]string{})
	}
	if err := r.before(ctx, n, true); err != nil {
		return nil, err
	}
	return r.carryOut(ctx, readdPlan(r.c.State(), n))
}

func readdPlan(s *state.State, n *state.Node) roles.Plan {
	p := roles.Plan{
		Node: n.UUID, Name: n.Name, OldFlags: n.Flags, NewFlags: n.Flags, OldRole: s.Role(n.UUID), NewRole: cluster.RoleOffline,
		Steps: []roles.Step{
			{Kind: roles.StepCommit, Node: n.UUID},
			{Kind: roles.StepPublish, Node: n.UUID},
			{Kind: roles.StepKeysDestroy, Node: n.UUID, MayFail: true},
		},
		Results: []roles.Flag{{Name: "master_candidate"}, {Name: "offline", Value: true}},
	}
	p.NewFlags.MasterCandidate, p.NewFlags.Drained, p.NewFlags.Offline = false, false, true
	p.Messages = []roles.Message{{Text: fmt.Sprintf("Node %s is set offline until it has joined again", n.Name)}}
	return p
}
