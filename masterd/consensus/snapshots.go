package consensus

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/internal/atomicfile"
	"rolekey/seal"
)

// SnapshotsConfig says where snapshots lie.
type SnapshotsConfig struct {
	Dir     string           // the folder snapshots/, made if missing
	Keyring *seal.Keyring    // seals them
	Now     func() time.Time // names them; default time.Now
}

const (
	snapshotSuffix  = ".snap"
	snapshotMagic   = "RKSNAP\x00\x01"
	purposeSnapshot = "raft-snapshot/"
	purposeMeta     = "raft-snapshot-meta/"

	// retained is how many snapshots are kept: a leader may still be sending
	// the one before the newest.
	retained = 2

	// maxMeta bounds the metadata record of a snapshot.
	maxMeta = 1 << 20
)

// Snapshots is raft's SnapshotStore: one sealed file per snapshot.
type Snapshots struct {
	dir     string
	keyring *seal.Keyring
	now     func() time.Time

	mu   sync.Mutex
	last int64 // milliseconds in the newest name, so that names never repeat
}

var _ raft.SnapshotStore = (*Snapshots)(nil)

// OpenSnapshots opens the folder and removes what a crash left in it.
func OpenSnapshots(cfg SnapshotsConfig) (*Snapshots, error) {
	if cfg.Keyring == nil || cfg.Dir == "" {
		return nil, errors.New("open snapshots: folder and keyring must be set")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Snapshots{dir: cfg.Dir, keyring: cfg.Keyring, now: cfg.Now}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	return s, nil
}

func (s *Snapshots) prepare() error {
	switch err := os.Mkdir(s.dir, 0o700); {
	case err == nil:
		if err := atomicfile.SyncDir(filepath.Dir(s.dir)); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if err := atomicfile.RemoveTemp(s.dir); err != nil {
		return err
	}
	names, err := s.names()
	for _, n := range names {
		s.last = max(s.last, n.millis)
	}
	return err
}

// snapshotName is what the name of a snapshot's file says. It orders files; the
// seal proves it.
type snapshotName struct {
	term, index uint64
	millis      int64
}

func (n snapshotName) id() string { return fmt.Sprintf("%d-%d-%d", n.term, n.index, n.millis) }

func parseSnapshotName(id string) (n snapshotName, ok bool) {
	_, err := fmt.Sscanf(id, "%d-%d-%d", &n.term, &n.index, &n.millis)
	return n, err == nil && n.millis >= 0 && n.id() == id
}

// newest orders names from the newest to the oldest.
func newest(a, b snapshotName) int {
	return cmp.Or(cmp.Compare(b.index, a.index), cmp.Compare(b.term, a.term), cmp.Compare(b.millis, a.millis))
}

func (s *Snapshots) path(id string) string { return filepath.Join(s.dir, id+snapshotSuffix) }

// names returns the snapshots that are there, the newest first. Other files in
// the folder are none of ours.
func (s *Snapshots) names() ([]snapshotName, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var names []snapshotName
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), snapshotSuffix)
		if n, valid := parseSnapshotName(id); ok && valid {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, newest)
	return names, nil
}

// List implements raft.SnapshotStore. A snapshot whose metadata does not open
// is an error: passing over it would silently go back to an older state.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) {
	names, err := s.names()
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var metas []*raft.SnapshotMeta
	for _, n := range names[:min(len(names), retained)] {
		meta, r, err := s.Open(n.id())
		if errors.Is(err, fs.ErrNotExist) {
			continue // a newer one came just now, and this was the oldest
		}
		if err != nil {
			return nil, err
		}
		if err := r.Close(); err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		metas = append(metas, meta)
	}
	return metas, nil
}

// Open implements raft.SnapshotStore. The size in the metadata is the
// plaintext's, which is what raft compares with the bytes it receives.
func (s *Snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	name, ok := parseSnapshotName(id)
	if !ok {
		return nil, nil, fmt.Errorf("open snapshot %q: not an ID of this store", id)
	}
	f, err := os.Open(s.path(id))
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	meta, r, err := s.read(f, name)
	if err != nil {
		return nil, nil, errors.Join(damaged(err, "snapshot %s", id), f.Close())
	}
	return meta, &openSnapshot{Reader: r, Closer: f, id: id}, nil
}

// read checks the frame of a snapshot and opens its metadata.
func (s *Snapshots) read(f *os.File, name snapshotName) (*raft.SnapshotMeta, io.Reader, error) {
	record, streamSize, err := readFrame(f)
	if err != nil {
		return nil, nil, err
	}
	plaintext, err := s.keyring.Open(purposeMeta+name.id(), name.index, record)
	if err != nil {
		return nil, nil, err
	}
	meta, err := decodeMeta(plaintext, name.id())
	if err != nil {
		return nil, nil, err
	}
	if meta.Index != name.index || meta.Term != name.term {
		return nil, nil, errMalformed
	}
	if want := seal.StreamSize(meta.Size); streamSize != want {
		return nil, nil, fmt.Errorf("%d bytes of content, want %d: %w", streamSize, want, seal.ErrTampered)
	}
	section := io.NewSectionReader(f, int64(len(snapshotMagic)), streamSize)
	r, err := s.keyring.NewStreamReader(section, purposeSnapshot+name.id(), name.index)
	return meta, r, err
}

// readFrame returns the metadata record at the end of f and the size of the
// stream between it and the magic.
func readFrame(f *os.File) (record []byte, streamSize int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	const frame = int64(len(snapshotMagic) + 4)
	if info.Size() < frame {
		return nil, 0, seal.ErrTruncated
	}
	var magic [len(snapshotMagic)]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil {
		return nil, 0, err
	}
	if string(magic[:]) != snapshotMagic {
		return nil, 0, seal.ErrUnknownFormat
	}
	var tail [4]byte
	if _, err := f.ReadAt(tail[:], info.Size()-4); err != nil {
		return nil, 0, err
	}
	n := int64(binary.BigEndian.Uint32(tail[:]))
	if n > maxMeta || n > info.Size()-frame {
		return nil, 0, fmt.Errorf("metadata of %d bytes: %w", n, seal.ErrTampered)
	}
	record = make([]byte, n)
	if _, err := f.ReadAt(record, info.Size()-4-n); err != nil {
		return nil, 0, err
	}
	return record, info.Size() - frame - n, nil
}

// openSnapshot is a snapshot being read.
type openSnapshot struct {
	io.Reader
	io.Closer
	id string
}

// Read implements io.Reader; its errors name the snapshot.
func (o *openSnapshot) Read(p []byte) (int, error) {
	n, err := o.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = damaged(err, "snapshot %s", o.id)
	}
	return n, err
}

// reap removes all but the newest snapshots. It goes by names, so that a
// snapshot that does not open goes too when its time comes.
func (s *Snapshots) reap() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names[min(len(names), retained):] {
		errs = append(errs, os.Remove(s.path(n.id())))
	}
	return errors.Join(errs...)
}
