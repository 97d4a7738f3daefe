package jobs

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// TestReportTooLargeForOneEntry must not end the master, who would begin the
// same job again for ever.
func TestReportTooLargeForOneEntry(t *testing.T) {
	w := newWorld(t, 1, 1)
	for range 30000 {
		w.report = append(w.report, strings.Repeat("x", 100))
	}
	j := w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_VERIFY"}`))
	if !j.Status.Ended() {
		t.Errorf("job is %s", j.Status)
	}
	w.report = nil
	wantSuccess(t, w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_VERIFY"}`)), `true`)
}

func TestJobsRunInOrder(t *testing.T) {
	w := newWorld(t, 4, 3)
	first := w.submit(modify(4, `"drained":true`))
	second := w.submit(modify(4, `"drained":false`))
	last := w.submit(modify(4, `"vm_capable":false`))
	w.finish(last)
	if a, b, c := w.job(first).End, w.job(second).End, w.job(last).End; !a.Before(b) || !b.Before(c) {
		t.Errorf("ended at %s, %s, %s", a, b, c)
	}
	if w.node(4).Flags.Drained {
		t.Error("the second change is lost")
	}
}

// TestSeveralOpcodes: the first that fails ends the job, and what was done stays.
func TestSeveralOpcodes(t *testing.T) {
	w := newWorld(t, 4, 3)
	j := w.finish(w.submit(modify(4, `"vm_capable":false`), modify(9, `"offline":true`), modify(4, `"drained":true`)))
	if j.Status != state.JobError || w.node(4).Flags.VMCapable || w.node(4).Flags.Drained {
		t.Errorf("job is %s, flags %+v", j.Status, w.node(4).Flags)
	}
	want := []state.JobStatus{state.JobSuccess, state.JobError, state.JobError}
	if !slices.Equal(j.OpStatus, want) {
		t.Errorf("opcodes are %v, want %v", j.OpStatus, want)
	}
	if string(j.OpResult[0]) != `[["vm_capable","False"]]` || string(j.OpResult[2]) != `null` {
		t.Errorf("results %s", j.OpResult)
	}
}

// TestCanceledJobEndsQuietly: a job that is canceled at any moment before its
// commit changes nothing, and does not end the master.
func TestCanceledJobEndsQuietly(t *testing.T) {
	for _, op := range []string{modify(2, `"master_candidate":true`), `{"OP_ID":"OP_CLUSTER_VERIFY"}`, modify(9, `"offline":true`)} {
		for at := range 3 {
			w := newWorld(t, 3, 1)
			id := w.submit(op)
			calls := 0
			w.onCall = func(string) {
				if j := w.job(id); calls == at && j.Step == "" && !j.Status.Ended() {
					w.do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobCanceled})
				}
				calls++
			}
			j := w.finish(id)
			if canceled := j.Status == state.JobCanceled; canceled && w.node(2).Flags.MasterCandidate {
				t.Errorf("%s canceled at call %d: it was carried out all the same", op, at)
			}
			w.onCall = nil
			wantSuccess(t, w.finish(w.submit(modify(3, `"vm_capable":false`))), `[["vm_capable","False"]]`)
		}
	}
}

// TestLostMastershipEndsTheRunner and leaves the job to the next master.
func TestLostMastershipEndsTheRunner(t *testing.T) {
	for _, code := range []cluster.Code{cluster.CodeNotMaster, cluster.CodeNoQuorum} {
		w := newWorld(t, 3, 1)
		w.verdict = cluster.Errorf(code, "not the master any more")
		id := w.submit(`{"OP_ID":"OP_CLUSTER_VERIFY"}`)
		if err := w.reign(id); cluster.CodeOf(err) != code {
			t.Errorf("the runner ended with %v", err)
		}
		if j := w.job(id); j.Status.Ended() {
			t.Errorf("the job was ended as %s", j.Status)
		}
		w.verdict = nil
		wantSuccess(t, w.finish(id), `true`)
	}
}

