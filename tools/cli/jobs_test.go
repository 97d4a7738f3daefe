package cli

import (
	"bytes"
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

// later changes a job once somebody waits for it.
func (m *machine) later(updates ...state.JobUpdate) {
	go func() {
		for _, u := range updates {
			m.b.Do(state.KindJobUpdate, u)
		}
	}()
}

func TestWaitIsSilent(t *testing.T) {
	m := master(t, 1)
	for range 5 {
		m.submitted()
	}
	m.later(
		state.JobUpdate{ID: 1, Log: []state.LogLine{{Text: "hello"}}, Progress: []string{"step"}},
		state.JobUpdate{ID: 1, Status: state.JobSuccess},
		state.JobUpdate{ID: 2, Status: state.JobError, Error: new("no")},
		state.JobUpdate{ID: 3, Status: state.JobCanceled},
		state.JobUpdate{ID: 4, Status: state.JobSuccess, Unreachable: &[]state.Unreachable{{Node: "node9"}}},
	)
	for _, c := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"1"}, ExitOK, ""},
		{[]string{"2"}, ExitFailed, ""},
		{[]string{"3"}, ExitFailed, ""},
		{[]string{"1", "1"}, ExitOK, ""},
		{[]string{"1", "2", "1"}, ExitFailed, ""},
		{[]string{"4"}, ExitPending, "node9: RPC trust ends: no bound"},
		{[]string{"4", "1"}, ExitPending, "node9"},
		{[]string{"4", "3", "4"}, ExitFailed, "node9"},
		{[]string{"7"}, ExitFailed, "Job 7 not found"},
		{[]string{"x"}, ExitFailed, "Invalid job ID"},
		{[]string{"--timeout", "50ms", "1", "5"}, ExitFailed, "Not all jobs have ended within 50ms"},
		{[]string{"--timeout", "1m", "1"}, ExitOK, ""},
		{[]string{"--timeout", "-1s", "1"}, ExitFailed, "--timeout -1s"},
		{nil, ExitFailed, "usage: gnt-job wait ID..."},
	} {
		r := m.run(Job, append([]string{"wait"}, c.args...)...)
		if r.code != c.code || r.out != "" || !strings.Contains(r.err, c.err) || c.err == "" && r.err != "" {
			t.Errorf("%q: %+v", c.args, r)
		}
	}
}

func TestWatchSeveral(t *testing.T) {
	m := master(t, 1)
	for range 3 {
		m.submitted()
	}
	m.later(
		state.JobUpdate{ID: 1, Progress: []string{"one"}, Status: state.JobSuccess},
		state.JobUpdate{ID: 2, Log: []state.LogLine{{Text: "bad \x1b[2J"}}, Status: state.JobError, Error: new("no route")},
		state.JobUpdate{ID: 3, Progress: []string{"three"}, Status: state.JobSuccess},
	)
	r := m.run(Job, "watch", "1", "2", "9", "3")
	if r.code != ExitFailed || !strings.HasPrefix(r.out, "Job 1:\none\nJob 2:\n") || !strings.HasSuffix(r.out, " bad ?[2J\nJob 9:\nJob 3:\nthree\n") {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.err, "no route\n") || !strings.Contains(r.err, "Job 9 not found\n") {
		t.Errorf("stderr: %q", r.err)
	}
}

// answer runs a program that asks a question.
func (m *machine) answer(text string, p Program, args ...string) result {
	var stdout, stderr bytes.Buffer
	code := m.runAs(func(a *app) { a.in = strings.NewReader(text) }, &stdout, &stderr, p, args...)
	return result{code, stdout.String(), stderr.String()}
}

func TestCancelSeveral(t *testing.T) {
	m := master(t, 1)
	for range 6 {
		m.submitted()
	}
	m.b.Do(state.KindJobUpdate, state.JobUpdate{ID: 1, Status: state.JobRunning, Step: new("committed")})
	r := m.run(Job, "cancel", "1", "2")
	if r.code != ExitFailed || r.err != "Job 1 is no longer waiting in the queue\nJob 2 canceled\n" {
		t.Errorf("%+v", r)
	}
	if r = m.answer("n\n", Job, "cancel", "--pending"); r.code != ExitDeclined || !strings.Contains(r.err, "Cancel 4 job(s): 3, 4, 5, 6?") {
		t.Errorf("%+v", r)
	}
	if r = m.answer("y\n", Job, "cancel", "--queued"); r.code != ExitOK || !strings.HasSuffix(r.err, "Job 3 canceled\nJob 4 canceled\nJob 5 canceled\nJob 6 canceled\n") {
		t.Errorf("%+v", r)
	}
	if r = m.run(Job, "cancel", "--pending", "--force"); r.code != ExitOK || r.err+r.out != "" {
		t.Errorf("%+v", r)
	}
	m.fail(ExitFailed, "usage: gnt-job cancel ID... | --pending | --queued | --waiting", Job, "cancel")
	m.fail(ExitFailed, "usage: gnt-job cancel", Job, "cancel", "--pending", "3")
}

func TestArchiveJobs(t *testing.T) {
	m := master(t, 1)
	for i := range int64(5) {
		m.submitted()
		if i != 2 {
			m.b.Do(state.KindJobUpdate, state.JobUpdate{ID: i + 1, Status: state.JobSuccess})
		}
	}
	if r := m.run(Job, "archive", "1"); r.code != ExitOK || r.out+r.err != "" {
		t.Errorf("%+v", r)
	}
	if r := m.run(Job, "archive", "2", "3", "9"); r.code != ExitFailed || r.out != "" || r.err != "Job 3 has not ended, and is kept\nJob 9 not found\n" {
		t.Errorf("%+v", r)
	}
	if got := m.want(Job, "autoarchive", "1w"); got != "Archived 0 jobs\n" {
		t.Errorf("%q", got)
	}
	var done struct{ Archived, Active, Unknown []int64 }
	if m.wantJSON(&done, Job, "autoarchive", "--json", "all"); fmt.Sprint(done) != "{[4 5] [] []}" {
		t.Errorf("%v", done)
	}
	if got := m.want(Job, "list", "--no-headers", "-o", "id"); got != "3\n" {
		t.Errorf("%q", got)
	}
	m.fail(ExitFailed, "Invalid age 'x'", Job, "autoarchive", "x")
	m.fail(ExitFailed, "Invalid value for age_seconds", Job, "autoarchive", "4000000000")
}

func TestParseAge(t *testing.T) {
	for text, want := range map[string]int64{"all": 0, "0": 0, "90": 90, "90s": 90, "5m": 300, "2h": 7200, "3d": 259200, "1w": 604800} {
		if got, err := parseAge(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "s", "-1", "1.5h", "1x", "1 h", "99999999999", "ALL"} {
		if got, err := parseAge(bad); err == nil {
			t.Errorf("%s: %d", bad, got)
		}
	}
}
