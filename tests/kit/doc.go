// Package kit is what the demo, the end-to-end tests and the benchmarks share:
// an attacker's tools, and short ways to ask a running cluster.
//
// It plays the attackers of the design with their own means. A Loot is what
// root of a node copies from its disk; a Caller speaks TLS 1.3 and HTTP/2 with
// any stolen certificate, through the Go standard library alone, so that no
// check of Rolekey's own client stands between an attack and the server that
// must refuse it. Nothing here is used by the daemons.
//
// Callers dial from inside the cluster's network namespace: Inside runs a
// function of the program there.
package kit
