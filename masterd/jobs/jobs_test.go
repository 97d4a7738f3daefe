package jobs

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/masterd/verify"
	"rolekey/rpc"
)

func logOf(j *state.Job) (text string) {
	for _, op := range j.Log {
		for _, e := range op {
			text += e.Text + "\n"
		}
	}
	return text
}

func wantSuccess(t *testing.T, j *state.Job, result string) {
	t.Helper()
	if j.Status != state.JobSuccess || j.Error != "" {
		t.Fatalf("job is %s: %s", j.Status, j.Error)
	}
	if got := string(j.OpResult[len(j.OpResult)-1]); got != result {
		t.Errorf("result %s, want %s", got, result)
	}
	for i, s := range j.OpStatus {
		if s != state.JobSuccess {
			t.Errorf("opcode %d is %s", i, s)
		}
	}
}

func TestPromote(t *testing.T) {
	w := newWorld(t, 3, 1)
	j := w.finish(w.submit(modify(2, `"master_candidate":true`)))
	wantSuccess(t, j, `[["master_candidate","True"]]`)
	n := w.node(2)
	if !n.Flags.MasterCandidate || w.State().HeadMap().Candidates[1].UUID != n.UUID {
		t.Error("the map does not name it")
	}
	want := []string{"create node2.lab.test", "change node-change", "create node2.lab.test", "change job-update"}
	if !slices.Equal(w.calls, want) {
		t.Errorf("calls %q, want %q", w.calls, want)
	}
	if err := w.settled(); err != nil {
		t.Error(err)
	}
	if j.Progress[0].Text != "effective on 3 of 3 nodes" || len(j.Unreachable) > 0 {
		t.Errorf("progress %v, unreachable %v", j.Progress, j.Unreachable)
	}
	if j.Start.IsZero() || j.End.IsZero() {
		t.Error("start or end is not noted")
	}
}

// TestG4RevocationComesFirst: what takes rights away is committed and
// published before anything else happens to any node.
func TestG4RevocationComesFirst(t *testing.T) {
	for name, c := range map[string]struct {
		op    string
		calls []string
	}{
		"demote":         {modify(3, `"master_candidate":false`), []string{"change node-change", "destroy node3.lab.test", "change job-update"}},
		"drain":          {modify(3, `"drained":true`), []string{"change node-change", "destroy node3.lab.test", "change job-update"}},
		"set offline":    {modify(3, `"offline":true`), []string{"change node-change", "destroy node3.lab.test", "change job-update"}},
		"remove":         {remove(3), []string{"change node-remove", "change job-submit", "dismiss node3.lab.test", "change job-update"}},
		"offline normal": {modify(4, `"offline":true`), []string{"change node-change", "change job-update"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4, 3)
			w.do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{CandidatePoolSize: new(2)}})
			j := w.finish(w.submit(c.op))
			if j.Status != state.JobSuccess {
				t.Fatalf("job is %s: %s", j.Status, j.Error)
			}
			// The gossip key is replaced after a removal, by a job of its own.
			if len(w.calls) < len(c.calls) || !slices.Equal(w.calls[:len(c.calls)], c.calls) {
				t.Errorf("calls %q, want %q", w.calls, c.calls)
			}
		})
	}
}

func TestDemoteTakesTheVoteAlong(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{CandidatePoolSize: new(2)}})
	w.finish(w.submit(modify(3, `"master_candidate":false`)))
	if v := w.State().Voters(); !slices.Equal(v, []cluster.NodeID{statetest.ID(1)}) {
		t.Errorf("voters %v, want the master alone: two are one too many", v)
	}
	if err := w.settled(); err != nil {
		t.Error(err)
	}
}

