package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"rolekey/masterd/state"
)

func (m *machine) submitted() int64 {
	return m.b.Do(state.KindJobSubmit, state.JobSubmit{
		Ops: []json.RawMessage{json.RawMessage(`{"OP_ID":"OP_NODE_REMOVE","node_name":"node2"}`)}, Summary: []string{"NODE_REMOVE(node2)"},
	}).JobID
}

func TestJobList(t *testing.T) {
	m := master(t, 1)
	m.submitted()
	if got := m.want(Job, "list"); got != "ID Status Summary\n1  queued NODE_REMOVE(node2)\n" {
		t.Errorf("%q", got)
	}
	if got := m.want(Job, "list", "--no-headers", "--separator=;", "-o", "id,ops,opstatus,start_ts"); got != "1;OP_NODE_REMOVE;queued;-\n" {
		t.Errorf("%q", got)
	}
	var list []map[string]any
	m.wantJSON(&list, Job, "list", "--json")
	if len(list) != 1 || list[0]["id"] != 1.0 || list[0]["status"] != "queued" || !strings.HasSuffix(fmt.Sprint(list[0]["received_ts"]), "Z") || list[0]["end_ts"] != nil {
		t.Errorf("%v", list)
	}
}

func TestJobInfo(t *testing.T) {
	m := master(t, 1)
	id := m.submitted()
	until := time.Date(2026, 11, 22, 14, 3, 12, 0, time.UTC)
	m.b.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobRunning, Log: []state.LogLine{{Text: " - INFO: hello"}}})
	m.b.Do(state.KindJobUpdate, state.JobUpdate{
		ID: id, Status: state.JobSuccess, Progress: []string{"1 of 2 nodes"}, Unreachable: &[]state.Unreachable{{Node: "node9", RPCUntil: &until}},
	})
	out := m.want(Job, "info", "1")
	for _, want := range []string{
		"- Job ID: 1\n  Status: success\n  Summary: NODE_REMOVE(node2)\n  Received: 2026-11-22 13:", "Total processing time: 1.00 seconds\n",
		"success: {\"OP_ID\":\"OP_NODE_REMOVE\"", "- INFO: hello\n", " 1 of 2 nodes\n", "node9: RPC trust ends: 2026-11-22 15:03:12 +0100; SSH trust ends: no bound\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	var j struct {
		ID       int64
		Status   string
		Summary  []string
		Ops      []map[string]any
		Progress []struct {
			Time time.Time
			Text string
		}
		Unreachable []map[string]any
		Error       *string
	}
	m.wantJSON(&j, Job, "info", "1", "--json")
	if j.ID != 1 || j.Status != "success" || j.Ops[0]["node_name"] != "node2" || j.Progress[0].Text != "1 of 2 nodes" || j.Error != nil {
		t.Errorf("%+v", j)
	}
	if u := j.Unreachable[0]; u["node"] != "node9" || u["rpc_until"] != "2026-11-22T14:03:12Z" || u["ssh_until"] != nil {
		t.Errorf("unreachable: %v", u)
	}
	var both []map[string]any
	if m.wantJSON(&both, Job, "info", "--json", "1", "1"); len(both) != 2 {
		t.Errorf("%v", both)
	}
	m.fail(ExitFailed, "error type: unknown_entity, error details:\nJob 7 not found", Job, "info", "7")
	m.fail(ExitFailed, "Invalid job ID", Job, "info", "--", "-7")
	m.fail(ExitFailed, "Invalid job ID", Job, "info", "seven")
	m.fail(ExitFailed, "Job 7 not found", Job, "watch", "7")
}

func TestCancelJob(t *testing.T) {
	m := master(t, 1)
	m.submitted()
	if r := m.run(Job, "cancel", "1"); r.code != ExitOK || r.err != "Job 1 canceled\n" {
		t.Errorf("%+v", r)
	}
	m.fail(ExitFailed, "Job 1 is no longer waiting in the queue", Job, "cancel", "1")
	m.fail(ExitFailed, "Job 7 not found", Job, "cancel", "7")
}

func TestWatchFollows(t *testing.T) {
	m := master(t, 1)
	id := m.submitted()
	done := make(chan result, 1)
	go func() { done <- m.run(Job, "watch", "1") }()
	for i := range 3 {
		m.b.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Log: []state.LogLine{{Text: fmt.Sprintf("line %d", i)}}, Progress: []string{fmt.Sprintf("step %d", i)}})
	}
	m.b.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobSuccess})
	r := <-done
	for i := range 3 {
		if strings.Count(r.out, fmt.Sprintf("line %d\n", i)) != 1 || strings.Count(r.out, fmt.Sprintf("step %d\n", i)) != 1 {
			t.Errorf("line or step %d is not there once:\n%s", i, r.out)
		}
	}
	if r.code != ExitOK {
		t.Errorf("%+v", r)
	}
}
