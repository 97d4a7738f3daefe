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
// Isolation "netns", which needs root, makes a machine of each node: network,
// mount, pid, uts and ipc namespaces of its own, its name as host name, and a
// wire to a bridge in the holder's network namespace, with an IPv4 and an IPv6
// address. Its /root, /run, /tmp, /etc/ssh, /etc/rolekey, /var/lib/rolekey and
// /var/log/rolekey are folders of its tree, so that tests read and write them
// from outside (Node.File); /etc, /var and /usr/sbin are the machine's below a
// layer in memory that takes what the node writes. All else is the machine's. The
// daemons run at the real paths, without --root and without any setting that an
// installation does not have: masterd as its own user, sshd on port 22 with
// StrictModes and, where this machine has it, PAM. Partitions are routes to a
// device that drops silently, in the namespaces of both sides. Commands of Exec
// run inside all namespaces of the node. This machine's network, files and
// processes are not touched, and the holder's end takes all of it away: the first
// process of each node dies with it, and the kernel ends a pid namespace with
// its first process.
//
// One holder process per cluster owns everything: it is the parent of all
// daemons, reaps orphans (PR_SET_CHILD_SUBREAPER), keeps DIR/cluster.json and
// serves requests on DIR/holder.sock. It ends, and all its descendants with it,
// on Down, on SIGTERM, when DIR or the socket is removed, and, unless the
// cluster was detached, when the process that called Up goes away. Daemons die
// with a killed holder through PR_SET_PDEATHSIG.
//
// The holder is the calling program itself, executed again, and so is the first
// process of a node with netns: a program that calls Up must call Main first.
//
// A Cluster may be used by several goroutines at once.
package lab
