package candmap

import (
	"context"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
)

// View is what a node goes by at one moment. It never changes; a newer one
// replaces it.
type View struct {
	Map    *Verified // nil: none, and then nobody may do anything
	Roster *Roster   // the newest that is complete: may lag behind the map, may be nil
}

// At returns the version of the map, zero without one.
func (v *View) At() cluster.Version {
	if v.Map == nil {
		return cluster.Version{}
	}
	return v.Map.At()
}

// Complete reports whether the roster is the one that the map names.
func (v *View) Complete() bool {
	return v.Map != nil && v.Roster != nil && v.Roster.Hash() == v.Map.Roster
}

// Effects are what follows from a new view on this node. The view is already
// in force when they are called, one call at a time.
type Effects interface {
	// Revoke closes the connections of every peer whose tier differs between
	// the views and waits for their handlers in flight. It cannot fail. The
	// context has the values of the delivery's, and never ends.
	Revoke(ctx context.Context, old, next *View)
	// Apply makes files match the view: authorized_keys and the like. Its
	// error goes into the acknowledgement; the view stands, and Run tries
	// again.
	Apply(ctx context.Context, next *View) error
}

// Ack tells a sender what this node holds after a delivery.
type Ack struct {
	Version  cluster.Version  `json:"version"`
	Hash     cluster.Digest   `json:"hash"`
	Durable  bool             `json:"durable"`  // it would survive power loss now
	Problems []string         `json:"problems"` // enforced, but something is left to do
	Missing  []cluster.Digest `json:"missing"`  // documents of the roster still wanted
	Fresh    bool             `json:"fresh"`
	Age      time.Duration    `json:"age_ns"` // of the newest time heard
}

// KeeperConfig says what a Keeper works with.
type KeeperConfig struct {
	Cluster cluster.UUID  // the only cluster whose maps are taken; zero: that of the first map
	Store   Store         // required
	Clocks  func() Clocks // required
	Effects Effects       // nil: none
	Log     *zap.Logger   // nil: none
	// Provides reports whether other nodes fetch documents here. If so, or if it
	// is nil, all is saved before an acknowledgement; otherwise what can be
	// fetched again may be saved soon after it.
	Provides func(*View) bool
	OnChange func(*View)        // nil, or told of each new view after its effects; must not block
	OnStale  func(stale bool)   // nil, or told by Run of each change, and once at its start; must not block
	OnFork   func(f *ForkError) // nil, or told of each proof of an attack; must not block
}

type noEffects struct{}

func (noEffects) Revoke(_ context.Context, _, _ *View) {}

func (noEffects) Apply(context.Context, *View) error { return nil }
