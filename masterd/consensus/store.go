package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"rolekey/internal/atomicfile"
	"rolekey/seal"
)

// Sealer seals and opens records; a *seal.Keyring is one.
type Sealer interface {
	Seal(purpose string, index uint64, plaintext []byte) []byte
	Open(purpose string, index uint64, record []byte) ([]byte, error)
}

// StoreConfig says where a Store lies.
type StoreConfig struct {
	Path   string // of raft.db; its folder must exist
	Sealer Sealer

	// LockTimeout is how long to wait for another process to close the file;
	// default one second.
	LockTimeout time.Duration
}

// Names in raft.db. The format is the only value that is not sealed.
var (
	bucketMeta   = []byte("meta")
	bucketLog    = []byte("log")
	bucketStable = []byte("stable")
	keyFormat    = []byte("format")
	storeFormat  = []byte{1}
)

const (
	purposeLog    = "raft-log"
	purposeStable = "raft-stable/"

	// mapSize is the address space mapped from the start. Within it no write
	// has to remap the file, so none waits for readers. It costs no memory.
	mapSize = 64 << 20

	// fill makes full pages: log keys only ever grow.
	fill = 0.95
)

// Store is raft's LogStore and StableStore in one bbolt file of sealed
// records. It is not a MonotonicLogStore: entries may be overwritten, and gaps
// are allowed, which raft relies on after it installed a snapshot.
type Store struct {
	db     *bolt.DB
	sealer Sealer
}

var (
	_ raft.LogStore    = (*Store)(nil)
	_ raft.StableStore = (*Store)(nil)
	_ Sealer           = (*seal.Keyring)(nil)
)

// OpenStore opens raft.db, or makes it if it does not exist. The error is
// ErrInUse, seal.ErrUnknownFormat or a *DamageError where one of them fits.
func OpenStore(cfg StoreConfig) (*Store, error) {
	if cfg.Sealer == nil || cfg.Path == "" {
		return nil, errors.New("open raft store: path and sealer must be set")
	}
	if cfg.LockTimeout == 0 {
		cfg.LockTimeout = time.Second
	}
	db, err := openOrMake(cfg)
	if err != nil {
		return nil, fmt.Errorf("open raft store %s: %w", cfg.Path, err)
	}
	return &Store{db: db, sealer: cfg.Sealer}, nil
}

// Close releases the file. It waits for transactions under way.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close raft store: %w", err)
	}
	return nil
}

func openOrMake(cfg StoreConfig) (*bolt.DB, error) {
	_, err := os.Lstat(cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeDB(cfg)
	}
	if err != nil {
		return nil, err
	}
	// A crash may have come between link and removal, and then the temporary
	// name is this very file.
	if err := atomicfile.Remove(atomicfile.TempName(cfg.Path)); err != nil {
		return nil, err
	}
	db, err := openDB(cfg.Path, cfg.LockTimeout)
	if err != nil {
		return nil, err
	}
	if err := guard(func() error { return db.View(checkFormat) }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// makeDB makes the file under a temporary name and links it into place when
// all of it is on disk. bbolt's own creation, if interrupted, leaves a file that
// never opens again. Link does not replace: of two processes one fails.
func makeDB(cfg StoreConfig) (*bolt.DB, error) {
	temp := atomicfile.TempName(cfg.Path)
	db, err := openDB(temp, cfg.LockTimeout)
	if err != nil && !errors.Is(err, ErrInUse) {
		// Half of a file, of an earlier attempt.
		if err := atomicfile.Remove(temp); err != nil {
			return nil, err
		}
		db, err = openDB(temp, cfg.LockTimeout)
	}
	if err != nil {
		return nil, err
	}
	if err := publish(db, temp, cfg.Path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func publish(db *bolt.DB, temp, path string) error {
	if err := db.Update(initialise); err != nil {
		return err
	}
	if err := os.Link(temp, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return ErrInUse
		}
		return err
	}
	if err := atomicfile.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return atomicfile.Remove(temp)
}

func openDB(path string, timeout time.Duration) (db *bolt.DB, err error) {
	err = guard(func() (err error) {
		db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout: timeout, FreelistType: bolt.FreelistMapType, InitialMmapSize: mapSize, NoStatistics: true,
		})
		return err
	})
	var (
		sys    syscall.Errno // no space, no permission: the file may be good
		damage *DamageError
	)
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, ErrInUse
	case errors.As(err, &sys), errors.As(err, &damage):
		return nil, err
	default:
		return nil, damaged(err, "raft.db")
	}
}

