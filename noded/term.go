package noded

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"rolekey/internal/atomicfile"
	"rolekey/rpc"
)

// terms is the node's rpc.TermStore: one line in one file, the newest stamp
// that the node obeyed, in the form of the header.
type terms struct {
	path string
	mu   sync.Mutex // for writers
	held atomic.Pointer[rpc.Stamp]
}

func openTerms(dir string) (*terms, error) {
	t := &terms{path: filepath.Join(dir, termFile)}
	t.held.Store(&rpc.Stamp{})
	b, err := readSmall(t.path)
	if err != nil {
		return nil, fmt.Errorf("read term: %w", err)
	}
	if b == nil {
		return t, nil
	}
	line, ok := strings.CutSuffix(string(b), "\n")
	s, err := rpc.ParseStamp(line)
	if !ok || err != nil {
		return nil, fmt.Errorf("read term: %s does not hold a map version and a term", t.path)
	}
	t.held.Store(&s)
	return t, nil
}

// Highest implements rpc.TermStore.
func (t *terms) Highest() rpc.Stamp { return *t.held.Load() }

// Raise implements rpc.TermStore.
func (t *terms) Raise(s rpc.Stamp) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !s.Newer(t.Highest()) {
		return nil
	}
	if err := atomicfile.Write(t.path, []byte(s.String()+"\n"), atomicfile.Durable(0o600)); err != nil {
		return err
	}
	t.held.Store(&s)
	return nil
}
