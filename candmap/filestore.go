package candmap

import (
	"encoding/json"
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

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

// FileStore keeps a Keeper's data in a folder:
//
//	current.json                     the map in force
//	last                             the newest time heard
//	chain/EPOCH.VERSION-HASH-KIND.json
//	roster/HASH.json, roster/index   documents, and the hash of the index
//	evidence/HASH-HASH.json          pairs of documents that contradict
//
// The current map, the newest time, evidence, and maps that changed the
// authority are synced. The roster and other maps are not: they prove
// themselves by hash, and are fetched again if power loss took them.
type FileStore struct {
	dir string

	mu   sync.Mutex
	docs map[cluster.Digest]bool // roster documents that this run wrote or read whole
}

const (
	kindAuthority = "authority"
	kindRecent    = "recent"
)

// NewFileStore opens the folder, makes it if it is not there, and clears what
// interrupted writes left.
func NewFileStore(dir string) (*FileStore, error) {
	for _, d := range []string{dir, filepath.Join(dir, "chain"), filepath.Join(dir, "roster"), filepath.Join(dir, "evidence")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open map store: %w", err)
		}
		if err := atomicfile.RemoveTemp(d); err != nil {
			return nil, fmt.Errorf("open map store: %w", err)
		}
	}
	return &FileStore{dir: dir, docs: map[cluster.Digest]bool{}}, nil
}

