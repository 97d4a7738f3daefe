// Package masterd is the daemon of a candidate: it takes part in raft, signs
// maps and beacons, and while it leads it is the cluster's master.
//
// The leader turns every change into one raft entry that holds the intent and
// the exact candidate map which follows from it, collects a majority of the
// voters' signatures on that map, and publishes it to all nodes. It then makes
// reality match the intent, level by level, for as long as it leads.
//
// Guarantees: a map is published only after it is committed, and signed only
// by voters whose own log yields the same bytes; one version is never signed
// in two forms; a leader that cannot commit stops leading; nothing that is
// begun needs the same master to end it.
//
// The rooms below are: state (the replicated intent, pure), roles (the planner,
// pure), consensus (raft), jobs, verify, keyserver, rapi. This package wires
// them. A Daemon is run once; its methods may be called concurrently.
package masterd
