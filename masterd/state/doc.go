// Package state is the replicated intent of a cluster: nodes and flags,
// parameters, the chain of candidate maps, jobs, admission records and the
// cluster's own keys, as a state machine that raft drives.
//
// It is pure and total. It reads no clock, does no I/O and draws no random
// number: time, identifiers and keys arrive in commands. Apply is a function
// of the state and the command, never panics, and answers a command that does
// not fit with an error and the state unchanged. Two replicas that apply the
// same commands hold byte-equal snapshots.
//
// Every command that changes what the candidate map or the roster says carries
// the exact payload of the map that it yields, and Apply derives that payload
// again: a command made for another state conflicts instead of committing
// something that nobody may sign. So a voter can sign whatever its own state
// holds at the head of the chain.
//
// A *State is immutable once Apply has returned it, everything reachable from
// it included: it may be read concurrently and kept for any time. Secrets
// appear only in EncodeCommand and EncodeSnapshot, whose output the caller
// seals.
package state
