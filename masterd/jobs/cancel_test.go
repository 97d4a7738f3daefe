package jobs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// until waits for something about the state.
func (w *world) until(what string, ok func(*state.State) bool) {
	w.t.Helper()
	limit := time.After(time.Minute)
	for {
		changed := w.Watch()
		if ok(w.State()) {
			return
		}
		select {
		case <-changed:
		case <-limit:
			w.t.Error("waited in vain until " + what)
			return
		}
	}
}

func (w *world) isCanceled(id int64) func(*state.State) bool {
	return func(s *state.State) bool { return s.Jobs[id].Status == state.JobCanceled }
}

const verifyOp = `{"OP_ID":"OP_CLUSTER_VERIFY"}`

// TestCancelAtAnyMoment: before its commit a job is canceled and changes
// nothing; after it, it goes on to its end.
func TestCancelAtAnyMoment(t *testing.T) {
	early, late := 0, 0
	for _, op := range []string{modify(2, `"master_candidate":true`), modify(3, `"offline":true`), remove(3)} {
		for at := range 4 {
			w := newWorld(t, 3, 1)
			id := w.submit(op)
			before := w.State().Head().Hash
			calls, committed := 0, false
			w.onCall = func(string) {
				j := w.job(id)
				if calls++; calls != at+1 || j.Status.Ended() {
					return
				}
				committed = j.Step != ""
				w.do(state.KindJobUpdate, CancelingUpdate(id))
			}
			j := w.finish(id)
			switch {
			case calls <= at: // there were fewer calls
			case committed:
				late++
				if j.Status != state.JobSuccess || w.State().Head().Hash == before {
					t.Errorf("%s, canceled too late: job is %s", op, j.Status)
				}
			default:
				early++
				if j.Status != state.JobCanceled || w.State().Head().Hash != before || j.OpStatus[0] != state.JobCanceled || j.Error != "" {
					t.Errorf("%s, canceled at call %d: job is %s, %v, %q", op, at, j.Status, j.OpStatus, j.Error)
				}
			}
			w.onCall = nil
			wantSuccess(t, w.finish(w.submit(modify(1, `"vm_capable":false`))), `[["vm_capable","False"]]`)
		}
	}
	if early < 4 || late < 4 {
		t.Errorf("%d jobs were canceled early, %d late", early, late)
	}
}

// TestCancelBehindALongJob: who waits in the queue is canceled at once.
func TestCancelBehindALongJob(t *testing.T) {
	w := newWorld(t, 3, 1)
	long := w.submit(verifyOp)
	queued := w.submit(modify(3, `"offline":true`))
	w.waits = true
	w.onCall = func(what string) {
		if what == "verify" {
			if w.job(long).Status != state.JobRunning {
				t.Errorf("the verification under way is %s", w.job(long).Status)
			}
			w.do(state.KindJobUpdate, CancelingUpdate(queued))
			w.until("the queued job is canceled", w.isCanceled(queued))
		}
	}
	wantSuccess(t, w.finish(long), `true`)
	if w.node(3).Flags.Offline {
		t.Error("the canceled job was carried out")
	}
}

// TestCancelEndsAVerification that is under way: its context ends.
func TestCancelEndsAVerification(t *testing.T) {
	w := newWorld(t, 1, 1)
	id := w.submit(verifyOp)
	w.untilEnd = true
	w.onCall = func(what string) {
		if what == "verify" {
			w.do(state.KindJobUpdate, CancelingUpdate(id))
		}
	}
	if j := w.finish(id); j.Status != state.JobCanceled || j.Start.IsZero() {
		t.Errorf("job is %s", j.Status)
	}
}

