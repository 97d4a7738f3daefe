// Package roles plans changes of roles: from the replicated state and a
// request to ordered steps, and from a view of raft to the one next step that
// brings its voters where they should be.
//
// It is pure: no I/O, no clock, no random choice, so the same state and
// request give the same plan on every master. What Ganeti refuses is refused
// with Ganeti's words and classes (lib/cmdlib/node.py); where Ganeti goes
// wrong the comment says what is done instead. In every plan the revocation
// comes first among the effects, and never waits for a promotion.
//
// Everything here may be used concurrently.
package roles
