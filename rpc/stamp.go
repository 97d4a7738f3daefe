package rpc

import (
	"cmp"
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

// Newer reports whether s is of a newer map than t, or of a higher term under
// the same map.
func (s Stamp) Newer(t Stamp) bool {
	return cmp.Or(s.Version.Compare(t.Version), cmp.Compare(s.Term, t.Term)) > 0
}

// TermStore remembers the newest stamp that this node obeyed. It outlives the
// process. Both methods may be called concurrently.
//
// A term counts under its map only: the map is signed by a majority, the term
// is the master's word alone. Otherwise one hostile master could name the
// highest term there is, and no other master would ever be obeyed again.
type TermStore interface {
	Highest() Stamp      // zero: none
	Raise(s Stamp) error // durable when it returns; ignores what is not newer
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
func (s Stamp) check(held cluster.Version, highest Stamp) error {
	switch {
	case held.Newer(s.Version):
		return &StampError{cluster.Errorf(cluster.CodeMapOlder, "the order names map %s, this node holds %s", s.Version, held), held}
	case highest.Version.Newer(s.Version): // the node lost the map by which it obeyed
		return &StampError{cluster.Errorf(cluster.CodeMapOlder, "the order names map %s, this node obeyed one by map %s", s.Version, highest.Version), highest.Version}
	case s.Version.Newer(held):
		return &StampError{cluster.Errorf(cluster.CodeConflict, "the order names map %s, this node still holds %s", s.Version, held).
			WithHint("deliver the map, then repeat the call"), held}
	case highest.Newer(s):
		return cluster.Errorf(cluster.CodeTermOlder, "the order is of term %d, this node obeyed one of term %d by the same map", s.Term, highest.Term).
			WithHint("the master was elected again since")
	}
	return nil
}

type stampKey struct{}

// WithStamp sets the stamp of the mutating calls made with the context. A
// caller that acts by a particular map says so; others leave it to the client.
func WithStamp(ctx context.Context, s Stamp) context.Context {
	return context.WithValue(ctx, stampKey{}, s)
}
