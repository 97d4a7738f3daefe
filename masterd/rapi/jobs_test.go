package rapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/cluster"
	"rolekey/internal/memnet"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/rapitest"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
)

// mine makes connections of the in-memory network ones of this user.
type mine struct{ net.Conn }

func (mine) PeerUID() (uint32, error) { return uint32(os.Geteuid()), nil }

type myListener struct{ net.Listener }

func (l myListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return mine{c}, err
}

// inMemory runs a test in virtual time.
func inMemory(t *testing.T, test func(t *testing.T, b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New()
		host := network.Host(netip.MustParseAddr("10.0.0.1"))
		l, err := host.Listen("tcp", netip.MustParseAddrPort("10.0.0.1:1"))
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{t: t, Backend: rapitest.New(t, 2)}
		rapitest.Serve(t, myListener{l}, rapi.New(b.Backend, b.Now))
		b.dial(func(ctx context.Context) (net.Conn, error) { return host.DialContext(ctx, "tcp", "10.0.0.1:1") })
		test(t, b)
	})
}

func (b *bench) submitted() int64 {
	return b.Do(state.KindJobSubmit, state.JobSubmit{
		Ops: []json.RawMessage{json.RawMessage(`{"OP_ID":"OP_CLUSTER_VERIFY"}`)}, Summary: []string{"CLUSTER_VERIFY"},
	}).JobID
}

func TestWaitEndsAfterTenSeconds(t *testing.T) {
	inMemory(t, func(t *testing.T, b *bench) {
		id := b.submitted()
		begin := time.Now()
		got := b.ask("GET", fmt.Sprintf("/2/jobs/%d/wait", id), `{"fields":["status"],"previous_job_info":[ "queued" ],"previous_log_serial":null}`)
		if got.status != 200 || got.text != "null\n" || time.Since(begin) != 10*time.Second {
			t.Errorf("after %s: %+v", time.Since(begin), got)
		}
	})
}

func TestWaitTellsChangesAndLines(t *testing.T) {
	inMemory(t, func(t *testing.T, b *bench) {
		id := b.submitted()
		path := fmt.Sprintf("/2/jobs/%d/wait", id)
		var news wire.WaitReply
		b.want("GET", path, `{"fields":["status","opresult"],"previous_job_info":null,"previous_log_serial":null}`, &news)
		if string(news.JobInfo[0]) != `"queued"` || string(news.JobInfo[1]) != `[null]` || len(news.LogEntries) != 0 {
			t.Errorf("first answer: %s", news.JobInfo)
		}
		changes := []state.JobUpdate{
			{ID: id, Status: state.JobRunning},
			{ID: id, Log: []state.LogLine{{Text: "one"}, {Text: "two"}}},
			{ID: id, Log: []state.LogLine{{Text: "three"}}},
		}
		info, serial := `["queued"]`, "null"
		for i, u := range changes {
			time.AfterFunc(3*time.Second, func() { b.Do(state.KindJobUpdate, u) })
			begin := time.Now()
			b.want("GET", path, `{"fields":["status"],"previous_job_info":`+info+`,"previous_log_serial":`+serial+`}`, &news)
			if time.Since(begin) != 3*time.Second || len(news.LogEntries) != len(u.Log) {
				t.Fatalf("change %d after %s: %+v", i, time.Since(begin), news)
			}
			for k, l := range u.Log {
				if news.LogEntries[k].Text != l.Text {
					t.Errorf("change %d: %+v", i, news.LogEntries)
				}
				serial = fmt.Sprint(news.LogEntries[k].Serial)
			}
			info = string(must(t, news.JobInfo))
		}
	})
}

func must(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A job that has ended is told at once, whatever the caller knows.
func TestWaitForAnEndedJob(t *testing.T) {
	inMemory(t, func(t *testing.T, b *bench) {
		id := b.submitted()
		b.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobSuccess})
		begin := time.Now()
		var news wire.WaitReply
		b.want("GET", fmt.Sprintf("/2/jobs/%d/wait", id), `{"fields":["status"],"previous_job_info":["success"],"previous_log_serial":0}`, &news)
		if string(news.JobInfo[0]) != `"success"` || time.Since(begin) != 0 {
			t.Errorf("after %s: %s", time.Since(begin), news.JobInfo)
		}
	})
}