func initialise(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketLog, bucketStable} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(keyFormat, storeFormat)
}

func checkFormat(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return damaged(errMalformed, "raft.db")
	}
	if got := meta.Get(keyFormat); string(got) != string(storeFormat) {
		return fmt.Errorf("raft.db: %w", seal.ErrUnknownFormat)
	}
	if tx.Bucket(bucketLog) == nil || tx.Bucket(bucketStable) == nil {
		return damaged(errMalformed, "raft.db")
	}
	return nil
}

// guard makes an error of what bbolt does with a damaged file: it panics, or
// touches mapped pages that the file no longer has.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(fmt.Errorf("page: %v", p), "raft.db")
		}
	}()
	return f()
}

// FirstIndex implements raft.LogStore: 0 for an empty log.
func (s *Store) FirstIndex() (uint64, error) { return s.edge((*bolt.Cursor).First) }

// LastIndex implements raft.LogStore: 0 for an empty log.
func (s *Store) LastIndex() (uint64, error) { return s.edge((*bolt.Cursor).Last) }

func (s *Store) edge(seek func(*bolt.Cursor) (key, value []byte)) (index uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		if key, _ := seek(tx.Bucket(bucketLog).Cursor()); key != nil {
			index, err = parseIndex(key)
		}
		return err
	})
	return index, err
}

// GetLog implements raft.LogStore. A missing entry is raft.ErrLogNotFound
// itself: raft compares with ==, and then sends a snapshot.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	return s.db.View(func(tx *bolt.Tx) error {
		record := tx.Bucket(bucketLog).Get(indexKey(index))
		if record == nil {
			return raft.ErrLogNotFound
		}
		return s.openEntry(index, record, l)
	})
}

func (s *Store) openEntry(index uint64, record []byte, l *raft.Log) error {
	plaintext, err := s.sealer.Open(purposeLog, index, record)
	if err == nil {
		err = decodeEntry(plaintext, index, l)
	}
	if err != nil {
		return damaged(err, "log entry %d", index)
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore: all of the entries or none, in one
// commit. An entry that is already there is replaced.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	// Sealing needs no transaction; writers wait for one another in them.
	records := make([][]byte, len(logs))
	for i, l := range logs {
		records[i] = s.sealer.Seal(purposeLog, l.Index, encodeEntry(l))
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLog)
		b.FillPercent = fill
		for i, l := range logs {
			if err := b.Put(indexKey(l.Index), records[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store log entries: %w", err)
	}
	return nil
}

// DeleteRange implements raft.LogStore: both ends are deleted too. It visits
// what is there, so a wide range over a gap costs nothing.
func (s *Store) DeleteRange(first, last uint64) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLog)
		keys, err := keysIn(b, first, last)
		if err != nil {
			return err
		}
		for _, index := range keys {
			if err := b.Delete(indexKey(index)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete log entries %d to %d: %w", first, last, err)
	}
	return nil
}

// keysIn collects first, because deleting under a cursor moves it.
func keysIn(b *bolt.Bucket, first, last uint64) (indexes []uint64, err error) {
	c := b.Cursor()
	for key, _ := c.Seek(indexKey(first)); key != nil; key, _ = c.Next() {
		index, err := parseIndex(key)
		if err != nil {
			return nil, err
		}
		if index > last {
			break
		}
		indexes = append(indexes, index)
	}
	return indexes, nil
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func parseIndex(key []byte) (uint64, error) {
	if len(key) != 8 {
		return 0, damaged(errMalformed, "a key of the log")
	}
	return binary.BigEndian.Uint64(key), nil
}
