// Package candmap holds the candidate map: the signed list of the nodes that
// may act as root on the cluster, and everything that decides which such list
// a node believes. It also holds the roster (all nodes, content-addressed),
// the beacon (a signed "still current"), and the lease (how long that lasts).
//
// What it guarantees: a map is accepted only if the voters that the receiver
// already trusts signed it, it is strictly newer than the one held, and its
// bytes are the one canonical encoding of a valid map. Nothing is parsed as a
// map before its signatures verify. Enforcement of a newer map never waits for
// the disk.
//
// Envelopes follow DSSE v1 (https://github.com/secure-systems-lab/dsse),
// signatures are Ed25519 (RFC 8032), and the rule for changes of authority is
// that of the root role of TUF. The formats are specified, with vectors in
// testdata, in docs/candidate-map.rst.
//
// Documents, Verified, Roster, View and Lease are immutable values and safe
// for concurrent use; so are all methods of Keeper. Except for FileStore
// and SystemClocks, which are for a Keeper to be given, the package does no I/O
// and reads no clock.
package candmap