func TestWaitRefusals(t *testing.T) {
	inMemory(t, func(t *testing.T, b *bench) {
		id := b.submitted()
		b.refuse("GET", "/2/jobs/99/wait", `{"fields":["status"]}`, 404)
		b.refuse("GET", fmt.Sprintf("/2/jobs/%d/wait", id), `{"fields":["nosuch"]}`, 400)
		time.AfterFunc(2*time.Second, func() { b.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobCanceled}) })
		time.AfterFunc(2*time.Second, func() { b.Do(state.KindJobArchive, state.JobArchive{IDs: []int64{id}}) })
		// Canceled and gone in one moment: either is an end.
		got := b.ask("GET", fmt.Sprintf("/2/jobs/%d/wait", id), `{"fields":["status"],"previous_job_info":["queued"]}`)
		if got.text == "null\n" {
			t.Errorf("a wait for a job that is gone: %+v", got)
		}
	})
}

// A cluster that loses its quorum makes no progress, and whoever waits is told.
func TestWaitEndsWithoutQuorum(t *testing.T) {
	inMemory(t, func(t *testing.T, b *bench) {
		id := b.submitted()
		time.AfterFunc(2500*time.Millisecond, func() { b.Fail(nil, cluster.Errorf(cluster.CodeNoQuorum, "there is no master")) })
		begin := time.Now()
		e := b.refuse("GET", fmt.Sprintf("/2/jobs/%d/wait", id), `{"fields":["status"],"previous_job_info":["queued"]}`, 503)
		if e.Reason != cluster.CodeNoQuorum || time.Since(begin) > 4*time.Second {
			t.Errorf("after %s: %+v", time.Since(begin), e)
		}
	})
}

func TestCancel(t *testing.T) {
	b := newBench(t, 1)
	queued, committed := b.submitted(), b.submitted()
	b.Do(state.KindJobUpdate, state.JobUpdate{ID: committed, Status: state.JobRunning, Step: new("committed")})
	for _, c := range []struct {
		id   int64
		want string
	}{
		{queued, fmt.Sprintf(`[true,"Job %d canceled"]`, queued)},
		{queued, fmt.Sprintf(`[false,"Job %d is no longer waiting in the queue"]`, queued)},
		{committed, fmt.Sprintf(`[false,"Job %d is no longer waiting in the queue"]`, committed)},
		{77, `[false,"Job 77 not found"]`},
	} {
		if got := b.ask("DELETE", fmt.Sprintf("/2/jobs/%d", c.id), ""); got.status != 200 || got.text != c.want+"\n" {
			t.Errorf("cancel %d: %+v, want %s", c.id, got, c.want)
		}
	}
	var j wire.Job
	if b.want("GET", fmt.Sprintf("/2/jobs/%d", queued), "", &j); j.Status != "canceled" || j.OpStatus[0] != "canceled" || j.EndTS == nil || j.StartTS != nil {
		t.Errorf("canceled job: %+v", j)
	}
}

// TestCancelWaits a moment for what becomes of a job that has begun.
func TestCancelWaits(t *testing.T) {
	for _, c := range []struct {
		end  state.JobStatus // "": it goes on
		want string
		took time.Duration
	}{
		{state.JobCanceled, `[true,"Job 1 canceled"]`, 2 * time.Second},
		{state.JobSuccess, `[false,"Job 1 is no longer waiting in the queue"]`, 2 * time.Second},
		{state.JobError, `[false,"Job 1 is no longer waiting in the queue"]`, 2 * time.Second},
		{"", `[true,"Job 1 will be canceled"]`, 5 * time.Second},
	} {
		inMemory(t, func(t *testing.T, b *bench) {
			id := b.submitted()
			b.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobRunning})
			if c.end != "" {
				time.AfterFunc(c.took, func() { b.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: c.end}) })
			}
			begin := time.Now()
			if got := b.ask("DELETE", "/2/jobs/1", ""); got.text != c.want+"\n" || time.Since(begin) != c.took {
				t.Errorf("after %s: %+v, want %s", time.Since(begin), got, c.want)
			}
		})
	}
}

