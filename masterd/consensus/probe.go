package consensus

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"

	"rolekey/seal"
)

// Position is how far this node's raft state reaches. It is what a restored
// copy is recognised by, when others have seen more from this node.
type Position struct {
	Term                        uint64 // the newest term this node took part in
	FirstIndex, LastIndex       uint64 // of the log; 0 if it is empty
	LastTerm                    uint64 // of the newest log entry
	SnapshotIndex, SnapshotTerm uint64 // of the newest snapshot; 0 without one
}

// Probe reads all that raft.NewRaft will read: the stable values, the newest
// snapshot to its end, and the log after it. raft panics on an entry that does
// not open, and silently goes back to an older snapshot; Probe returns a
// *DamageError instead. Call it before NewRaft.
func Probe(store *Store, snapshots *Snapshots) (Position, error) {
	var p Position
	err := guard(func() (err error) {
		p, err = probe(store, snapshots)
		return err
	})
	var d *DamageError
	if err != nil && !errors.As(err, &d) {
		err = damaged(err, "probe")
	}
	return p, err
}

func probe(store *Store, snapshots *Snapshots) (p Position, err error) {
	if p.Term, err = store.probeStable(); err != nil {
		return p, err
	}
	metas, err := snapshots.List()
	if err != nil {
		return p, err
	}
	if len(metas) > 0 {
		p.SnapshotIndex, p.SnapshotTerm = metas[0].Index, metas[0].Term
		if err := snapshots.drain(metas[0].ID); err != nil {
			return p, err
		}
	}
	return p, store.probeLog(&p)
}

// probeStable opens every stable value and returns the current term.
func (s *Store) probeStable() (term uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketStable).ForEach(func(key, record []byte) error {
			_, err := s.openStable(key, record)
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	if term, err = s.GetUint64([]byte("CurrentTerm")); errors.Is(err, errNotFound) {
		return 0, nil
	}
	return term, err
}

// probeLog opens the newest entry and every one after the snapshot; none of
// these may be missing.
func (s *Store) probeLog(p *Position) (err error) {
	if p.FirstIndex, err = s.FirstIndex(); err != nil {
		return err
	}
	if p.LastIndex, err = s.LastIndex(); err != nil || p.LastIndex == 0 {
		return err
	}
	var l raft.Log
	for i := min(p.SnapshotIndex+1, p.LastIndex); i <= p.LastIndex; i++ {
		if err := s.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			return damaged(err, "log entry %d", i)
		} else if err != nil {
			return err
		}
	}
	p.LastTerm = l.Term
	return nil
}

// drain reads a snapshot to its end, which proves all of it.
func (s *Snapshots) drain(id string) error {
	_, r, err := s.Open(id)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// Audit opens every record and every snapshot and counts them by the key that
// sealed them. A retiring key that does not appear is no longer needed.
func Audit(store *Store, snapshots *Snapshots) (map[seal.KeyID]int, error) {
	counts := make(map[seal.KeyID]int)
	err := guard(func() error { return store.audit(counts) })
	if err == nil {
		err = snapshots.audit(counts)
	}
	if err != nil {
		return nil, fmt.Errorf("audit raft state: %w", err)
	}
	return counts, nil
}

func (s *Store) audit(counts map[seal.KeyID]int) error {
	return s.db.View(func(tx *bolt.Tx) error {
		err := tx.Bucket(bucketStable).ForEach(func(key, record []byte) error {
			_, err := s.openStable(key, record)
			return count(counts, record, err)
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketLog).ForEach(func(key, record []byte) error {
			index, err := parseIndex(key)
			if err == nil {
				err = s.openEntry(index, record, new(raft.Log))
			}
			return count(counts, record, err)
		})
	})
}

func (s *Snapshots) audit(counts map[seal.KeyID]int) error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := s.drain(n.id()); err != nil {
			return err
		}
		head, err := s.head(n.id())
		if err := count(counts, head, err); err != nil {
			return err
		}
	}
	return nil
}

// head returns the beginning of a snapshot's stream.
func (s *Snapshots) head(id string) (head []byte, err error) {
	f, err := os.Open(s.path(id))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head = make([]byte, 64)
	n, err := f.ReadAt(head, int64(len(snapshotMagic)))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return head[:n], err
}

// count adds one for the key of sealed data, which opened unless err says
// otherwise.
func count(counts map[seal.KeyID]int, sealed []byte, err error) error {
	if err != nil {
		return err
	}
	id, err := seal.KeyOf(sealed)
	if err == nil {
		counts[id]++
	}
	return err
}
