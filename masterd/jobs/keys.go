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

// patient gives orders for keys, and gives them again while they fail with what
// passes.
type patient struct {
	c      keyMaker
	passes func(error) bool
}

// KeyCreate has a node make candidate keys.
func (p patient) KeyCreate(ctx context.Context, id cluster.NodeID, req rpc.KeyCreateRequest) (rpc.CandidateKeys, error) {
	end := time.Now().Add(keyPatience)
	for {
		keys, err := p.c.KeyCreate(ctx, id, req)
		if err == nil || !p.passes(err) || !time.Now().Before(end) {
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
	return cluster.CodeOf(err) == cluster.CodeUnavailable || notYet(err)
}

// notYet reports whether a node is there and may take the same order soon.
func notYet(err error) bool {
	switch cluster.CodeOf(err) {
	case cluster.CodeBusy, cluster.CodeMapStale, cluster.CodeNoMap,
		cluster.CodeMapOlder: // it has a newer map than the order names, which the master is about to have
		return true
	}
	return false
}