// TestAutoPromoteTakesAnotherNode: Ganeti leaves out the node that was demoted.
func TestAutoPromoteTakesAnotherNode(t *testing.T) {
	for _, op := range []string{
		modify(2, `"master_candidate":false,"auto_promote":true`),
		modify(2, `"offline":true,"auto_promote":true`),
		modify(2, `"drained":true,"auto_promote":true`),
		remove(2),
	} {
		w := newWorld(t, 4, 3)
		j := w.finish(w.submit(op))
		if j.Status != state.JobSuccess {
			t.Fatalf("job is %s: %s", j.Status, j.Error)
		}
		if n := w.node(2); n != nil && n.Flags.MasterCandidate {
			t.Errorf("%s: the node was promoted again at once", op)
		}
		if !w.node(4).Flags.MasterCandidate {
			t.Errorf("%s: no other node was promoted", op)
		}
		if !strings.Contains(logOf(j), "Promoted nodes to master candidate role: node4.lab.test") {
			t.Errorf("%s: log %q", op, logOf(j))
		}
		if err := w.settled(); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// TestPoolSkipsWhoDoesNotAnswer and takes the next one.
func TestPoolSkipsWhoDoesNotAnswer(t *testing.T) {
	w := newWorld(t, 5, 3)
	w.at(4).up = false
	j := w.finish(w.submit(remove(2)))
	if w.node(4).Flags.MasterCandidate || !w.node(5).Flags.MasterCandidate {
		t.Error("the dead node was promoted, or the living one was not")
	}
	if j.Status != state.JobSuccess || !strings.Contains(logOf(j), "WARNING: Node node4.lab.test was not promoted") {
		t.Errorf("job is %s, log %q", j.Status, logOf(j))
	}
}

func TestNodeAdd(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{CandidatePoolSize: new(2)}})
	wantSuccess(t, w.finish(w.submit(add(2))), `[]`)
	wantSuccess(t, w.finish(w.submit(add(3))), `[]`)
	wantSuccess(t, w.finish(w.submit(add(2))), `[]`) // a lost reply, asked again
	if !w.node(2).Flags.MasterCandidate || w.node(3).Flags.MasterCandidate {
		t.Error("the pool has room for one")
	}
}

