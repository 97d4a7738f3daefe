package jobs

import (
	"context"
	"encoding/json"
	"fmt"

	"rolekey/cluster"
	"rolekey/masterd/roles"
)

// stepPromote is the second half of a re-keying.
const stepPromote roles.StepKind = "promote"

// nodeRekey gives a candidate that has lost its keys a new set: it loses the
// role, and with it whatever its old keys could do, and gets it again.
func nodeRekey(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	var op opNode
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	s := r.c.State()
	n, err := roles.Find(s, op.Node)
	if err != nil {
		return nil, err
	}
	if !n.Flags.MasterCandidate || n.UUID == s.Master {
		return json.Marshal([][2]string{}) // its role has changed meanwhile
	}
	p := roles.Plan{
		Node: n.UUID, Name: n.Name, OldFlags: n.Flags, NewFlags: n.Flags, OldRole: s.Role(n.UUID), NewRole: cluster.RoleRegular,
		Steps: []roles.Step{
			{Kind: roles.StepCommit, Node: n.UUID},
			{Kind: roles.StepPublish, Node: n.UUID},
			{Kind: roles.StepKeysDestroy, Node: n.UUID, MayFail: true},
			{Kind: stepPromote, Node: n.UUID},
		},
	}
	p.NewFlags.MasterCandidate = false
	r.say(fmt.Sprintf(" - WARNING: Node %s has lost its candidate keys and gets new ones", n.Name))
	return r.carryOut(ctx, p)
}
