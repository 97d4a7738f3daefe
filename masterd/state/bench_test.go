package state_test

import (
	"testing"

	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// BenchmarkNodeChange is what a role change costs a voter besides raft: deriving
// the map of a cluster of a thousand nodes, once to propose and once to apply.
func BenchmarkNodeChange(b *testing.B) {
	l := statetest.New(b)
	for i := 2; i <= 1000; i++ {
		l.Add(i)
	}
	on := true
	for b.Loop() {
		change := changeFlags(500, "offline", on)
		c, err := state.Propose(l.S, state.KindNodeChange, change, state.Meta{Time: l.Now})
		if err != nil {
			b.Fatal(err)
		}
		next, res := l.S.Apply(c, 1, 1)
		if res.Err != nil {
			b.Fatal(res.Err)
		}
		l.S, on = next, !on
	}
}
