package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// errNotFound is known to raft by this very text.
var errNotFound = errors.New("not found")

// Set implements raft.StableStore: on disk before it returns.
func (s *Store) Set(key, value []byte) error {
	record := s.sealer.Seal(purposeStable+string(key), 0, value)
	err := s.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketStable).Put(key, record)
	})
	if err != nil {
		return fmt.Errorf("store raft's %s: %w", key, err)
	}
	return nil
}

// Get implements raft.StableStore. A missing value is the error "not found",
// not wrapped: raft compares its text.
func (s *Store) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		record := tx.Bucket(bucketStable).Get(key)
		if record == nil {
			return errNotFound
		}
		value, err = s.openStable(key, record)
		return err
	})
	return value, err
}

func (s *Store) openStable(key, record []byte) ([]byte, error) {
	value, err := s.sealer.Open(purposeStable+string(key), 0, record)
	if err != nil {
		return nil, damaged(err, "stable value %s", key)
	}
	return value, nil
}

// SetUint64 implements raft.StableStore.
func (s *Store) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore; see Get.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, damaged(errMalformed, "stable value %s", key)
	}
	return binary.BigEndian.Uint64(value), nil
}