// TestCancelBetweenOpcodes keeps what the first one did.
func TestCancelBetweenOpcodes(t *testing.T) {
	w := newWorld(t, 4, 1)
	id := w.submit(modify(2, `"master_candidate":true`), modify(4, `"drained":true`), modify(3, `"drained":true`))
	w.onCall = func(string) {
		if j := w.job(id); j.Step != "" && j.Status == state.JobRunning {
			w.do(state.KindJobUpdate, CancelingUpdate(id))
		}
	}
	j := w.finish(id)
	want := []state.JobStatus{state.JobSuccess, state.JobCanceled, state.JobCanceled}
	if j.Status != state.JobCanceled || !slices.Equal(j.OpStatus, want) || !w.node(2).Flags.MasterCandidate || w.node(4).Flags.Drained {
		t.Errorf("job is %s, %v", j.Status, j.OpStatus)
	}
	if err := w.settled(); err != nil {
		t.Error(err)
	}
}

// TestNextMasterCancels what its predecessor was asked to cancel, and goes on
// with what was committed.
func TestNextMasterCancels(t *testing.T) {
	w := newWorld(t, 3, 1)
	doomed := w.submit(modify(3, `"offline":true`))
	w.do(state.KindJobUpdate, CancelingUpdate(doomed))
	j := w.finish(doomed)
	if j.Status != state.JobCanceled || w.node(3).Flags.Offline || !slices.Equal(w.calls, []string{"change job-update"}) {
		t.Errorf("job is %s, calls %q", j.Status, w.calls)
	}
	committed := w.submit(modify(2, `"master_candidate":true`))
	w.onCall = func(string) {
		if j := w.job(committed); j.Step != "" && !j.Status.Ended() {
			w.do(state.KindJobUpdate, CancelingUpdate(committed))
			w.kill(errDead)
		}
	}
	if err := w.reign(committed); err == nil {
		t.Fatal("the master did not die")
	}
	if j := w.job(committed); j.Status != state.JobCanceling {
		t.Fatalf("job is %s", j.Status)
	}
	w.onCall = nil
	wantSuccess(t, w.finish(committed), `[["master_candidate","True"]]`)
}

func TestCancelable(t *testing.T) {
	w := newWorld(t, 1, 1)
	id := w.submit(verifyOp)
	if err := Cancelable(w.State(), id); err != nil {
		t.Error(err)
	}
	w.do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobRunning})
	if err := Cancelable(w.State(), id); err != nil {
		t.Error(err)
	}
	w.do(state.KindJobUpdate, state.JobUpdate{ID: id, Step: new(stepCommitted)})
	if err := Cancelable(w.State(), id); cluster.CodeOf(err) != cluster.CodeConflict || !strings.Contains(err.Error(), "Job 1 is no longer waiting in the queue") {
		t.Error(err)
	}
	if err := Cancelable(w.State(), 77); cluster.CodeOf(err) != cluster.CodeNotFound {
		t.Error(err)
	}
}

// TestCancelOfOneCommit: an opcode that leaves nothing to do after its commit is
// canceled before that, and is not called canceled after it.
func TestCancelOfOneCommit(t *testing.T) {
	for at, c := range []struct {
		status state.JobStatus
		tags   []string
	}{{state.JobCanceled, nil}, {state.JobSuccess, []string{"web"}}} {
		w := newWorld(t, 1, 1)
		id := w.submit(tagOp(OpTagsSet, "cluster", "", `"tags":["web"]`))
		calls := 0
		w.onCall = func(string) {
			if calls++; calls != at+1 {
				return
			}
			if err := Cancelable(w.State(), id); (err == nil) != (at == 0) {
				t.Errorf("at call %d: %v", at, err)
			}
			w.do(state.KindJobUpdate, CancelingUpdate(id))
			if at == 1 && doomed(w.job(id)) {
				t.Error("a job that has changed something is doomed")
			}
		}
		j := w.finish(id)
		if j.Status != c.status || !slices.Equal(w.State().Cluster.Tags, c.tags) {
			t.Errorf("canceled at call %d: job is %s, tags %q", at, j.Status, w.State().Cluster.Tags)
		}
		if at == 1 && j.OpStatus[0] != state.JobSuccess {
			t.Errorf("the opcode is %s", j.OpStatus[0])
		}
	}
}