// TestG7MasterDiesAtAnyPoint kills the master before and after each of its
// calls, and lets the next one go on: the result is always the same, and as if
// nothing had happened.
func TestG7MasterDiesAtAnyPoint(t *testing.T) {
	for name, c := range map[string]struct {
		ops   []string
		check func(w *world) error
	}{
		"promote": {[]string{modify(4, `"master_candidate":true`)}, func(w *world) error {
			if !w.node(4).Flags.MasterCandidate {
				return errors.New("not promoted")
			}
			return nil
		}},
		"demote with replacement": {[]string{modify(2, `"master_candidate":false,"auto_promote":true`)}, func(w *world) error {
			if w.node(2).Flags.MasterCandidate || !w.node(4).Flags.MasterCandidate || w.node(5).Flags.MasterCandidate {
				return errors.New("other candidates than wanted")
			}
			return nil
		}},
		"offline with replacement": {[]string{modify(3, `"offline":true,"auto_promote":true`)}, func(w *world) error {
			if !w.node(3).Flags.Offline || !w.node(4).Flags.MasterCandidate || w.node(5).Flags.MasterCandidate {
				return errors.New("other flags than wanted")
			}
			return nil
		}},
		"remove": {[]string{remove(3)}, func(w *world) error {
			if w.node(3) != nil || !w.at(3).dismissed || !w.node(4).Flags.MasterCandidate || w.node(5).Flags.MasterCandidate {
				return errors.New("not removed, not dismissed or not replaced")
			}
			return nil
		}},
		"new keys for a candidate that lost them": {[]string{rekey(2)}, func(w *world) error {
			if n := w.node(2); !n.Flags.MasterCandidate || slices.Equal(n.Keys.Client, statetest.Keys(2, 1).Client) {
				return errors.New("no candidate, or still with the old keys")
			}
			if w.node(4).Flags.MasterCandidate {
				return errors.New("another node was promoted in its place")
			}
			return nil
		}},
		"online again": {[]string{modify(3, `"offline":true,"auto_promote":true`), modify(3, `"offline":false`)}, func(w *world) error {
			if f := w.node(3).Flags; f.Offline || !f.MasterCandidate {
				return errors.New("not a candidate again")
			}
			return nil
		}},
		"larger pool": {[]string{`{"OP_ID":"OP_CLUSTER_SET_PARAMS","candidate_pool_size":5,"lease_seconds":7}`}, func(w *world) error {
			if p := w.State().Params; p.CandidatePoolSize != 5 || p.LeaseSeconds != 7 || len(w.State().Candidates()) != 5 {
				return errors.New("the pool is not filled, or a parameter is lost")
			}
			return nil
		}},
		"rename": {[]string{`{"OP_ID":"OP_CLUSTER_RENAME","name":"other.test"}`}, func(w *world) error {
			if w.State().Cluster.Name != "other.test" || w.State().Roster().Settings().Name != "other.test" {
				return errors.New("not renamed")
			}
			return nil
		}},
		"two opcodes": {[]string{modify(4, `"master_candidate":true`), remove(2)}, func(w *world) error {
			if w.node(2) != nil || !w.at(2).dismissed || !w.node(4).Flags.MasterCandidate {
				return errors.New("one opcode is not carried out")
			}
			return nil
		}},
		"readd": {[]string{readd(3)}, func(w *world) error {
			if n := w.node(3); n.Flags.MasterCandidate || !n.Flags.Offline {
				return errors.New("the old life keeps its role")
			}
			return nil
		}},
		"rename and move": {[]string{rename(2, "web.lab.test"), modify(4, `"secondary_ip":"10.78.0.4"`)}, func(w *world) error {
			if w.node(2).Name != "web.lab.test" || len(w.node(4).Addresses) != 2 {
				return errors.New("not renamed or not moved")
			}
			return nil
		}},
		"tags": {[]string{
			tagOp(OpTagsSet, "node", "node2.lab.test", `"tags":["a","b"]`), tagOp(OpTagsDel, "node", "node2.lab.test", `"tags":["a"]`),
		}, func(w *world) error {
			if !slices.Equal(w.node(2).Tags, []string{"b"}) {
				return errors.New("other tags than wanted")
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			whole := newWorld(t, 5, 3)
			want := whole.finish(whole.submit(c.ops...))
			if want.Status != state.JobSuccess {
				t.Fatalf("without a crash: %s", want.Error)
			}
			points := len(whole.calls)
			for i := range 2 * points {
				w := newWorld(t, 5, 3)
				w.dieAt, w.after = i/2, i%2 == 1
				id := w.submit(c.ops...)
				err := w.reign(id)
				if err != nil && !errors.Is(err, errDead) {
					t.Fatalf("crash %d: the master stopped: %v", i, err)
				}
				w.dieAt = -1
				j := w.finish(id)
				where := strings.Join(w.calls, ", ")
				if j.Status != state.JobSuccess || !slices.EqualFunc(j.OpResult, want.OpResult, func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
					t.Errorf("crash %d: job is %s with %s (%s)", i, j.Status, j.OpResult, where)
				}
				w.ensure()
				if err := errors.Join(c.check(w), w.settled()); err != nil {
					t.Errorf("crash %d: %v (%s)", i, err, where)
				}
			}
		})
	}
}