func TestArchive(t *testing.T) {
	b := newBench(t, 1)
	for range 5 {
		id := b.submitted()
		if id == 3 {
			continue
		}
		b.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobSuccess})
	}
	var out wire.Archived
	b.want("POST", "/2/jobs/archive", `{"ids":[3,2,2,9]}`, &out)
	if fmt.Sprint(out) != "{[2] [3] [9]}" {
		t.Errorf("%+v", out)
	}
	s, _ := b.State()
	age := b.Now().Sub(s.Jobs[4].End) // of the last but one
	b.want("POST", "/2/jobs/archive", fmt.Sprintf(`{"age_seconds":%d}`, int64(age/time.Second)), &out)
	if fmt.Sprint(out) != "{[1 4] [] []}" {
		t.Errorf("%+v", out)
	}
	b.want("POST", "/2/jobs/archive", `{"age_seconds":3600}`, &out)
	if fmt.Sprint(out) != "{[] [] []}" {
		t.Errorf("%+v", out)
	}
	b.want("POST", "/2/jobs/archive", `{"age_seconds":0}`, &out)
	if s, _ = b.State(); fmt.Sprint(out) != "{[5] [] []}" || len(s.Jobs) != 1 || s.Jobs[3] == nil {
		t.Errorf("%+v, left are %v", out, s.Jobs)
	}
	for _, bad := range []string{`{}`, `{"ids":[]}`, `{"ids":[1],"age_seconds":1}`, `{"age_seconds":-1}`, `{"age_seconds":99999999999}`, `{"ids":["1"]}`, `{"all":true}`} {
		b.refuse("POST", "/2/jobs/archive", bad, 400)
	}
	b.Fail(nil, cluster.Errorf(cluster.CodeNotMaster, "no"))
	if e := b.refuse("POST", "/2/jobs/archive", `{"ids":[3]}`, 403); e.Reason != cluster.CodeNotMaster {
		t.Errorf("%+v", e)
	}
}

func TestJobTellsWhoIsMissing(t *testing.T) {
	b := newBench(t, 1)
	id := b.submitted()
	until := b.Now().Add(time.Minute)
	b.Do(state.KindJobUpdate, state.JobUpdate{
		ID: id, Status: state.JobSuccess, Progress: []string{"0 of 1 nodes"}, Unreachable: &[]state.Unreachable{{Node: "node9", RPCUntil: &until}},
	})
	var j wire.Job
	b.want("GET", fmt.Sprintf("/2/jobs/%d", id), "", &j)
	if len(j.Unreachable) != 1 || !j.Unreachable[0].RPCUntil.Equal(until) || j.Unreachable[0].SSHUntil != nil || j.Progress[0].Text != "0 of 1 nodes" || j.Error != nil {
		t.Errorf("job: %+v", j)
	}
}

func TestTimesAndLogEntries(t *testing.T) {
	at := time.Date(2026, 11, 22, 1, 2, 3, 456789000, time.UTC)
	e := wire.LogEntry{Serial: 7, Time: *wire.TimeOf(at), Type: "message", Text: "hello"}
	text := string(must(t, e))
	if text != `[7,[1795309323,456789],"message","hello"]` {
		t.Errorf("entry: %s", text)
	}
	var back wire.LogEntry
	if err := json.Unmarshal([]byte(text), &back); err != nil || back != e || !back.Time.Time().Equal(at) {
		t.Errorf("read back: %+v, %v", back, err)
	}
	for _, bad := range []string{`[1,[2,3],"x"]`, `{"a":1}`, `[1,[2,3],4,"x"]`} {
		if json.Unmarshal([]byte(bad), &back) == nil {
			t.Errorf("%s was read", bad)
		}
	}
	if wire.TimeOf(time.Time{}) != nil {
		t.Error("no time is a time")
	}
}
