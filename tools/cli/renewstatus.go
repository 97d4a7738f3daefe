package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"rolekey/masterd/rapi/wire"
)

var errNoRenewal = &exitError{ExitFailed, "No renewal is known here: none was started, or its job is forgotten"}

// newestRenewal returns the newest job that renews keys.
func (a *app) newestRenewal(ctx context.Context) (wire.Job, error) {
	var job wire.Job
	var heads []wire.JobHead
	if err := a.client.get(ctx, "/2/jobs?bulk=1", &heads); err != nil {
		return job, err
	}
	for _, h := range slices.Backward(heads) {
		for _, raw := range h.Ops {
			var op struct {
				ID string `json:"OP_ID"`
			}
			if json.Unmarshal(raw, &op) == nil && op.ID == "OP_CLUSTER_RENEW_CRYPTO" {
				return job, a.client.get(ctx, fmt.Sprintf("/2/jobs/%d", h.ID), &job)
			}
		}
	}
	return job, errNoRenewal
}

func (a *app) renewStatus(ctx context.Context) error {
	j, err := a.newestRenewal(ctx)
	if err != nil {
		return err
	}
	var left wire.Renewals
	if err := a.client.get(ctx, "/2/renew-crypto", &left); err != nil {
		return err
	}
	r := reportOf(j)
	if a.asJSON {
		return a.printJSON(struct {
			jobReport
			wire.Renewals
		}{r, left})
	}
	printItems(a.out, append(r.items(), behind(left)...), "")
	return nil
}

// behind are the nodes that renewals have not reached by now.
func behind(left wire.Renewals) []item {
	var nodes []string
	for _, n := range left.Behind {
		what := []string{}
		if n.Certificates != nil {
			what = append(what, "certificates")
		}
		if n.Signing {
			what = append(what, "signing key")
		}
		nodes = append(nodes, n.Node+": "+strings.Join(what, ", "))
	}
	if len(nodes) == 0 {
		return []item{{"Nodes still to be renewed", "none"}}
	}
	return []item{{"Nodes still to be renewed", nodes}}
}

// running returns the newest renewal, which must not have ended.
func (a *app) runningRenewal(ctx context.Context) (wire.Job, error) {
	j, err := a.newestRenewal(ctx)
	if state := (jobState{status: j.Status}); err == nil && state.ended() {
		err = &exitError{ExitFailed, fmt.Sprintf("No renewal runs: the newest, job %d, has ended: %s", j.ID, j.Status)}
	}
	return j, err
}

// renewAbort has the renewal go back, and waits until it has.
func (a *app) renewAbort(ctx context.Context) error {
	j, err := a.runningRenewal(ctx)
	if err != nil {
		return err
	}
	if j.Status != "canceling" {
		if err := a.cancel(ctx, j.ID); err != nil {
			return err
		}
	}
	state, err := a.await(ctx, j.ID, a.notes(j.ID))
	switch {
	case err != nil:
		return err
	case state.status == "canceled":
		return nil
	case state.status == "success":
		a.note("Job %d had come too far to go back, and went on to its end.", j.ID)
		return &exitError{ExitFailed, ""}
	}
	return state.failure(j.ID)
}

// renewResume waits for the renewal, and exits as it did.
func (a *app) renewResume(ctx context.Context) error {
	j, err := a.newestRenewal(ctx)
	if err != nil {
		return err
	}
	state, err := a.await(ctx, j.ID, a.notes(j.ID))
	if err == nil {
		err = state.failure(j.ID)
	}
	if err != nil {
		return err
	}
	return a.pending(state.unreachable)
}
