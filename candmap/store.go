package candmap

import (
	"time"

	"rolekey/cluster"
)

// Store is where a Keeper keeps what must survive a restart. Every method that
// saves returns only when the data would survive power loss. The methods may
// be called concurrently.
type Store interface {
	// Load reads what was saved. Damage to the current map is not an error
	// here: its bytes are returned as they are.
	Load() (Saved, error)
	// SaveCurrent replaces the current map.
	SaveCurrent(Envelope) error
	// SaveLink adds a map to the chain, Link reads one, DropLink removes one.
	SaveLink(Link, Envelope) error
	Link(Link) (Envelope, error)
	DropLink(Link) error
	// SaveLast records the newest time heard.
	SaveLast(time.Time) error
	// SaveRoster keeps these documents and this hash of the index, and no
	// others. Doc reads one document; nil if it is not there.
	SaveRoster(index cluster.Digest, docs map[cluster.Digest][]byte) error
	Doc(cluster.Digest) ([]byte, error)
	// SaveEvidence keeps two signed documents that contradict one another. It
	// reports false if the pair is kept already, or MaxForks others are.
	SaveEvidence(held, other Envelope) (kept bool, err error)
}

// Saved is what a Store gives back at start.
type Saved struct {
	Current []byte         // the encoded envelope; nil if none was ever saved
	Links   []Link         // the chain, in any order
	Last    time.Time      // zero if unknown
	Roster  cluster.Digest // index of the roster saved last
	Forks   int            // pairs of evidence
}

// Link names one map of the chain. Those that changed the authority are kept
// for ever: a node that slept crosses them one by one.
type Link struct {
	At        cluster.Version
	Hash      cluster.Digest
	Authority bool // it changed the authority
}
