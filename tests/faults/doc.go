// Package faults is the catalogue of what can go wrong with a cluster, and what
// gnt-cluster verify says of it: each fault is put into a running cluster, alone
// and with others, verify must report exactly that, and then --repair, the remedy
// that verify tells, or the cluster by itself puts it right.
package faults
