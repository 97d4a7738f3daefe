package candmap

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"rolekey/cluster"
)

// maxAnswer bounds the payload bytes of one answer of Since.
const maxAnswer = 4 << 20

// Since returns what a node that holds the version from needs: the maps that
// changed the authority since, oldest first, and then the current one. If that
// is too much for one answer it ends early; ask again from its last version.
func (k *Keeper) Since(from cluster.Version) []Envelope {
	view := k.View()
	if !view.At().Newer(from) {
		return nil
	}
	links := k.authorities(from, view.At())
	page, whole := k.read(links)
	if !whole {
		return page
	}
	return append(page, view.Map.Envelope)
}

// Chain returns the newest maps before the current one that changed the
// authority, oldest first: what Fill takes. Nobody needs more of them: who
// missed more changes than one answer holds has lost trust long before.
func (k *Keeper) Chain() []Envelope {
	links := k.authorities(cluster.Version{}, k.View().At())
	slices.Reverse(links)
	newest, _ := k.read(links)
	slices.Reverse(newest)
	return newest
}

// authorities are the links between two versions that changed the authority.
func (k *Keeper) authorities(after, before cluster.Version) []Link {
	return slices.DeleteFunc(k.chain.snapshot(), func(l Link) bool {
		return !l.Authority || !l.At.Newer(after) || !before.Newer(l.At)
	})
}

// read returns the envelopes of links, as many as one answer may hold beside
// the current map, and whether that was all. One that cannot be read is left
// out: the receiver asks others for it.
func (k *Keeper) read(links []Link) (envs []Envelope, whole bool) {
	size := 0
	for _, l := range links {
		env, ok := k.chain.read(l)
		if !ok {
			k.cfg.Log.Warn("map of the chain cannot be read", zap.Stringer("version", l.At))
			continue
		}
		if size += len(env.Payload); len(envs) == MaxChain-1 || len(envs) > 0 && size > maxAnswer {
			return envs, false
		}
		envs = append(envs, env)
	}
	return envs, true
}

// Fill adds older maps to the chain of a node that became a candidate, oldest
// first, as Since gave them. They must follow from one another and lead to a
// map of this node's own chain; what is invented leads nowhere.
func (k *Keeper) Fill(ctx context.Context, envs []Envelope) error {
	if len(envs) > MaxChain {
		return cluster.Errorf(cluster.CodeTooLarge, "fill chain: %d maps at once, the limit is %d", len(envs), MaxChain)
	}
	held := k.View().Map
	if held == nil {
		return k.noMap()
	}
	walk, err := walkBelow(held, envs)
	if err != nil || len(walk) == 0 {
		return wrapCode("fill chain", err)
	}
	if err := k.anchored(held, walk[len(walk)-1]); err != nil {
		return wrapCode("fill chain", err)
	}
	if err := k.take(ctx, k.disk); err != nil {
		return fmt.Errorf("fill chain: %w", err)
	}
	defer k.giveBack(k.disk)
	var prev *Verified
	for _, v := range walk {
		if known, ok := k.chain.find(v.At()); ok && known.Hash != v.Hash {
			return cluster.Errorf(cluster.CodeMapFork, "fill chain: map %s is %s here", v.At(), known.Hash.Short())
		}
		k.chain.add(Link{At: v.At(), Hash: v.Hash, Authority: v.ChangesAuthority(prev)}, v.Envelope)
		prev = v
	}
	return k.chain.save()
}

// walkBelow verifies maps older than held, each by the one before it.
func walkBelow(held *Verified, envs []Envelope) (walk []*Verified, err error) {
	for i, env := range envs {
		var v *Verified
		if i == 0 {
			v, err = Genesis(env, env.Hash())
		} else {
			v, err = Follow(walk[i-1], env)
		}
		if err != nil {
			return nil, err
		}
		if v.Cluster != held.Cluster {
			return nil, cluster.Errorf(cluster.CodeBadSignature, "map of another cluster, %s", v.Cluster)
		}
		if !held.At().Newer(v.At()) {
			return walk, nil
		}
		walk = append(walk, v)
	}
	return walk, nil
}

// anchored checks that the oldest map of the chain that is not older than last
// is last, or follows from it.
func (k *Keeper) anchored(held, last *Verified) error {
	anchor := held.Envelope
	for _, l := range k.chain.snapshot() {
		if last.At().Newer(l.At) || !held.At().Newer(l.At) {
			continue
		}
		if env, ok := k.chain.read(l); ok {
			anchor = env
			break
		}
	}
	if _, err := Follow(last, anchor); err != nil && !errors.Is(err, ErrKnown) {
		return err
	}
	return nil
}
