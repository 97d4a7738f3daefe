package state_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func submit(l *statetest.Lab, ops int) int64 {
	l.TB.Helper()
	c := state.JobSubmit{Step: "plan"}
	for i := range ops {
		c.Ops = append(c.Ops, json.RawMessage(fmt.Sprintf(`{"OP_ID":"OP_TEST_DELAY","n":%d}`, i)))
		c.Summary = append(c.Summary, fmt.Sprintf("TEST_DELAY(%d)", i))
	}
	return l.Do(state.KindJobSubmit, c).JobID
}

func TestJobRunsThroughItsStatuses(t *testing.T) {
	l := statetest.New(t)
	id := submit(l, 2)
	if id != 1 || l.S.Jobs[id].Status != state.JobQueued || l.S.Jobs[id].Actor != "root@node1" {
		t.Fatalf("job %d: %+v", id, l.S.Jobs[id])
	}
	l.Do(state.KindJobUpdate, state.JobUpdate{
		ID: id, Status: state.JobRunning, Step: new("publish"), Data: json.RawMessage(`{"v":1}`),
		Log: []state.LogLine{{Op: 0, Text: "first"}, {Op: 1, Text: "second"}}, Progress: []string{"1 of 2 nodes"},
	})
	until := l.Now.Add(time.Minute)
	l.Do(state.KindJobUpdate, state.JobUpdate{
		ID: id, Status: state.JobSuccess, OpResult: []json.RawMessage{json.RawMessage(`[["offline","True"]]`), json.RawMessage(`null`)},
		Unreachable: &[]state.Unreachable{{Node: "node9", RPCUntil: &until}},
	})
	j := l.S.Jobs[id]
	switch {
	case j.Status != state.JobSuccess || j.OpStatus[0] != state.JobSuccess || j.OpStatus[1] != state.JobSuccess:
		t.Fatalf("status %s, ops %v", j.Status, j.OpStatus)
	case j.Start.IsZero() || !j.End.After(j.Start) || j.Step != "publish" || string(j.Data) != `{"v":1}`:
		t.Fatalf("%+v", j)
	case j.Log[0][0].Serial != 1 || j.Log[1][0].Serial != 2 || j.Log[1][0].Type != "message" || len(j.Progress) != 1:
		t.Fatalf("log %+v", j.Log)
	case len(j.Unreachable) != 1 || !j.Unreachable[0].RPCUntil.Equal(until) || j.Unreachable[0].SSHUntil != nil:
		t.Fatalf("unreachable %+v", j.Unreachable)
	}
	if _, err := l.Try(state.KindJobUpdate, state.JobUpdate{ID: id, Progress: []string{"late"}}); code(err) != cluster.CodeConflict {
		t.Fatalf("an update of an ended job: %v", err)
	}
}

// TestCanceledJobChangesNothing: the change that a job commits carries the
// job's own update, so one that was canceled in between cannot take effect.
func TestCanceledJobChangesNothing(t *testing.T) {
	l := statetest.New(t)
	l.Add(2)
	id := submit(l, 1)
	change := changeFlags(2, "offline", true)
	change.Job = &state.JobUpdate{ID: id, Status: state.JobRunning}
	c, err := state.Propose(l.S, state.KindNodeChange, change, state.Meta{Time: l.Now})
	if err != nil {
		t.Fatal(err)
	}
	l.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobCanceled})
	if next, res := l.S.Apply(c, 50, 1); res.Err == nil || next.Node(statetest.ID(2)).Flags.Offline {
		t.Fatalf("a canceled job set the node offline: %+v", res)
	}
	if _, err := l.Try(state.KindNodeChange, change); code(err) != cluster.CodeConflict {
		t.Fatalf("%v", err)
	}
}

