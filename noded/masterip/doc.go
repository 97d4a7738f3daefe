// Package masterip holds the cluster's own address on the node that is master:
// docs/operations.rst, "The cluster address".
//
// Guaranteed: an address goes onto a device only while a fresh map names this
// node as master, and for a lifetime that the kernel counts, never longer than
// the lease that is left. So the kernel takes it away from a node whose noded
// is dead, too. An address that somebody else put there is reported, and never
// changed or removed; a file says which one is ours.
//
// Decide is pure. A Holder has one Run; Poke and Status may be called
// concurrently.
package masterip