// TestGanetiErrors: results in Ganeti's form, nothing committed, nothing asked
// of any node.
func TestGanetiErrors(t *testing.T) {
	for _, c := range []struct {
		name, op, result string
	}{
		{"unknown node", modify(9, `"offline":true`), `["OpPrereqError",["Node 'node9.lab.test' not known","unknown_entity"]]`},
		{"nothing asked", modify(2, `"force":true`), `["OpPrereqError",["Please pass at least one modification","wrong_input"]]`},
		{"two states", modify(2, `"offline":true,"drained":true`), `["OpPrereqError",["Can't set the node into more than one state at the same time","wrong_input"]]`},
		{"master", modify(1, `"offline":true`), `["OpPrereqError",["The master role can be changed only via master-failover","wrong_input"]]`},
		{"pool", modify(2, `"offline":true`), `["OpPrereqError",["Not enough master candidates, please pass auto promote option to allow promotion (--auto-promote or RAPI auto_promote=True)","wrong_state"]]`},
		{"remove master", remove(1), `["OpPrereqError",["Node is the master node, failover to another node is required","wrong_input"]]`},
		{"remove unknown", remove(9), `["OpPrereqError",["Node 'node9.lab.test' not known","unknown_entity"]]`},
		{"add unknown", add(9), `["OpPrereqError",["Node 'node9.lab.test' not known","unknown_entity"]]`},
		{"unknown opcode", `{"OP_ID":"OP_INSTANCE_CREATE"}`, `["OpPrereqError",["Opcode OP_INSTANCE_CREATE is not known","wrong_input"]]`},
		{"no opcode", `{"OP_ID":7}`, `["OpPrereqError",["The opcode is not readable","wrong_input"]]`},
		{"fields of another type", modify(2, `"offline":"yes"`), `["OpPrereqError",["The opcode is not readable","wrong_input"]]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 4, 3)
			before := w.State().Head().Hash
			j := w.finish(w.submit(c.op))
			if j.Status != state.JobError || string(j.OpResult[0]) != c.result {
				t.Errorf("job is %s, result %s, want %s", j.Status, j.OpResult[0], c.result)
			}
			if w.State().Head().Hash != before || !slices.Equal(w.calls, []string{"change job-update"}) {
				t.Errorf("something was done: %q", w.calls)
			}
		})
	}
}

func TestNoOpCommitsNothing(t *testing.T) {
	w := newWorld(t, 4, 3)
	before := w.State().Head().Hash
	j := w.finish(w.submit(modify(4, `"offline":false`)))
	wantSuccess(t, j, `[]`)
	if w.State().Head().Hash != before || !strings.Contains(logOf(j), "already unset") {
		t.Errorf("log %q", logOf(j))
	}
}

// TestLossOfMajorityIsRefused before anything is committed.
func TestLossOfMajorityIsRefused(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.at(2).up = false
	j := w.finish(w.submit(modify(3, `"offline":true,"auto_promote":true`)))
	if j.Status != state.JobError || !strings.Contains(j.Error, "cannot lose its role now") {
		t.Errorf("job is %s: %s", j.Status, j.Error)
	}
	if w.node(3).Flags.Offline {
		t.Error("it was committed all the same")
	}
}

// TestDeadNodeIsNoObstacle: demoting and removing go on, and say what is open.
func TestDeadNodeIsNoObstacle(t *testing.T) {
	for name, op := range map[string]string{
		"demote": modify(3, `"master_candidate":false,"auto_promote":true`), "remove": remove(3),
	} {
		w := newWorld(t, 4, 3)
		w.at(3).up = false
		j := w.finish(w.submit(op))
		if j.Status != state.JobSuccess || !strings.Contains(logOf(j), " - WARNING: node node3.lab.test") && !strings.Contains(logOf(j), " - WARNING: no route") {
			t.Errorf("%s: job is %s, log %q", name, j.Status, logOf(j))
		}
		if name == "remove" {
			continue // it is no member any more, and nobody waits for it
		}
		if len(j.Unreachable) != 1 || j.Unreachable[0].Node != "node3.lab.test" || j.Unreachable[0].RPCUntil == nil {
			t.Errorf("%s: unreachable %v", name, j.Unreachable)
		}
		want := "effective on 3 of 4 nodes; node3.lab.test unreachable, RPC lease ends 2026-11-22T13:00:00Z, sshd expiry no bound"
		if j.Progress[0].Text != want {
			t.Errorf("%s: progress %q, want %q", name, j.Progress[0].Text, want)
		}
	}
}

// TestPoolCountsWhoIsCommitted: a node that dies between its promotion and its
// certificate is a candidate, and the reconciler sees to it.
func TestPoolCountsWhoIsCommitted(t *testing.T) {
	w := newWorld(t, 5, 3)
	w.onCall = func(what string) {
		if what == "change node-change" {
			w.at(4).up = false
		}
	}
	j := w.finish(w.submit(remove(2)))
	if !w.node(4).Flags.MasterCandidate || w.node(5).Flags.MasterCandidate {
		t.Error("the pool took in another number of nodes than it lacked")
	}
	if !strings.Contains(logOf(j), "has not confirmed its certificate") || !strings.Contains(logOf(j), "Promoted nodes to master candidate role: node4.lab.test") {
		t.Errorf("log %q", logOf(j))
	}
}

func TestPromotionNeedsAnAnswer(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.at(2).up = false
	j := w.finish(w.submit(modify(2, `"master_candidate":true`)))
	if j.Status != state.JobError || !strings.HasPrefix(string(j.OpResult[0]), `["OpExecError",["node node2.lab.test does not make its candidate keys`) {
		t.Errorf("job is %s, result %s", j.Status, j.OpResult[0])
	}
	if w.node(2).Flags.MasterCandidate {
		t.Error("a dead node was promoted")
	}
}

// TestKeysOfANodeAreChecked: a node cannot enter the keys of another one.
func TestKeysOfANodeAreChecked(t *testing.T) {
	for name, spoil := range map[string]func(*rpc.CandidateKeys){
		"no proof of possession": func(k *rpc.CandidateKeys) { k.Possession = nil },
		"another's signing key":  func(k *rpc.CandidateKeys) { k.Signing = statetest.Keys(3, 0).Signing },
		"no signing key":         func(k *rpc.CandidateKeys) { k.Signing = nil },
		"no request":             func(k *rpc.CandidateKeys) { k.CSR = nil },
		"a damaged request":      func(k *rpc.CandidateKeys) { k.CSR = append(slices.Clone(k.CSR[:len(k.CSR)-1]), k.CSR[len(k.CSR)-1]^1) },
		"an SSH key that is none": func(k *rpc.CandidateKeys) {
			k.SSH = []cluster.SSHKey{{Type: "ssh-ed25519", Blob: []byte("x\nssh-rsa AAAA")}}
		},
	} {
		w := newWorld(t, 3, 1)
		w.at(2).spoil = spoil
		j := w.finish(w.submit(modify(2, `"master_candidate":true`)))
		if j.Status != state.JobError || w.node(2).Flags.MasterCandidate {
			t.Errorf("%s: job is %s", name, j.Status)
		}
	}
}

func TestG10WithoutSSHNoKeyEnters(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{SSHSetup: new(false)}})
	w.finish(w.submit(modify(2, `"master_candidate":true`)))
	if n := w.node(2); n.Keys == nil || len(n.Keys.SSH) > 0 {
		t.Error("an SSH key entered the map of a cluster without SSH")
	}
}

// TestDestructionProblemsAreTold and do not fail the job: the keys open nothing.
// TestG5DestructionIsTold: however a role is lost, the job names the node that
// could not be asked to destroy its keys, and the file that remained on one.
func TestG5DestructionIsTold(t *testing.T) {
	for name, op := range map[string]string{
		"demote": modify(3, `"master_candidate":false,"auto_promote":true`), "drain": modify(3, `"drained":true,"auto_promote":true`),
		"offline": modify(3, `"offline":true,"auto_promote":true`), "remove": remove(3), "readd": readd(3),
	} {
		for state, spoil := range map[string]func(m *machine){
			"remove /x/id: operation not permitted": func(m *machine) { m.problems = []string{"remove /x/id: operation not permitted"} },
			"no route to host":                      func(m *machine) { m.up = false },
			"":                                      func(*machine) {},
		} {
			w := newWorld(t, 4, 3)
			spoil(w.at(3))
			j := w.finish(w.submit(op))
			told := strings.Contains(logOf(j), "WARNING: node node3.lab.test") && strings.Contains(logOf(j), state)
			if j.Status != "success" || told != (state != "") {
				t.Errorf("%s, %q: job is %s, log %q", name, state, j.Status, logOf(j))
			}
		}
	}
}

// TestG5ReturnLeavesNoKeys: a node that is asked whether it is up, to come back
// from offline, makes no candidate keys for that.
func TestG5ReturnLeavesNoKeys(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(4), Flags: &state.FlagPatch{Offline: new(true)}})
	w.at(4).up = false
	j := w.finish(w.submit(modify(4, `"offline":false`)))
	want := `["OpPrereqError",["Node node4.lab.test is being de-offlined but fails to report its version","wrong_state"]]`
	if j.Status != state.JobError || string(j.OpResult[0]) != want {
		t.Errorf("a dead node: job is %s, result %s", j.Status, j.OpResult[0])
	}
	w.at(4).up = true
	wantSuccess(t, w.finish(w.submit(modify(4, `"offline":false`))), `[["offline","False"]]`)
	if w.node(4).Flags.Offline || w.node(4).Flags.MasterCandidate {
		t.Errorf("flags %+v", w.node(4).Flags)
	}
	if err := w.settled(); err != nil {
		t.Error(err)
	}
}

