// Package vcluster runs a whole Rolekey cluster in one process: for each node
// the real noded and the real masterd, on a network in memory, in the virtual
// time of testing/synctest. Minutes of leases and a year of silence pass in
// milliseconds, and a node can be cut off, paused or killed at an exact moment.
//
// What is real: both daemons, TLS, raft, memberlist, the files on disk. What is
// not: the network (internal/memnet), the unix sockets, the clock, and sshd, of
// which only the files are looked at.
//
// A Cluster is made, used and closed inside one bubble, by the bubble's main
// goroutine alone.
package vcluster
