package jobs

import (
	"slices"
	"strings"
	"testing"

	"rolekey/masterd/state"
)

func setCluster(fields string) string { return `{"OP_ID":"OP_CLUSTER_SET_PARAMS",` + fields + `}` }

// TestPoolShrinkKeepsEverybody and says so.
func TestPoolShrinkKeepsEverybody(t *testing.T) {
	w := newWorld(t, 4, 3)
	j := w.finish(w.submit(setCluster(`"candidate_pool_size":1`)))
	wantSuccess(t, j, `[]`)
	if len(w.State().Candidates()) != 3 || w.State().Params.CandidatePoolSize != 1 {
		t.Errorf("%d candidates", len(w.State().Candidates()))
	}
	for _, want := range []string{
		" - INFO: Note: more nodes are candidates (3) than desired (1)",
		" - INFO: All candidates stay so (node1.lab.test, node2.lab.test, node3.lab.test): nobody loses",
	} {
		if !strings.Contains(logOf(j), want) {
			t.Errorf("log %q lacks %q", logOf(j), want)
		}
	}
}

func TestClusterSetWarnsOfWhatItOpens(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{RAPIMayPromote: new(false)}})
	j := w.finish(w.submit(setCluster(`"policy":"best_effort","rapi_may_promote":true,"master_capability_rapi_modifiable":true`)))
	wantSuccess(t, j, `[]`)
	if n := strings.Count(logOf(j), " - WARNING: "); n != 3 {
		t.Errorf("%d warnings in %q", n, logOf(j))
	}
}

func TestClusterDryRun(t *testing.T) {
	for op, want := range map[string]state.JobStatus{
		setCluster(`"candidate_pool_size":5,"dry_run":true`):               state.JobSuccess,
		setCluster(`"lease_seconds":0,"dry_run":true`):                     state.JobError,
		`{"OP_ID":"OP_CLUSTER_RENAME","name":"other.test","dry_run":true}`: state.JobSuccess,
	} {
		w := newWorld(t, 3, 1)
		before := w.State().Head().Hash
		j := w.finish(w.submit(op))
		if j.Status != want || !slices.Equal(w.calls, []string{"change job-update"}) || w.State().Head().Hash != before {
			t.Errorf("%s: job is %s, calls %q", op, j.Status, w.calls)
		}
	}
}

// TestClusterErrors: nothing is committed but the end of the job.
func TestClusterErrors(t *testing.T) {
	for _, c := range []struct{ name, op, result string }{
		{"nothing", setCluster(`"rapi":false`), `["OpPrereqError",["Please pass at least one modification","wrong_input"]]`},
		{"pool of none", setCluster(`"candidate_pool_size":0`), `["OpPrereqError",["Candidate pool size 0 is not valid: want 1 to 64","wrong_input"]]`},
		{"lease", setCluster(`"lease_seconds":0`), `["OpPrereqError",["map lease 0s: want 1s to 24h0m0s","wrong_state"]]`},
		{"policy", setCluster(`"policy":"lax"`), `["OpPrereqError",["The opcode is not readable","wrong_input"]]`},
		{
			"over RAPI", setCluster(`"rapi_may_promote":true,"rapi":true`),
			`["OpPrereqError",["rapi_may_promote, master_capability_rapi_modifiable, ssh_reach and the other settings of SSH, policy and the cluster address cannot be changed over RAPI","wrong_state"]]`,
		},
		{
			"address over RAPI", setCluster(`"no_master_address":true,"rapi":true`),
			`["OpPrereqError",["rapi_may_promote, master_capability_rapi_modifiable, ssh_reach and the other settings of SSH, policy and the cluster address cannot be changed over RAPI","wrong_state"]]`,
		},
		{
			"way of authorizing over RAPI", setCluster(`"ssh_authorize":"command","rapi":true`),
			`["OpPrereqError",["rapi_may_promote, master_capability_rapi_modifiable, ssh_reach and the other settings of SSH, policy and the cluster address cannot be changed over RAPI","wrong_state"]]`,
		},
		{"way of authorizing", setCluster(`"ssh_authorize":"both"`), `["OpPrereqError",["The opcode is not readable","wrong_input"]]`},
		{"same name", `{"OP_ID":"OP_CLUSTER_RENAME","name":"lab.test"}`, `["OpPrereqError",["Neither the name nor the IP address of the cluster has changed","wrong_input"]]`},
		{"address of a node", setCluster(`"master_address":{"address":"10.77.0.1/24","netdev":"eth0"}`), ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 2, 1)
			before := w.State().Head().Hash
			j := w.finish(w.submit(c.op))
			if j.Status != state.JobError || c.result != "" && string(j.OpResult[0]) != c.result {
				t.Errorf("job is %s, result %s", j.Status, j.OpResult[0])
			}
			if w.State().Head().Hash != before || slices.Contains(w.calls, "change cluster-change") {
				t.Errorf("something was done: %q", w.calls)
			}
		})
	}
}
