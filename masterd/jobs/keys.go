package jobs

import (
	"context"
	"time"

	"rolekey/cluster"
	"rolekey/rpc"
)

// A node that has joined just now has perhaps heard no beacon yet, and a
// machine under load may be slow to answer: its first order is given again for
// so long, at this pace.
const (
	keyPatience = 4 * time.Second
	keyPause    = 250 * time.Millisecond
)

// orderKeys has a node make candidate keys.
func (r *run) orderKeys(ctx context.Context, id cluster.NodeID, req rpc.KeyCreateRequest) (rpc.CandidateKeys, error) {
	end := time.Now().Add(keyPatience)
	for {
		keys, err := r.c.KeyCreate(ctx, id, req)
		if err == nil || !mayPass(err) || !time.Now().Before(end) {
			return keys, err
		}
		select {
		case <-time.After(keyPause):
		case <-ctx.Done():
			return keys, context.Cause(ctx)
		}
	}
}

// mayPass reports whether the same order may be taken in a moment.
func mayPass(err error) bool {
	switch cluster.CodeOf(err) {
	case cluster.CodeUnavailable, cluster.CodeBusy, cluster.CodeMapStale, cluster.CodeNoMap:
		return true
	}
	return false
}
