package jobs

import (
	"strings"
	"testing"

	"rolekey/masterd/state"
)

// TestRAPIPromotesByNoDetour: where RAPI may not promote, no request over it
// ends with another candidate, and the same request of local root may.
func TestRAPIPromotesByNoDetour(t *testing.T) {
	for _, c := range []struct {
		name, op string
		params   state.ParamsPatch
		prepare  string // by local root
		says     string // refused over RAPI, or in its log
	}{
		{name: "role", op: modify(4, `"master_candidate":true`), says: "may not promote"},
		{name: "auto-promote", op: modify(2, `"drained":true,"auto_promote":true`), says: "may not promote"},
		{name: "larger pool", op: setCluster(`"candidate_pool_size":4`), says: "not larger"},
		{name: "removal", op: remove(2), says: "Not promoting other nodes"},
		{name: "former candidate", prepare: modify(2, `"offline":true,"force":true,"auto_promote":true`), op: modify(2, `"offline":false`), says: "Not promoting the node"},
		{
			name: "capability", prepare: modify(3, `"master_capable":false,"auto_promote":true`), op: modify(3, `"master_capable":true`),
			params: state.ParamsPatch{MasterCapabilityRAPIModifiable: new(true), CandidatePoolSize: new(8)}, says: "Not promoting the node",
		},
		{name: "longer lease", op: setCluster(`"lease_seconds":3600`), says: "cannot be made longer"},
		{name: "longer SSH lease", op: setCluster(`"ssh_lease_seconds":172800`), says: "cannot be made longer"},
	} {
		for _, rapi := range []bool{true, false} {
			w := newWorld(t, 5, 3)
			if c.prepare != "" {
				w.finish(w.submit(c.prepare))
			}
			c.params.RAPIMayPromote = new(false)
			w.do(state.KindParamsChange, state.ParamsChange{Params: c.params})
			before, old := w.State().Candidates(), w.State().Params
			op := c.op
			if rapi {
				op = strings.TrimSuffix(op, "}") + `,"rapi":true}`
			}
			j := w.finish(w.submit(op))
			now := w.State()
			var grown bool
			for _, n := range now.Candidates() {
				grown = grown || !strings.Contains(namesOf(before), "<"+string(n.Name)+">")
			}
			grown = grown || now.Params.LeaseSeconds > old.LeaseSeconds || now.Params.SSHLeaseSeconds > old.SSHLeaseSeconds
			if grown == rapi {
				t.Errorf("%s, over RAPI: %t: candidates %s, were %s; %s", c.name, rapi, namesOf(now.Candidates()), namesOf(before), logOf(j))
			}
			if rapi && !strings.Contains(j.Error+logOf(j), c.says) {
				t.Errorf("%s: the job says %q, and %q", c.name, j.Error, logOf(j))
			}
		}
	}
}

func namesOf(nodes []*state.Node) (text string) {
	for _, n := range nodes {
		text += "<" + string(n.Name) + ">"
	}
	return text
}

// TestRAPIPoolAfterAChangeOfMaster: the next master, which resumes a request, holds
// to the same.
func TestRAPIPoolAfterAChangeOfMaster(t *testing.T) {
	for i, died := 0, true; died; i++ {
		w := newWorld(t, 4, 2)
		w.do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{RAPIMayPromote: new(false)}})
		id := w.submit(strings.TrimSuffix(remove(2), "}") + `,"rapi":true}`)
		w.dieAt, w.after = i/2, i%2 == 1
		died = w.reign(id) != nil
		w.dieAt = -1
		j := w.finish(id)
		if j.Status != state.JobSuccess || len(w.State().Candidates()) != 1 {
			t.Errorf("killed at %d: job is %s, %d candidates; %s", i, j.Status, len(w.State().Candidates()), logOf(j))
		}
	}
}
