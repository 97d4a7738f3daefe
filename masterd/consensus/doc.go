// Package consensus keeps the replicated log: raft's stores on disk, and raft
// itself on Rolekey's transport.
//
// # Stores
//
// Store is raft's log and stable store in one bbolt file, Snapshots its
// snapshot store in one folder. Every record is sealed with the node's own
// data key (package seal; formats in docs/at-rest.rst). raft, transport and
// FSM see plaintext, so every node has its own keys and a snapshot can still
// be installed on another one.
//
// Guarantees: what StoreLogs, Set and Close of a snapshot reported as done
// survives kill -9 and power loss. A record that was changed, moved to another
// index or taken from another node is an error and never data. A crash leaves
// nothing that keeps the next start from working.
//
// Call Probe before raft.NewRaft: raft panics on a record that does not open.
//
// # Concurrency
//
// Store and Snapshots may be used concurrently; readers of the log wait for no
// writer. A snapshot sink and an opened snapshot belong to one goroutine.
//
// Source: Ongaro, Ousterhout: In Search of an Understandable Consensus
// Algorithm, 2014; interfaces of github.com/hashicorp/raft v1.8.0.
package consensus

import (
	"errors"
	"fmt"
)

var (
	// ErrInUse says that another process has raft.db open.
	ErrInUse = errors.New("raft.db is in use by another process: is a second masterd running?")

	// errMalformed is a sealed record whose content does not parse.
	errMalformed = errors.New("malformed content")
)

// DamageError says which part of the raft state cannot be used, and why. The
// cause is one of package seal's errors where a record did not open.
type DamageError struct {
	Part string // such as "log entry 17" or "snapshot 3-100-1700000000000"
	Err  error
}

// Error implements error.
func (e *DamageError) Error() string { return fmt.Sprintf("raft state: %s: %v", e.Part, e.Err) }

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

func damaged(err error, format string, args ...any) error {
	return &DamageError{Part: fmt.Sprintf(format, args...), Err: err}
}
