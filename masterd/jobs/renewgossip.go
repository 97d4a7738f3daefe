package jobs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// How long a phase waits for nodes that answer and have not followed yet, and
// how often they are asked. One that does not answer is not waited for.
const (
	followLimit    = 10 * time.Second
	followAsk      = 3 * time.Second
	followPause    = 20 * time.Millisecond
	followPauseMax = 500 * time.Millisecond
)

// renewGossip replaces the gossip key: all nodes learn the new one, then send
// with it, then forget the old one.
func (r *run) renewGossip(ctx context.Context, left *resume) error {
	old := func(k cluster.Secret) bool { return slices.Contains(left.Renew.Gossip, cluster.DigestOf(k.Reveal())) }
	for {
		keys := r.c.State().GossipKeys()
		var err error
		switch last := keys[len(keys)-1]; {
		case len(keys) == 1 && !old(last):
			return r.gossipHeld(ctx, "retire")
		case old(keys[0]) && old(last): // none is new
			if r.canceling() {
				return errCanceled
			}
			err = r.setGossip(ctx, keys[0], newGossipKey())
		case old(keys[0]):
			err = r.useGossip(ctx, keys)
		default:
			if err = r.gossipHeld(ctx, "switch"); err == nil {
				err = r.setGossip(ctx, keys[0])
			}
		}
		if err != nil {
			return err
		}
	}
}

// useGossip has nodes send with the second key, when they know it.
func (r *run) useGossip(ctx context.Context, keys []cluster.Secret) error {
	if !r.canceling() {
		if err := r.gossipHeld(ctx, "overlap"); err != nil {
			return err
		}
	}
	if r.canceling() {
		if err := r.setGossip(ctx, keys[0]); err != nil {
			return err
		}
		return errCanceled
	}
	return r.setGossip(ctx, keys[1], keys[0])
}

func newGossipKey() cluster.Secret {
	key := make([]byte, gossip.KeySize)
	_, _ = rand.Read(key) // never fails since Go 1.24
	return cluster.NewSecret(key)
}

func (r *run) setGossip(ctx context.Context, keys ...cluster.Secret) error {
	u := r.update
	spread, err := r.c.Change(ctx, state.KindGossipKeys, state.GossipKeys{Keys: keys, Job: &u}, r.job.Actor, r.job.RequestID)
	if err != nil {
		return err
	}
	r.drained()
	if spread.All > 0 {
		r.report(spread)
	}
	return nil
}

// gossipHeld waits until the nodes that answer hold the keys that there are.
func (r *run) gossipHeld(ctx context.Context, phase string) error {
	var want []cluster.Digest
	for _, k := range r.c.State().GossipKeys() {
		want = append(want, cluster.DigestOf(k.Reveal()))
	}
	return r.follow(ctx, "gossip key: "+phase, func(s rpc.NodeState) bool { return slices.Equal(s.GossipKeys, want) })
}

// follow waits until the nodes that answer have followed a change, for so long
// at most, and tells how many have.
func (r *run) follow(ctx context.Context, phase string, has func(rpc.NodeState) bool) error {
	bounded, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	var mu sync.Mutex
	var missed []string
	var all sync.WaitGroup
	asked := 0
	for _, n := range r.c.State().SortedNodes() {
		if n.Flags.Offline {
			continue
		}
		asked++
		all.Go(func() {
			if why := r.followed(bounded, n.UUID, has); why != "" {
				mu.Lock()
				defer mu.Unlock()
				missed = append(missed, fmt.Sprintf("%s %s", n.Name, why))
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.toldOf(phase, asked, missed)
	return nil
}

// followed waits for one node, and returns why it is not waited for any longer.
func (r *run) followed(ctx context.Context, node cluster.NodeID, has func(rpc.NodeState) bool) string {
	for wait := followPause; ; wait = min(2*wait, followPauseMax) {
		asking, cancel := context.WithTimeout(ctx, followAsk)
		s, err := r.c.Inspect(asking, node)
		cancel()
		switch {
		case err == nil && has(s):
			return ""
		case err != nil && !notYet(err):
			return "unreachable"
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return "has not followed yet"
		}
	}
}

// rotateGossip makes the gossip key that a removed node knows worthless, by a
// job of its own: the removal does not wait for it.
func (r *run) rotateGossip(ctx context.Context) error {
	s := r.c.State()
	if s.FeatureLevel < state.LevelRenew {
		_, err := r.c.Change(ctx, state.KindGossipChange, state.GossipChange{Key: newGossipKey()}, r.job.Actor, r.job.RequestID)
		return err
	}
	const summary = "CLUSTER_RENEW_CRYPTO(gossip key)"
	for j := range s.ActiveJobs() {
		if j.Status == state.JobQueued && slices.Contains(j.Summary, summary) {
			return nil
		}
	}
	op, err := json.Marshal(map[string]any{"OP_ID": OpClusterRenew, "new_gossip_key": true, "after_removal": true})
	if err != nil {
		return err
	}
	body := state.JobSubmit{Ops: []json.RawMessage{op}, Summary: []string{summary}}
	_, err = r.c.Change(ctx, state.KindJobSubmit, body, r.job.Actor, r.job.RequestID)
	return err
}
