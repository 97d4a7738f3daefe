// Package lab runs a whole Rolekey cluster on one machine, for tests, the demo
// and daily work: real daemons, a real sshd per node, and real cuts in the
// network. Package tools/devcluster is its command line.
//
// Isolation "loopback" gives each node a directory tree (its --root), an
// address of its own in 127.0.0.0/8 and an sshd on a high port of that
// address. It needs no privileges. Where the kernel allows it, the cluster
// lives in a network and mount namespace of its own (for an ordinary user
// inside a user namespace, see user_namespaces(7)); then partitions work, by
// policy routing (ip-rule(8)) and without any hook in the daemons: packets
// between cut nodes go to a device that drops them silently. Where namespaces
// are forbidden the cluster uses the host's loopback under a random prefix, and
// Partition answers ErrNoNamespaces.
//
// One holder process per cluster owns everything: it is the parent of all
// daemons, reaps orphans (PR_SET_CHILD_SUBREAPER), keeps DIR/cluster.json and
// serves requests on DIR/holder.sock. It ends, and all its descendants with it,
// on Down, on SIGTERM, when DIR or the socket is removed, and, unless the
// cluster was detached, when the process that called Up goes away. Daemons die
// with a killed holder through PR_SET_PDEATHSIG.
//
// The holder is the calling program itself, executed again: a program that
// calls Up must call Main first.
//
// A Cluster may be used by several goroutines at once.
package lab
