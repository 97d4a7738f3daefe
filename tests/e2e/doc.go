// Package e2e holds the tests that need whole clusters: real daemons, a real
// sshd on every node, real commands. They prove what no single package can:
// that a change of role is effective everywhere, that a crash at any moment
// leaves nothing half done (G7), and that none of the weaknesses measured on a
// real Ganeti (W1-W10) exists here.
//
// TestMain brings two clusters up, of the programs in bin/, and runs the tests
// inside the namespaces of the first one, where its nodes' addresses are. With
// -short all tests are skipped.
//
//	make build && go test ./tests/e2e
package e2e
