package candmap

import (
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"rolekey/cluster"
)

// MemStore is a Store without a disk, for a daemon that gets the map again
// from the node's noded at every start.
type MemStore struct {
	mu    sync.Mutex
	links map[Link]Envelope
	docs  map[cluster.Digest][]byte
	forks map[[2]cluster.Digest]struct{}
	saved Saved
}

// NewMemStore returns an empty store.
func NewMemStore() *MemStore {
	return &MemStore{links: map[Link]Envelope{}, docs: map[cluster.Digest][]byte{}, forks: map[[2]cluster.Digest]struct{}{}}
}

// Load implements Store.
func (s *MemStore) Load() (Saved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.saved
	out.Links = slices.Collect(maps.Keys(s.links))
	return out, nil
}

// SaveCurrent implements Store.
func (s *MemStore) SaveCurrent(e Envelope) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved.Current = e.Encode()
	return nil
}

// SaveLink implements Store.
func (s *MemStore) SaveLink(l Link, e Envelope) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links[l] = e
	return nil
}

// Link implements Store.
func (s *MemStore) Link(l Link) (Envelope, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.links[l]
	if !ok {
		return Envelope{}, fs.ErrNotExist
	}
	return e, nil
}

// DropLink implements Store.
func (s *MemStore) DropLink(l Link) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
	return nil
}

// SaveLast implements Store.
func (s *MemStore) SaveLast(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved.Last = t
	return nil
}

// SaveRoster implements Store.
func (s *MemStore) SaveRoster(index cluster.Digest, docs map[cluster.Digest][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved.Roster, s.docs = index, maps.Clone(docs)
	return nil
}

// Doc implements Store.
func (s *MemStore) Doc(d cluster.Digest) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.docs[d], nil
}

// SaveEvidence implements Store; noded keeps the evidence on disk.
func (s *MemStore) SaveEvidence(held, other Envelope) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pair := [2]cluster.Digest{held.Hash(), other.Hash()}
	if _, known := s.forks[pair]; known || len(s.forks) >= MaxForks {
		return false, nil
	}
	s.forks[pair] = struct{}{}
	s.saved.Forks = len(s.forks)
	return true, nil
}
