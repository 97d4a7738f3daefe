// Package noded is the node daemon: it runs as root on every machine of a
// cluster and makes that machine follow the signed candidate map.
//
// It holds the verified map and roster, gates every call by them, keeps root's
// authorized_keys and known_hosts in step, creates and destroys the node's SSH
// key, tells masterd on the same machine what the map says, and renews the
// node's certificates. It makes the node a member (init, join) and takes it
// out again (leave).
//
// Guarantees: only the verified map decides who is authorized (G10); a newer
// map closes what it revokes, first sockets, then handlers in flight, then
// authorized_keys, before it is persisted and acknowledged (G4); init, join and
// leave survive a crash at any instant, and running them again completes them
// (G7); a node that loses the candidate role loses its keys (G5).
//
// A Daemon runs once. Its exported methods may be called concurrently.
package noded