func TestJobRefusals(t *testing.T) {
	l := statetest.New(t)
	id := submit(l, 1)
	op := []json.RawMessage{json.RawMessage(`{}`)}
	big := json.RawMessage(`{"x":"` + strings.Repeat("x", state.MaxOp) + `"}`)
	for name, try := range map[string]struct {
		kind string
		body any
	}{
		"no ops":            {state.KindJobSubmit, state.JobSubmit{}},
		"no summary":        {state.KindJobSubmit, state.JobSubmit{Ops: op}},
		"op no object":      {state.KindJobSubmit, state.JobSubmit{Ops: []json.RawMessage{json.RawMessage(`7`)}, Summary: []string{"x"}}},
		"op too large":      {state.KindJobSubmit, state.JobSubmit{Ops: []json.RawMessage{big}, Summary: []string{"x"}}},
		"unknown job":       {state.KindJobUpdate, state.JobUpdate{ID: 99}},
		"unknown status":    {state.KindJobUpdate, state.JobUpdate{ID: id, Status: "resting"}},
		"no such op":        {state.KindJobUpdate, state.JobUpdate{ID: id, Log: []state.LogLine{{Op: 1}}}},
		"negative op":       {state.KindJobUpdate, state.JobUpdate{ID: id, Log: []state.LogLine{{Op: -1}}}},
		"too many statuses": {state.KindJobUpdate, state.JobUpdate{ID: id, OpStatus: []state.JobStatus{state.JobError, state.JobError}}},
		"result too large":  {state.KindJobUpdate, state.JobUpdate{ID: id, OpResult: []json.RawMessage{big}}},
	} {
		if _, err := l.Try(try.kind, try.body); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestJobQueueIsBounded(t *testing.T) {
	l := statetest.New(t)
	for range state.MaxActiveJobs {
		submit(l, 1)
	}
	c := state.JobSubmit{Ops: []json.RawMessage{json.RawMessage(`{}`)}, Summary: []string{"x"}}
	if _, err := l.Try(state.KindJobSubmit, c); code(err) != cluster.CodeBusy {
		t.Fatalf("job %d: %v", state.MaxActiveJobs+1, err)
	}
}

func TestEndedJobsAreForgottenAndNumbersNotReused(t *testing.T) {
	l := statetest.New(t)
	const n = state.MaxEndedJobs + 5
	for range n {
		l.Do(state.KindJobUpdate, state.JobUpdate{ID: submit(l, 1), Status: state.JobSuccess})
	}
	if len(l.S.Jobs) != state.MaxEndedJobs || l.S.Jobs[5] != nil || l.S.Jobs[6] == nil {
		t.Fatalf("%d jobs kept", len(l.S.Jobs))
	}
	live := submit(l, 1)
	l.Do(state.KindJobArchive, state.JobArchive{IDs: []int64{n, live, 12345}})
	if l.S.Jobs[n] != nil || l.S.Jobs[live] == nil {
		t.Fatal("archive forgot a live job or kept an ended one")
	}
	if id := submit(l, 1); id != n+2 {
		t.Fatalf("job number %d, want %d", id, n+2)
	}
}

func TestJobLogIsBounded(t *testing.T) {
	l := statetest.New(t)
	id := submit(l, 2)
	lines := make([]state.LogLine, 100)
	for i := range lines {
		lines[i] = state.LogLine{Op: i % 2, Text: strings.Repeat("x", state.MaxLogText+10)}
	}
	l.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Log: lines})
	short := make([]state.LogLine, 3000)
	for i := range short {
		short[i] = state.LogLine{Text: "é"}
	}
	first := l.S.Jobs[id]
	size := 0
	for _, op := range first.Log {
		for _, e := range op {
			size += len(e.Text)
		}
	}
	if size > state.MaxLogBytes || first.LogSerial != 100 || first.Log[1][len(first.Log[1])-1].Serial != 100 {
		t.Fatalf("%d bytes of log, serial %d", size, first.LogSerial)
	}
	l.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Log: short})
	if j := l.S.Jobs[id]; len(j.Log[0])+len(j.Log[1]) != state.MaxLogEntries || j.Log[0][len(j.Log[0])-1].Serial != 3100 {
		t.Fatalf("%d entries of log", len(j.Log[0])+len(j.Log[1]))
	}
}
