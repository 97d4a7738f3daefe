// Package cli is what gnt-cluster, gnt-node and gnt-job have in common, and
// the commands themselves: clients of RAPI on masterd's root-only socket, and,
// for what a node must answer before or without a master, of noded's.
//
// What was asked for goes to standard output, everything else to standard
// error. Whatever prints also prints JSON. Exit codes are in exit.go, and the
// same for all commands; texts of failures are Ganeti's where it has one.
//
// A command makes one connection, does one thing and ends; nothing here is
// meant to be used concurrently.
package cli
