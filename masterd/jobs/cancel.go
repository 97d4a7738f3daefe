package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// Whoever wants a job gone sets its status to canceling, and the log decides
// whether that came in time: the commit of a job sets its status to running,
// which the state refuses from then on. So a job whose status is canceling and
// that has not committed anything never will. Such a job is doomed; all that is
// left is to say that it is canceled, and, if it is under way, to let it go.

// CancelingUpdate is the update that asks for the end of a job.
func CancelingUpdate(id int64) state.JobUpdate {
	return state.JobUpdate{ID: id, Status: state.JobCanceling}
}

// Cancelable returns why a job cannot be canceled any more, or nil.
func Cancelable(s *state.State, id int64) error {
	switch j := s.Jobs[id]; {
	case j == nil:
		return cluster.Errorf(cluster.CodeNotFound, "Job %d not found", id)
	case !j.Status.Ended() && Renews(j): // it goes back to what was, while that can be done
		return nil
	case j.Status.Ended() || changedSomething(j):
		return cluster.Errorf(cluster.CodeConflict, "Job %d is no longer waiting in the queue", id)
	}
	return nil
}

func doomed(j *state.Job) bool { return j.Status == state.JobCanceling && !changedSomething(j) }

// changedSomething reports whether a job has committed a change: a commit notes
// the steps that are left, or that its opcode has succeeded.
func changedSomething(j *state.Job) bool {
	return j.Step != "" || slices.Contains(j.OpStatus, state.JobSuccess)
}

// errCanceled ends what is under way of a job that is to end.
var errCanceled = errors.New("the job is canceled")

// bury cancels the jobs that are doomed, until ctx ends. The one that is under
// way notices by itself.
func (r *Runner) bury(ctx context.Context) error {
	for {
		changed := r.c.Watch()
		for j := range r.c.State().ActiveJobs() {
			if !doomed(j) {
				continue
			}
			update := state.JobUpdate{ID: j.ID, Status: state.JobCanceled}
			_, err := r.c.Change(ctx, state.KindJobUpdate, update, j.Actor, j.RequestID)
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.Is(err, &cluster.Error{Code: cluster.CodeConflict}), errors.Is(err, &cluster.Error{Code: cluster.CodeNotFound}):
				// It has ended meanwhile.
			case err != nil:
				return fmt.Errorf("cancel job %d: %w", j.ID, err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// whileWanted returns a context that ends when the job is doomed or has ended.
// stop waits for what watches it.
func (r *Runner) whileWanted(ctx context.Context, id int64) (wanted context.Context, stop func()) {
	wanted, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			changed := r.c.Watch()
			if r.gone(id) {
				cancel(errCanceled)
			}
			select {
			case <-changed:
			case <-wanted.Done():
				return
			}
		}
	}()
	return wanted, func() {
		cancel(context.Canceled)
		<-done
	}
}

// gone reports whether nothing more may be done for a job.
func (r *Runner) gone(id int64) bool {
	j := r.c.State().Jobs[id]
	return j == nil || j.Status.Ended() || doomed(j)
}

// canceling reports whether the job is to end before its next opcode.
func (r *run) canceling() bool {
	j := r.c.State().Jobs[r.job.ID]
	return j != nil && j.Status == state.JobCanceling
}

// committed reports whether the opcode under way has made its change.
func (r *run) committed() bool {
	j := r.c.State().Jobs[r.job.ID]
	return j != nil && (leftOf(j, r.op) != nil || j.OpStatus[r.op] == state.JobSuccess)
}
