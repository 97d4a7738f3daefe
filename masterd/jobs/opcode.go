package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"rolekey/masterd/roles"
	"rolekey/masterd/state"
)

var errUnreadable = &roles.PrereqError{Class: roles.WrongInput, Msg: "The opcode is not readable"}

func prereq(class roles.Class, format string, args ...any) *roles.PrereqError {
	return &roles.PrereqError{Class: class, Msg: fmt.Sprintf(format, args...)}
}

// done is the update that goes into the one commit of an opcode that has
// nothing left to do after it, so that the next master does not begin it again.
func (r *run) done(result json.RawMessage) *state.JobUpdate {
	u := r.update
	u.Status = state.JobRunning
	u.OpStatus, u.OpResult = slices.Clone(u.OpStatus), slices.Clone(u.OpResult)
	u.OpStatus[r.op], u.OpResult[r.op] = state.JobSuccess, result
	return &u
}

// rehearse says what the steps of a plan would do, after the checks that change
// nothing.
func (r *run) rehearse(ctx context.Context, p roles.Plan, results [][2]string) (json.RawMessage, error) {
	for _, step := range p.Steps {
		switch step.Kind {
		case roles.StepProbe:
			if err := r.probe(ctx, p); err != nil {
				return nil, err
			}
		case roles.StepCommit:
			if p.Remove {
				r.wouldDo(fmt.Sprintf("remove node %s from the cluster", p.Name))
			} else if p.OldRole != p.NewRole {
				r.wouldDo(fmt.Sprintf("change the role of node %s from %s to %s", p.Name, p.OldRole, p.NewRole))
			} else {
				r.wouldDo(fmt.Sprintf("change flags of node %s", p.Name))
			}
		case roles.StepKeysCreate:
			r.wouldDo(fmt.Sprintf("have node %s make candidate keys", p.Name))
		case roles.StepKeysDestroy:
			r.wouldDo(fmt.Sprintf("have node %s destroy its candidate keys", p.Name))
		case roles.StepLeave:
			r.wouldDo(fmt.Sprintf("tell node %s that it is removed, and change the gossip key", p.Name))
		case roles.StepPool:
			if !roles.MayPromote(r.c.State(), r.remote) {
				continue
			}
			r.wouldDo("promote other nodes if the candidate pool lacks some")
		}
	}
	return json.Marshal(results)
}

// wouldDo says what a dry run leaves undone.
func (r *run) wouldDo(text string) { r.say(" - INFO: Dry run: would " + text) }

func pairs(flags []roles.Flag) [][2]string {
	out := [][2]string{}
	for _, f := range flags {
		out = append(out, f.Pair())
	}
	return out
}
