package jobs

import (
	"context"
	"encoding/json"

	"rolekey/masterd/state"
)

func clusterVerify(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	// It takes its time and commits nothing: all may see that it is under way.
	r.update.Status = state.JobRunning
	if err := r.flush(ctx); err != nil {
		return nil, err
	}
	var op struct {
		Repair bool `json:"repair"`
	}
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	report, err := r.c.Verify(ctx, raw, r.say)
	if err != nil {
		return nil, err
	}
	ok := report.OK()
	if op.Repair && len(report.Findings) > 0 {
		ok, err = r.repair(ctx, report)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(ok)
}