// TestPromotionWaitsForRaft: a voter without its memory could vote twice.
func TestPromotionWaitsForRaft(t *testing.T) {
	for name, op := range map[string]string{"directly": modify(4, `"master_candidate":true`), "by the pool": remove(2)} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 4, 3)
			w.raft = []cluster.NodeID{statetest.ID(4)}
			go func() {
				time.Sleep(3 * time.Second)
				w.mu.Lock()
				defer w.mu.Unlock()
				w.raft = nil
			}()
			j := w.finish(w.submit(op))
			if j.Status != state.JobSuccess || !w.node(4).Flags.MasterCandidate {
				t.Errorf("%s: job is %s: %s", name, j.Status, j.Error)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 4, 3)
			w.raft = []cluster.NodeID{statetest.ID(4)}
			start := time.Now()
			w.finish(w.submit(op))
			if took := time.Since(start); took < outLimit || took > outLimit+time.Second {
				t.Errorf("%s: it waited %s", name, took)
			}
			if w.node(4).Flags.MasterCandidate {
				t.Errorf("%s: promoted while raft has its former life", name)
			}
		})
	}
}

func TestVerifyJob(t *testing.T) {
	w := newWorld(t, 1, 1)
	wantSuccess(t, w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_VERIFY"}`)), `true`)
	w.report = []string{"* Verifying", "  - ERROR: node x: y"}
	w.findings = []*verify.Finding{{Severity: "ERROR"}}
	j := w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_VERIFY"}`))
	wantSuccess(t, j, `false`)
	if logOf(j) != "* Verifying\n  - ERROR: node x: y\n" {
		t.Errorf("log %q", logOf(j))
	}
	w.verdict = &roles.PrereqError{Class: roles.WrongInput, Msg: "no"}
	j = w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_VERIFY"}`))
	if j.Status != state.JobError || string(j.OpResult[0]) != `["OpPrereqError",["no","wrong_input"]]` {
		t.Errorf("job is %s, result %s", j.Status, j.OpResult[0])
	}
}
