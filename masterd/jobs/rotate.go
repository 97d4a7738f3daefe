package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
)

// sharing reports whether candidates hold an SSH key that others hold too.
func (r *run) sharing() bool {
	s := r.c.State()
	return s.Params.SSHSetup && (s.Params.SSHKeyMode == cluster.KeyShared || len(s.Shared) > 0)
}

// rotates adds the replacement of the shared key to the steps that follow the
// loss of a role, before any that waits for the node itself: until it is
// replaced, what the node knows opens the others from one another's addresses.
func (r *run) rotates(left *resume) {
	switch {
	case !r.sharing():
		return
	case r.keep:
		r.say(fmt.Sprintf(" - WARNING: Node %s knows the SSH key that the master candidates share, and this key is not replaced: "+
			"whoever has it and one of their addresses can still log in to every node, so that G4 does not hold", left.Node.Name))
		return
	}
	left.Retire, left.Now = roles.SharedSSHKeys(r.c.State()), true
	at := slices.IndexFunc(left.Steps, func(s roles.Step) bool { return s.Kind != roles.StepPublish })
	if at < 0 {
		at = len(left.Steps)
	}
	left.Steps = slices.Insert(slices.Clone(left.Steps), at, roles.Step{Kind: stepRoll})
}

// clusterKeys brings the SSH keys of the candidates to what the parameters want.
// The master asks for it when it finds that some are not: a node was away when
// they were replaced, or has lost its key.
func clusterKeys(ctx context.Context, r *run, _ json.RawMessage) (json.RawMessage, error) {
	if r.dry {
		r.wouldDo("bring the SSH keys of the master candidates to what the parameters want")
		return json.RawMessage("null"), nil
	}
	left := &resume{Op: r.op, Results: [][2]string{}, Steps: []roles.Step{{Kind: stepRoll}}}
	return r.enact(ctx, left, func(u *state.JobUpdate) (string, any) { return state.KindJobUpdate, *u })
}

// rollFor returns the steps that a change of parameters needs for the SSH keys,
// and the keys that must go with it.
func rollFor(s *state.State, after state.Params) (steps []roles.Step, retire []cluster.SSHKey) {
	before, next := s.Params.SSH(), after.SSH()
	moved := before.Storage != next.Storage
	if s.Params.SSHSetup != after.SSHSetup || before.KeyMode != next.KeyMode || before.KeySpec() != next.KeySpec() || moved {
		steps = []roles.Step{{Kind: stepRoll}}
	}
	if moved { // a key that was on a disk must not go on as one that never was
		retire = roles.SharedSSHKeys(s)
	}
	return steps, retire
}
