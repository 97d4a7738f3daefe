package rpc

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"rolekey/cluster"
)

// StampHeader carries the Stamp of a mutating call.
const StampHeader = "Rolekey-Stamp"

const maxStamp = 64

// Stamp says by which map and in which raft term a master orders a change. A
// node that knows better refuses, so that a deposed master changes nothing.
type Stamp struct {
	Version cluster.Version
	Term    uint64
}

// String returns the form of the header: "epoch.version term".
func (s Stamp) String() string {
	return s.Version.String() + " " + strconv.FormatUint(s.Term, 10)
}

// ParseStamp reads the form that String returns.
func ParseStamp(text string) (Stamp, error) {
	bad := cluster.Errorf(cluster.CodeBadFormat, "the call changes the node, and has no valid header %s", StampHeader)
	if len(text) > maxStamp {
		return Stamp{}, bad
	}
	v, t, ok := strings.Cut(text, " ")
	version, err1 := cluster.ParseVersion(v)
	term, err2 := strconv.ParseUint(t, 10, 64)
	s := Stamp{version, term}
	if !ok || err1 != nil || err2 != nil || s.String() != text {
		return Stamp{}, bad
	}
	return s, nil
}

// TermStore remembers the highest term of which this node obeyed an order. It
// outlives the process. Both methods may be called concurrently.
type TermStore interface {
	Highest() uint64
	Raise(term uint64) error // durable when it returns; never lowers
}

// StampError is a refusal that tells which map the node holds: the caller's
// stamp named another one.
type StampError struct {
	Refusal *cluster.Error
	Held    cluster.Version
}

// Error implements error.
func (e *StampError) Error() string { return e.Refusal.Error() }

// Unwrap gives the plain refusal.
func (e *StampError) Unwrap() error { return e.Refusal }

// behind reports whether err says that the node holds an older map than the
// stamp names: delivering the map cures that.
func behind(err error, stamp Stamp) bool {
	var se *StampError
	return errors.As(err, &se) && se.Refusal.Code == cluster.CodeConflict && stamp.Version.Newer(se.Held)
}

// check compares a stamp with what the node knows.
func (s Stamp) check(held cluster.Version, highest uint64) error {
	switch c := held.Compare(s.Version); {
	case s.Term < highest:
		return cluster.Errorf(cluster.CodeTermOlder, "the order is of term %d, this node obeyed one of term %d", s.Term, highest).
			WithHint("another node was elected master since")
	case c > 0:
		return &StampError{cluster.Errorf(cluster.CodeMapOlder, "the order names map %s, this node holds %s", s.Version, held), held}
	case c < 0:
		return &StampError{cluster.Errorf(cluster.CodeConflict, "the order names map %s, this node still holds %s", s.Version, held).
			WithHint("deliver the map, then repeat the call"), held}
	}
	return nil
}

type stampKey struct{}

// WithStamp sets the stamp of the mutating calls made with the context. A
// caller that acts by a particular map says so; others leave it to the client.
func WithStamp(ctx context.Context, s Stamp) context.Context {
	return context.WithValue(ctx, stampKey{}, s)
}
