package noded

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"rolekey/internal/atomicfile"
)

// terms is the node's rpc.TermStore: one number in one file.
type terms struct {
	path string
	mu   sync.Mutex
	held atomic.Uint64
}

func openTerms(dir string) (*terms, error) {
	t := &terms{path: filepath.Join(dir, termFile)}
	b, err := readSmall(t.path)
	if err != nil {
		return nil, fmt.Errorf("read term: %w", err)
	}
	if b == nil {
		return t, nil
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read term: %s holds no number", t.path)
	}
	t.held.Store(n)
	return t, nil
}

// Highest implements rpc.TermStore.
func (t *terms) Highest() uint64 { return t.held.Load() }

// Raise implements rpc.TermStore.
func (t *terms) Raise(term uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if term <= t.held.Load() {
		return nil
	}
	err := atomicfile.Write(t.path, []byte(strconv.FormatUint(term, 10)+"\n"), atomicfile.Durable(0o600))
	if err != nil {
		return err
	}
	t.held.Store(term)
	return nil
}
