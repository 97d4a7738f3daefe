package jobs

import (
	"context"
	"encoding/json"
	"fmt"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
)

// clusterSetParams changes the cluster's parameters: Ganeti's
// LUClusterSetParams. A larger pool is filled, a smaller one is left alone.
func clusterSetParams(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	var op struct {
		state.ParamsPatch
		opSSH
		RAPI bool `json:"rapi"`
	}
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	s := r.c.State()
	if err := op.opSSH.into(s, &op.ParamsPatch); err != nil {
		return nil, err
	}
	if err := roles.CheckParams(s, op.ParamsPatch, op.RAPI); err != nil {
		return nil, err
	}
	after := s.Params.Patch(op.ParamsPatch)
	left := &resume{Op: r.op, Results: [][2]string{}}
	if after.CandidatePoolSize != s.Params.CandidatePoolSize {
		left.Steps = []roles.Step{{Kind: roles.StepPool}}
		if m, ok := roles.StayNotice(s, after.CandidatePoolSize); ok {
			r.say(m.String())
		}
	}
	roll, retire := rollFor(s, after)
	left.Steps, left.Retire = append(roll, left.Steps...), retire
	for _, m := range roles.ParamsNotices(s.Params, after) {
		r.say(m.String())
	}
	return r.commitCluster(ctx, state.KindParamsChange, left, func(u *state.JobUpdate) any {
		return state.ParamsChange{Params: op.ParamsPatch, Job: u}
	})
}

// opSSH are fields of OpClusterSet by Ganeti's names. It has them at init alone.
type opSSH struct {
	Setup *bool   `json:"modify_ssh_setup"`
	Type  *string `json:"ssh_key_type"`
	Bits  *int    `json:"ssh_key_bits"`
}

// into adds what they ask for. Bits without a type are of the type that there
// is, and the same type without bits leaves these as they are.
func (op opSSH) into(s *state.State, p *state.ParamsPatch) error {
	if op.Setup != nil {
		p.SSHSetup = op.Setup
	}
	if op.Type == nil && op.Bits == nil {
		return nil
	}
	spec := s.Params.SSH().KeySpec()
	if op.Type != nil && *op.Type != spec.Type {
		spec = cluster.SSHKeySpec{Type: *op.Type}
	}
	if op.Bits != nil {
		spec.Bits = *op.Bits
	}
	spec, err := cluster.ParseSSHKeySpec(spec.Type, spec.Bits)
	if err != nil {
		return prereq(roles.WrongInput, "%v", err)
	}
	p.SSHKey = &spec
	return nil
}

// clusterRename changes the cluster's name. Its UUID, which everything is bound
// to, stays.
func clusterRename(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	var op struct {
		Name cluster.Name `json:"name"`
	}
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, &roles.PrereqError{Class: roles.WrongInput, Msg: fmt.Sprintf("The new name of the cluster is not valid: %v", err)}
	}
	if op.Name == r.c.State().Cluster.Name {
		return nil, &roles.PrereqError{Class: roles.WrongInput, Msg: "Neither the name nor the IP address of the cluster has changed"}
	}
	left := &resume{Op: r.op, Results: [][2]string{}}
	return r.commitCluster(ctx, state.KindClusterChange, left, func(u *state.JobUpdate) any {
		return state.ClusterChange{Name: &op.Name, Job: u}
	})
}

// commitCluster makes a change of the cluster as a whole and notes, in the same
// entry, what is left to do.
func (r *run) commitCluster(ctx context.Context, kind string, left *resume, body func(*state.JobUpdate) any) (json.RawMessage, error) {
	if r.dry {
		return r.rehearseCluster(kind, left, body(nil))
	}
	if err := r.before(ctx, nil, false); err != nil {
		return nil, err
	}
	left.Steps = append(left.Steps, postStep(cluster.NodeID{}))
	result, err := r.enact(ctx, left, func(u *state.JobUpdate) (string, any) { return kind, body(u) })
	if err != nil {
		return nil, asPrereq(err)
	}
	return result, nil
}

// rehearseCluster says what a change would do, if it fits.
func (r *run) rehearseCluster(kind string, left *resume, body any) (json.RawMessage, error) {
	if _, err := state.Propose(r.c.State(), kind, body, state.Meta{Time: r.c.Now()}); err != nil {
		return nil, asPrereq(err)
	}
	r.wouldDo("change the cluster, and publish a new map if that says something else")
	for _, step := range left.Steps {
		switch step.Kind {
		case stepRoll:
			r.wouldDo("replace the SSH keys of the master candidates")
		case roles.StepPool:
			r.wouldDo("fill the candidate pool")
		}
	}
	return json.Marshal(left.Results)
}

// asPrereq gives a command that did not fit the form in which Ganeti tells that
// nothing was changed.
func asPrereq(err error) error {
	class := map[cluster.Code]roles.Class{
		cluster.CodeConflict: roles.WrongState, cluster.CodeBadFormat: roles.WrongInput, cluster.CodeTooLarge: roles.WrongInput,
	}[cluster.CodeOf(err)]
	if class == "" {
		return err
	}
	return &roles.PrereqError{Class: class, Msg: err.Error(), Hint: cluster.HintOf(err)}
}