func (s *FileStore) in(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// Load implements Store.
func (s *FileStore) Load() (saved Saved, err error) {
	if saved.Current, err = readMax(s.in("current.json"), MaxEnvelope); err != nil {
		return Saved{}, fmt.Errorf("load map: %w", err)
	}
	if saved.Links, err = s.links(); err != nil {
		return Saved{}, err
	}
	// Both of these only ever cost time when they are lost.
	if b, err := readMax(s.in("last"), 64); err == nil {
		saved.Last, _ = time.Parse(timeLayout, strings.TrimSpace(string(b)))
	}
	if b, err := readMax(s.in("roster", "index"), 128); err == nil {
		saved.Roster, _ = cluster.ParseDigest(strings.TrimSpace(string(b)))
	}
	names, err := os.ReadDir(s.in("evidence"))
	if err != nil {
		return Saved{}, fmt.Errorf("count evidence: %w", err)
	}
	saved.Forks = len(names)
	return saved, nil
}

func (s *FileStore) links() ([]Link, error) {
	entries, err := os.ReadDir(s.in("chain"))
	if err != nil {
		return nil, fmt.Errorf("list chain: %w", err)
	}
	var links []Link
	for _, e := range entries {
		if l, ok := parseLinkName(e.Name()); ok {
			links = append(links, l)
		}
	}
	return links, nil
}

func linkName(l Link) string {
	kind := kindRecent
	if l.Authority {
		kind = kindAuthority
	}
	return l.At.String() + "-" + l.Hash.String() + "-" + kind + ".json"
}

func parseLinkName(name string) (Link, bool) {
	parts := strings.Split(strings.TrimSuffix(name, ".json"), "-")
	if len(parts) != 3 {
		return Link{}, false
	}
	at, err1 := cluster.ParseVersion(parts[0])
	hash, err2 := cluster.ParseDigest(parts[1])
	l := Link{At: at, Hash: hash, Authority: parts[2] == kindAuthority}
	return l, err1 == nil && err2 == nil && linkName(l) == name
}

// SaveCurrent implements Store.
func (s *FileStore) SaveCurrent(env Envelope) error {
	return atomicfile.Write(s.in("current.json"), env.Encode(), atomicfile.Durable(0o600))
}

// SaveLink implements Store.
func (s *FileStore) SaveLink(l Link, env Envelope) error {
	opts := atomicfile.Derived(0o600)
	if l.Authority {
		opts = atomicfile.Durable(0o600)
	}
	return atomicfile.Write(s.in("chain", linkName(l)), env.Encode(), opts)
}

// Link implements Store.
func (s *FileStore) Link(l Link) (Envelope, error) {
	b, err := readMax(s.in("chain", linkName(l)), MaxEnvelope)
	if err != nil {
		return Envelope{}, fmt.Errorf("read map %s: %w", l.At, err)
	}
	return ParseEnvelope(b)
}

// DropLink implements Store.
func (s *FileStore) DropLink(l Link) error {
	return removeFile(s.in("chain", linkName(l)))
}

// SaveLast implements Store.
func (s *FileStore) SaveLast(t time.Time) error {
	return atomicfile.Write(s.in("last"), []byte(t.UTC().Format(timeLayout)+"\n"), atomicfile.Durable(0o600))
}

// SaveRoster implements Store. The documents come before the index that names
// them, and old ones go last, so that at any instant one roster is whole.
func (s *FileStore) SaveRoster(index cluster.Digest, docs map[cluster.Digest][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, b := range docs {
		if err := s.saveDoc(d, b); err != nil {
			return err
		}
	}
	if err := atomicfile.Write(s.in("roster", "index"), []byte(index.String()+"\n"), atomicfile.Derived(0o600)); err != nil {
		return err
	}
	return s.pruneDocs(docs)
}

// saveDoc writes a document unless it is known to be there: of a large roster
// nearly all are.
func (s *FileStore) saveDoc(d cluster.Digest, b []byte) error {
	if s.docs[d] {
		return nil
	}
	if have, err := s.Doc(d); err != nil || have == nil {
		if err := atomicfile.Write(s.docPath(d), b, atomicfile.Derived(0o600)); err != nil {
			return err
		}
	}
	s.docs[d] = true
	return nil
}

func (s *FileStore) pruneDocs(keep map[cluster.Digest][]byte) error {
	entries, err := os.ReadDir(s.in("roster"))
	if err != nil {
		return fmt.Errorf("list roster: %w", err)
	}
	var errs []error
	for _, e := range entries {
		d, err := cluster.ParseDigest(strings.TrimSuffix(e.Name(), ".json"))
		if err == nil && keep[d] == nil {
			delete(s.docs, d)
			errs = append(errs, removeFile(s.docPath(d)))
		}
	}
	return errors.Join(errs...)
}

func (s *FileStore) docPath(d cluster.Digest) string { return s.in("roster", d.String()+".json") }

// Doc implements Store. A document that is damaged counts as lost.
func (s *FileStore) Doc(d cluster.Digest) ([]byte, error) {
	b, err := readMax(s.docPath(d), MaxBucket)
	if err != nil {
		return nil, fmt.Errorf("read roster document: %w", err)
	}
	if cluster.DigestOf(b) != d {
		return nil, nil
	}
	return b, nil
}

// SaveEvidence implements Store.
func (s *FileStore) SaveEvidence(held, other Envelope) (kept bool, err error) {
	entries, err := os.ReadDir(s.in("evidence"))
	if err != nil {
		return false, fmt.Errorf("list evidence: %w", err)
	}
	name := held.Hash().String() + "-" + other.Hash().String() + ".json"
	known := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	if known || len(entries) >= MaxForks {
		return false, nil
	}
	b, err := json.Marshal(struct {
		Held  Envelope `json:"held"`
		Other Envelope `json:"other"`
	}{held, other})
	if err != nil {
		return false, fmt.Errorf("encode evidence: %w", err)
	}
	return true, atomicfile.Write(s.in("evidence", name), b, atomicfile.Durable(0o600))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	return nil
}

// readMax reads a file of at most limit bytes; nil if it is not there. A file
// that is longer is returned cut, and so damaged.
func readMax(path string, limit int64) (b []byte, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err = io.ReadAll(io.LimitReader(f, limit+1))
	if b == nil {
		b = []byte{}
	}
	return b, err
}
