package candmap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.uber.org/zap"

	"rolekey/cluster"
)

// Deliver takes maps, oldest first, and documents of their roster. Whatever
// leads on is enforced before Deliver returns, even if later maps of the same
// call fail. The acknowledgement tells what is held in any case, with an error
// too; it is no error to deliver what is known.
//
// Once a map is accepted, ctx only bounds the wait for a disk that is busy: a
// sender that hangs up does not leave a revocation half done.
func (k *Keeper) Deliver(ctx context.Context, maps []Envelope, docs [][]byte) (Ack, error) {
	seen := k.View()
	if seen.Map == nil {
		return Ack{}, k.noMap()
	}
	// Outside the turn, so that a flood of junk delays nobody's delivery.
	taken, err := k.follow(seen.Map, maps)
	if len(taken) == 0 && cluster.CodeOf(err) == cluster.CodeBadSignature {
		return k.ack(), err
	}
	if err := k.take(ctx, k.turn); err != nil {
		return k.ack(), fmt.Errorf("deliver map: %w", err)
	}
	held, err := k.enforceNewer(ctx, seen, taken, err, maps, docs)
	return k.settled(ctx), k.judge(held, maps, err)
}

// settled settles, and acknowledges. A newer map that came in force just then is
// settled as well: the acknowledgement is about that one, and whoever delivered
// the one before would take this node for one that does not follow it.
func (k *Keeper) settled(ctx context.Context) Ack {
	for {
		k.settle(ctx, false)
		a := k.ack()
		if !slices.Contains(a.Problems, unfinished) || ctx.Err() != nil {
			return a
		}
	}
}

// enforceNewer does the part of Deliver that has the turn, and gives it back.
// It waits for no disk.
func (k *Keeper) enforceNewer(ctx context.Context, seen *View, taken []*Verified, err error, maps []Envelope, docs [][]byte) (*Verified, error) {
	defer k.giveBack(k.turn)
	old := k.View()
	if old.Map != seen.Map {
		taken, err = k.follow(old.Map, maps)
	}
	next := &View{Map: old.Map, Roster: old.Roster}
	if len(taken) > 0 {
		next.Map = taken[len(taken)-1]
	}
	k.completeRoster(next, docs)
	k.enforce(ctx, old, next, taken)
	return old.Map, err
}

// DeliverDocs takes documents of the roster alone, and returns those that are
// still missing.
func (k *Keeper) DeliverDocs(ctx context.Context, docs [][]byte) ([]cluster.Digest, error) {
	ack, err := k.Deliver(ctx, nil, docs)
	return ack.Missing, err
}

// follow walks the maps. Each map taken is news of its own time, so trust that
// has expired returns when the authority held speaks again.
func (k *Keeper) follow(held *Verified, maps []Envelope) ([]*Verified, error) {
	lease, now := k.Lease(), k.cfg.Clocks()
	return followChain(held, k.chain.unknown(maps, held.At()), func(v *Verified) bool {
		if v != held {
			lease = lease.Heard(v.Issued, now)
		}
		return lease.TrustExpired(now)
	})
}

// judge turns "known" into success, and finds forks of versions in the past.
// It keeps the evidence of any fork.
func (k *Keeper) judge(held *Verified, maps []Envelope, err error) error {
	if errors.Is(err, ErrKnown) {
		k.news.Lock()
		k.hear(held.Issued)
		k.news.Unlock()
		return nil
	}
	if cluster.CodeOf(err) == cluster.CodeMapOlder {
		if fork := k.pastFork(held, maps); fork != nil {
			err = fork
		}
	}
	var fork *ForkError
	if errors.As(err, &fork) {
		k.keepEvidence(fork)
	}
	return err
}

// pastFork compares maps that the held voters signed, but that are old, with
// the chain.
func (k *Keeper) pastFork(held *Verified, maps []Envelope) error {
	for _, env := range maps {
		if _, err := Follow(held, env); cluster.CodeOf(err) != cluster.CodeMapOlder {
			continue
		}
		m, err := DecodeMap(env.Payload)
		if err != nil {
			continue
		}
		if l, ok := k.chain.find(m.At()); ok && l.Hash != env.Hash() {
			if known, ok := k.chain.read(l); ok {
				return newFork(known, env, m.At())
			}
		}
	}
	return nil
}

// keepEvidence keeps and reports a fork once, however often it is delivered.
func (k *Keeper) keepEvidence(f *ForkError) {
	pair := [2]cluster.Digest{f.Held.Hash(), f.Other.Hash()}
	if !k.reported.first(pair) {
		return
	}
	k.cfg.Log.Error("two signed documents for one map version", zap.Error(f),
		zap.Stringer("held", pair[0]), zap.Stringer("other", pair[1]))
	kept, err := k.cfg.Store.SaveEvidence(f.Held, f.Other)
	if err != nil {
		k.cfg.Log.Error("cannot keep evidence", zap.Error(err))
	}
	if kept || err != nil {
		k.forks.Add(1)
	}
	if k.cfg.OnFork != nil {
		k.cfg.OnFork(f)
	}
}

// pairs remembers up to MaxForks pairs of documents.
type pairs struct {
	mu   sync.Mutex
	seen map[[2]cluster.Digest]struct{}
}

func (p *pairs) first(pair [2]cluster.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.seen[pair]; known || len(p.seen) >= MaxForks {
		return false
	}
	if p.seen == nil {
		p.seen = map[[2]cluster.Digest]struct{}{}
	}
	p.seen[pair] = struct{}{}
	return true
}
