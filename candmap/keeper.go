package candmap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
)

// Keeper is the live holder of map and roster on one node. Reading is atomic
// and never waits; deliveries are taken one at a time, in the order: verify,
// swap, revoke, apply, persist, acknowledge. So neither a full disk nor a hung
// one delays a revocation.
type Keeper struct {
	cfg   KeeperConfig
	view  atomic.Pointer[View]
	lease atomic.Pointer[Lease]
	wake  chan struct{} // the lease changed
	chain chain
	forks atomic.Int64

	reported pairs // forks told in this run

	damage error // why there is no map although one was saved; set once

	// turn is held by whoever takes a delivery. It is a channel and no mutex,
	// so that waiting can be given up, and counts as idle in virtual time.
	turn chan struct{}
	// staged are documents of a roster that is not complete; under turn.
	staged map[cluster.Digest][]byte

	// disk is held, as turn is, by whoever makes files follow the view. It is
	// apart, so that a disk that hangs does not hold up the next revocation.
	disk      chan struct{}
	done      done
	announced *View // to OnChange; under disk

	running atomic.Bool   // Run is, and saves what settle left for later
	later   chan struct{} // wakes it

	// news guards the newest beacon, and makes swaps and beacons exclude one
	// another. It is held for moments only, never during I/O.
	news   sync.Mutex
	newest *heard
}

// heard is a beacon that was verified.
type heard struct {
	*Beacon
	env Envelope
}

// NewKeeper loads what the store has. A saved map that is damaged leaves the
// node without one, never with an older one: Damage tells why, and deliveries
// are refused until local root gives a map with Trust.
func NewKeeper(cfg KeeperConfig) (*Keeper, error) {
	if cfg.Store == nil || cfg.Clocks == nil {
		return nil, errors.New("make keeper: a store and clocks are required")
	}
	if cfg.Effects == nil {
		cfg.Effects = noEffects{}
	}
	if cfg.Provides == nil {
		cfg.Provides = func(*View) bool { return true }
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	k := &Keeper{cfg: cfg, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1), disk: make(chan struct{}, 1), later: make(chan struct{}, 1)}
	k.chain.store = cfg.Store
	k.done.problems = map[string]string{}
	k.view.Store(&View{})
	k.lease.Store(&Lease{})
	if err := k.load(); err != nil {
		return nil, fmt.Errorf("make keeper: %w", err)
	}
	return k, nil
}

func (k *Keeper) load() error {
	saved, err := k.cfg.Store.Load()
	if err != nil {
		return fmt.Errorf("load map: %w", err)
	}
	k.chain.load(saved.Links)
	k.forks.Store(int64(saved.Forks))
	lease := Restored(saved.Last)
	k.lease.Store(&lease)
	if saved.Current == nil {
		return nil
	}
	m, err := k.reverify(saved.Current)
	if err != nil {
		k.damage = fmt.Errorf("the map on disk is damaged: %w", err)
		k.cfg.Log.Error("map on disk is damaged", zap.Error(err))
		return nil
	}
	if m.Issued.After(saved.Last) {
		lease = Restored(m.Issued)
		k.lease.Store(&lease)
	}
	m.by = k.chain.basisOf(m.At())
	view := &View{Map: m, Roster: k.loadRoster(m.Roster)}
	if view.Roster == nil && saved.Roster != m.Roster && !saved.Roster.IsZero() {
		view.Roster = k.loadRoster(saved.Roster)
	}
	k.completeRoster(view, nil) // notes what is missing
	k.view.Store(view)
	// Not applied: derived files are rebuilt at start.
	k.done.current, k.done.roster, k.announced = m, view.Roster, view
	return nil
}

// reverify reads the saved map. It was verified before it was saved, so this
// only has to find damage, which breaks its own voters' signatures.
func (k *Keeper) reverify(b []byte) (*Verified, error) {
	env, err := ParseEnvelope(b)
	if err != nil {
		return nil, err
	}
	m, err := Genesis(env, env.Hash())
	if err != nil {
		return nil, err
	}
	return m, k.checkCluster(m)
}

func (k *Keeper) checkCluster(m *Verified) error {
	if !k.cfg.Cluster.IsZero() && m.Cluster != k.cfg.Cluster {
		return cluster.Errorf(cluster.CodeBadSignature, "map is of cluster %s, this node belongs to %s", m.Cluster, k.cfg.Cluster)
	}
	return nil
}

func (k *Keeper) loadRoster(index cluster.Digest) *Roster {
	r, err := AssembleRoster(index, func(d cluster.Digest) []byte {
		b, err := k.cfg.Store.Doc(d)
		if err != nil {
			k.cfg.Log.Warn("cannot read roster document", zap.Stringer("hash", d), zap.Error(err))
			return nil
		}
		return b
	})
	if err != nil {
		k.cfg.Log.Warn("roster on disk is not complete", zap.Error(err))
		return nil
	}
	return r
}

// View returns what is in force. It never blocks, does not allocate and is
// never nil.
func (k *Keeper) View() *View { return k.view.Load() }

// Damage tells why the saved map could not be used; nil if it could.
func (k *Keeper) Damage() error {
	if k.View().Map != nil {
		return nil
	}
	return k.damage
}

// Forks returns how many proofs of an attack were kept.
func (k *Keeper) Forks() int { return int(k.forks.Load()) }

// Lease returns the lease as it is now.
func (k *Keeper) Lease() Lease { return *k.lease.Load() }

// Left returns how long the map stays fresh without news.
func (k *Keeper) Left() time.Duration {
	v := k.View()
	if v.Map == nil {
		return 0
	}
	return k.lease.Load().Left(v.Map.Lease(), k.cfg.Clocks())
}

// Fresh reports whether the map is fresh now. It is exact at any moment, needs
// no Run, and does not allocate.
func (k *Keeper) Fresh() bool { return k.Left() > 0 }

// take waits for a turn. One that is free is taken even if ctx has ended.
func (k *Keeper) take(ctx context.Context, turn chan struct{}) error {
	select {
	case turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (k *Keeper) giveBack(turn chan struct{}) { <-turn }

// hear tells the lease a verified time; under news.
func (k *Keeper) hear(t time.Time) {
	l := k.lease.Load().Heard(t, k.cfg.Clocks())
	k.lease.Store(&l)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// noMap is the refusal of a node that holds no map.
func (k *Keeper) noMap() error {
	e := cluster.Errorf(cluster.CodeNoMap, "this node holds no candidate map")
	if k.damage != nil {
		return cluster.Errorf(cluster.CodeNoMap, "%v", k.damage).
			WithHint("compare the hash shown by gnt-cluster map on the master, then run: noded trust HASH")
	}
	return e
}
