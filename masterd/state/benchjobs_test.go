package state_test

import (
	"encoding/json"
	"testing"

	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// BenchmarkSmallJob is what a job that changes nothing costs a voter besides
// raft, when as many jobs are remembered as may be: it is submitted and ended,
// each proposed once and applied once.
func BenchmarkSmallJob(b *testing.B) {
	l := statetest.New(b)
	op := state.JobSubmit{
		Ops:     []json.RawMessage{json.RawMessage(`{"OP_ID":"OP_NODE_SET_PARAMS","node_name":"node1.lab.test","vm_capable":true}`)},
		Summary: []string{"NODE_SET_PARAMS(node1.lab.test)"},
	}
	one := func() {
		id := commit(b, l, state.KindJobSubmit, op).JobID
		commit(b, l, state.KindJobUpdate, state.JobUpdate{
			ID: id, Status: state.JobSuccess, OpStatus: []state.JobStatus{state.JobSuccess}, OpResult: []json.RawMessage{json.RawMessage(`[]`)},
		})
	}
	for range state.MaxEndedJobs {
		one()
	}
	for b.Loop() {
		one()
	}
}

// commit does what raft does with a command, and keeps no log of it.
func commit(b *testing.B, l *statetest.Lab, kind string, body any) state.Result {
	c, err := state.Propose(l.S, kind, body, state.Meta{Time: l.Now, Actor: "root@node1", RequestID: "r1"})
	if err != nil {
		b.Fatal(err)
	}
	text, err := state.EncodeCommand(c)
	if err == nil {
		c, err = state.DecodeCommand(text)
	}
	if err != nil {
		b.Fatal(err)
	}
	next, res := l.S.Apply(c, 1, 1)
	if res.Err != nil {
		b.Fatal(res.Err)
	}
	l.S = next
	return res
}
