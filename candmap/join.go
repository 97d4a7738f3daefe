package candmap

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"rolekey/cluster"
)

// Join takes the first map of a node that is admitted: the one that its
// admission string pins by hash, and the chain from there. The pin stands for
// trust of today, so the age of the maps does not matter. Look at Durable in
// the acknowledgement before relying on it.
func (k *Keeper) Join(ctx context.Context, pinned Envelope, pin cluster.Digest, chain []Envelope, docs [][]byte) (Ack, error) {
	return k.start(ctx, docs, func() ([]*Verified, error) {
		if held := k.View().Map; held != nil {
			return nil, cluster.Errorf(cluster.CodeConflict, "join: this node already holds map %s of cluster %s", held.At(), held.Cluster).
				WithHint("run noded leave --yes first")
		}
		first, err := k.pinned(pinned, pin)
		if err != nil {
			return nil, wrapCode("join", err)
		}
		more, err := followChain(first, chain, func(*Verified) bool { return false })
		if err != nil && !errors.Is(err, ErrKnown) {
			return nil, wrapCode("join", err)
		}
		return append([]*Verified{first}, more...), nil
	})
}

// Create takes the first map of a new cluster, made on this very node.
func (k *Keeper) Create(ctx context.Context, first Envelope, docs [][]byte) (Ack, error) {
	return k.Join(ctx, first, first.Hash(), nil, docs)
}

// Trust takes a map because local root says that its hash is right: after the
// trust period, after damage to the disk, or when the chain was lost. It still
// must be of this cluster, signed by its own voters, and newer than all that
// this node ever held.
func (k *Keeper) Trust(ctx context.Context, env Envelope, pin cluster.Digest, docs [][]byte) (Ack, error) {
	return k.start(ctx, docs, func() ([]*Verified, error) {
		next, err := k.pinned(env, pin)
		if err != nil {
			return nil, wrapCode("trust map", err)
		}
		if held := k.View().Map; held != nil {
			switch {
			case next.Cluster != held.Cluster:
				return nil, cluster.Errorf(cluster.CodeConflict, "trust map: it is of another cluster, %s", next.Cluster)
			case next.Hash == held.Hash:
				return nil, nil
			case !next.At().Newer(held.At()):
				return nil, older("map", next.At(), held.At())
			}
		} else if newest := k.chain.newest(); newest.Newer(next.At()) {
			return nil, older("map", next.At(), newest)
		}
		k.cfg.Log.Warn("map trusted by order of local root", zap.Stringer("version", next.At()), zap.Stringer("hash", next.Hash))
		return []*Verified{next}, nil
	})
}

func (k *Keeper) pinned(env Envelope, pin cluster.Digest) (*Verified, error) {
	v, err := Genesis(env, pin)
	if err != nil {
		return nil, err
	}
	return v, k.checkCluster(v)
}

// start adopts the maps that choose yields under the turn; they stand on a pin.
func (k *Keeper) start(ctx context.Context, docs [][]byte, choose func() ([]*Verified, error)) (Ack, error) {
	if err := k.take(ctx, k.turn); err != nil {
		return k.ack(), err
	}
	if err := k.startInTurn(ctx, docs, choose); err != nil {
		return k.ack(), err
	}
	k.settle(ctx, true)
	return k.ack(), nil
}

func (k *Keeper) startInTurn(ctx context.Context, docs [][]byte, choose func() ([]*Verified, error)) error {
	defer k.giveBack(k.turn)
	taken, err := choose()
	if err != nil || len(taken) == 0 {
		return err
	}
	old := k.View()
	next := &View{Map: taken[len(taken)-1], Roster: old.Roster}
	k.completeRoster(next, docs)
	k.enforce(ctx, old, next, taken)
	return nil
}
