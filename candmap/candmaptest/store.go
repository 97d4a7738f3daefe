package candmaptest

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

// Store is a candmap.Store in memory. What it holds outlives the Keeper, so a
// restart is a second Keeper on the same Store. The zero Store is empty.
type Store struct {
	// Fail, if set, is asked before each operation, by the name of its method;
	// its error is the operation's. Set it before the Store is used.
	Fail func(op string) error

	mu       sync.Mutex
	current  []byte
	links    map[candmap.Link][]byte
	last     time.Time
	roster   cluster.Digest
	docs     map[cluster.Digest][]byte
	evidence [][2]cluster.Digest
	ops      []string
}

// do runs f, which has the lock, unless the operation is made to fail.
func (s *Store) do(op string, f func()) error {
	if s.Fail != nil {
		if err := s.Fail(op); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops = append(s.ops, op)
	f()
	return nil
}

// Copy returns a store with what this one holds now, as a crash leaves it.
func (s *Store) Copy() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Store{
		current: slices.Clone(s.current), links: maps.Clone(s.links), last: s.last, roster: s.roster, docs: maps.Clone(s.docs),
		evidence: slices.Clone(s.evidence),
	}
}

// Ops returns the operations that succeeded so far.
func (s *Store) Ops() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ops)
}

// Current returns the encoded envelope saved last, nil if none was.
func (s *Store) Current() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.current)
}

// Corrupt replaces the saved map with other bytes.
func (s *Store) Corrupt(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = b
}

// Last returns the newest time saved.
func (s *Store) Last() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Load implements candmap.Store.
func (s *Store) Load() (saved candmap.Saved, err error) {
	err = s.do("Load", func() {
		saved = candmap.Saved{
			Current: slices.Clone(s.current), Links: slices.Collect(maps.Keys(s.links)),
			Last: s.last, Roster: s.roster, Forks: len(s.evidence),
		}
	})
	return saved, err
}

// SaveCurrent implements candmap.Store.
func (s *Store) SaveCurrent(env candmap.Envelope) error {
	return s.do("SaveCurrent", func() { s.current = env.Encode() })
}

// SaveLink implements candmap.Store.
func (s *Store) SaveLink(l candmap.Link, env candmap.Envelope) error {
	return s.do("SaveLink", func() {
		if s.links == nil {
			s.links = map[candmap.Link][]byte{}
		}
		s.links[l] = env.Encode()
	})
}

// Link implements candmap.Store.
func (s *Store) Link(l candmap.Link) (env candmap.Envelope, err error) {
	var b []byte
	if err := s.do("Link", func() { b = s.links[l] }); err != nil {
		return env, err
	}
	if b == nil {
		return env, fmt.Errorf("read map %s: %w", l.At, fs.ErrNotExist)
	}
	return candmap.ParseEnvelope(b)
}

// DropLink implements candmap.Store.
func (s *Store) DropLink(l candmap.Link) error {
	return s.do("DropLink", func() { delete(s.links, l) })
}

// SaveLast implements candmap.Store.
func (s *Store) SaveLast(t time.Time) error {
	return s.do("SaveLast", func() { s.last = t })
}

// SaveRoster implements candmap.Store.
func (s *Store) SaveRoster(index cluster.Digest, docs map[cluster.Digest][]byte) error {
	return s.do("SaveRoster", func() { s.roster, s.docs = index, maps.Clone(docs) })
}

// Doc implements candmap.Store.
func (s *Store) Doc(d cluster.Digest) (b []byte, err error) {
	err = s.do("Doc", func() { b = s.docs[d] })
	return b, err
}

// SaveEvidence implements candmap.Store.
func (s *Store) SaveEvidence(held, other candmap.Envelope) (kept bool, err error) {
	pair := [2]cluster.Digest{held.Hash(), other.Hash()}
	err = s.do("SaveEvidence", func() {
		if kept = !slices.Contains(s.evidence, pair) && len(s.evidence) < candmap.MaxForks; kept {
			s.evidence = append(s.evidence, pair)
		}
	})
	return kept, err
}
