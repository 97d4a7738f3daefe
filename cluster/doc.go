// Package cluster holds the words of the domain as types: node identities,
// roles and flags, digests, versions, host names, and the errors that cross
// the wire. Everything above speaks in these types, so a string that reached
// a file or a command line has passed one of the parsers here.
//
// The package does no I/O, reads no clock and has no mutable state; all of it
// may be used concurrently.
package cluster
