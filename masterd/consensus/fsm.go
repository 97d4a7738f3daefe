package consensus

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// fsm keeps the replicated state. Raft calls Apply and Restore from one
// goroutine; readers load the pointer.
type fsm struct {
	current atomic.Pointer[state.State]
	stopped atomic.Bool // an entry could not be applied
	fatal   func(error)

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
}

func newFSM(fatal func(error)) *fsm {
	f := &fsm{fatal: fatal, changed: make(chan struct{})}
	f.current.Store(state.New())
	return f
}

// watch returns a channel that closes at the next change.
func (f *fsm) watch() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fsm) set(s *state.State) {
	f.current.Store(s)
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.changed = make(chan struct{})
}

// errStopped answers for every entry from one on that this release does not
// understand.
var errStopped = cluster.Errorf(cluster.CodeUnsupportedFormat, "raft's log holds an entry that this release does not understand").
	WithHint("upgrade this node")

// Apply implements raft.FSM. A command that this release does not know stops
// the daemon: to skip it would be to disagree with the other candidates. Until
// the daemon has ended, nothing later is applied either.
func (f *fsm) Apply(l *raft.Log) any {
	if f.stopped.Load() {
		return state.Result{Err: errStopped}
	}
	cmd, err := state.DecodeCommand(l.Data)
	if err != nil {
		f.stopped.Store(true)
		f.fatal(fmt.Errorf("apply raft entry %d: %w; this release is too old for the cluster's log, or the log is damaged", l.Index, err))
		return state.Result{Err: errStopped}
	}
	next, result := f.current.Load().Apply(cmd, l.Index, l.Term)
	f.set(next)
	return result
}

// Snapshot implements raft.FSM; the state is immutable, so it costs nothing.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.stopped.Load() { // it lacks an entry that raft counts as applied
		return nil, fmt.Errorf("snapshot: %w", errStopped)
	}
	return snapshot{f.current.Load()}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) (err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err := io.ReadAll(io.LimitReader(r, maxSnapshot+1))
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	s, err := state.DecodeSnapshot(b)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	f.set(s)
	return nil
}

type snapshot struct{ s *state.State }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	b, err := state.EncodeSnapshot(s.s)
	if err == nil {
		_, err = sink.Write(b)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}
