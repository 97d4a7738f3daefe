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
	ok, err := r.c.Verify(ctx, raw, r.say)
	if err != nil {
		return nil, err
	}
	return json.Marshal(ok)
}
