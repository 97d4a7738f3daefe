package rapi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
)

// maxCancel is how long a request to cancel a job waits for its end.
const maxCancel = 5 * time.Second

func (a *api) cancel(r *http.Request) (any, error) {
	if err := a.b.Ready(); err != nil {
		return nil, err
	}
	id := jobID(r)
	err := a.b.Cancel(r.Context(), id, actor(r), requestID(r))
	tooLate := []any{false, fmt.Sprintf("Job %d is no longer waiting in the queue", id)}
	switch {
	case errors.Is(err, &cluster.Error{Code: cluster.CodeNotFound}):
		return []any{false, fmt.Sprintf("Job %d not found", id)}, nil
	case errors.Is(err, &cluster.Error{Code: cluster.CodeConflict}):
		return tooLate, nil
	case err != nil:
		return nil, a.outOfOffice(err)
	}
	switch a.afterCancel(r, id) {
	case state.JobCanceled:
		return []any{true, fmt.Sprintf("Job %d canceled", id)}, nil
	case state.JobSuccess, state.JobError:
		return tooLate, nil
	}
	return []any{true, fmt.Sprintf("Job %d will be canceled", id)}, nil
}

// afterCancel waits a moment for the end of a job that is being canceled, and
// returns its status. A job that is not there any more was canceled.
func (a *api) afterCancel(r *http.Request, id int64) state.JobStatus {
	limit := time.NewTimer(maxCancel)
	defer limit.Stop()
	for {
		changed := a.b.Watch() // before State, so that no change is missed
		s, err := a.b.State()
		if err != nil {
			return state.JobCanceling
		}
		j := s.Jobs[id]
		if j == nil {
			return state.JobCanceled
		}
		if j.Status.Ended() {
			return j.Status
		}
		select {
		case <-changed:
		case <-limit.C:
			return j.Status
		case <-r.Context().Done():
			return j.Status
		}
	}
}

// maxAge is the longest time that a request to archive jobs may name.
const maxAge = 100 * 365 * 24 * time.Hour

func (a *api) archive(r *http.Request) (any, error) {
	var body wire.Archive
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if (body.AgeSeconds == nil) == (len(body.IDs) == 0) {
		return nil, badRequest("Either ids or age_seconds must be given")
	}
	if age := body.AgeSeconds; age != nil && (*age < 0 || *age > int64(maxAge/time.Second)) {
		return nil, badRequest("Invalid value for age_seconds")
	}
	if err := a.b.Ready(); err != nil {
		return nil, err
	}
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	out := chooseJobs(s, body, a.now())
	if len(out.Archived) > 0 {
		err = a.outOfOffice(a.b.Archive(r.Context(), out.Archived, actor(r), requestID(r)))
	}
	return out, err
}

// chooseJobs sorts jobs into those that a request can archive and others.
func chooseJobs(s *state.State, body wire.Archive, now time.Time) wire.Archived {
	out := wire.Archived{Archived: []int64{}, Active: []int64{}, Unknown: []int64{}}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(body.IDs))) {
		switch j := s.Jobs[id]; {
		case j == nil:
			out.Unknown = append(out.Unknown, id)
		case !j.Status.Ended():
			out.Active = append(out.Active, id)
		default:
			out.Archived = append(out.Archived, id)
		}
	}
	if body.AgeSeconds == nil {
		return out
	}
	before := now.Add(-time.Duration(*body.AgeSeconds) * time.Second)
	for _, j := range s.SortedJobs() {
		if j.Status.Ended() && !j.End.After(before) {
			out.Archived = append(out.Archived, j.ID)
		}
	}
	return out
}
