package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
	"rolekey/rpc"
)

func threeNodes(t *testing.T) *machine {
	m := master(t, 3)
	m.b.Promote(2)
	m.b.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(3), Flags: &state.FlagPatch{Offline: new(true)}})
	s, _ := m.b.State()
	m.b.Confirm(
		rapi.NodeStatus{Node: statetest.ID(1), Version: s.Head().Version, Hash: s.Head().Hash, Age: 1200 * time.Millisecond, Fresh: true, Reachable: true},
		rapi.NodeStatus{Node: statetest.ID(2), Problem: "dial 10.77.0.2:1811: connection refused\x1b[2J"},
	)
	return m
}

func TestNodeList(t *testing.T) {
	m := threeNodes(t)
	s, _ := m.b.State()
	v := s.Head().Version.Version
	want := "Node           Role             Address   Voter MapVersion\n" +
		fmt.Sprintf("node1.lab.test master           10.77.0.1 Y     %d\n", v) +
		"node2.lab.test master-candidate 10.77.0.2 N     ?\n" +
		"node3.lab.test offline          10.77.0.3 N     *\n"
	if got := m.want(Node, "list"); got != want {
		t.Errorf("table:\n%swant:\n%s", got, want)
	}
	if got := m.want(Node, "list", "--no-headers", "--separator", "|", "-o", "name,role,drained"); got != "node1.lab.test|master|N\nnode2.lab.test|master-candidate|N\nnode3.lab.test|offline|N\n" {
		t.Errorf("fields: %q", got)
	}
	if got := m.want(Node, "list", "--no-headers", "-o", "+vm_capable", "node2"); !strings.HasSuffix(got, "Y\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("one more field of one node: %q", got)
	}
	m.fail(ExitUnknownField, "Warning: Queried for unknown fields colour", Node, "list", "--json", "-o", "colour")
	m.fail(ExitFailed, "error type: unknown_entity, error details:\nNode 'nosuch' not known", Node, "list", "nosuch")
}

// The order and names of the fields are fixed.
func TestNodeListJSON(t *testing.T) {
	m := threeNodes(t)
	var list []json.RawMessage
	m.wantJSON(&list, Node, "list", "--json")
	const want = `{"uuid":"%s","name":"node2.lab.test","role":"master-candidate","address":"10.77.0.2","master_candidate":true,` +
		`"drained":false,"offline":false,"master_capable":true,"vm_capable":true,"voter":false,"map_version":0}`
	if got := compact(t, list[1]); got != fmt.Sprintf(want, statetest.ID(2)) {
		t.Errorf("got  %s\nwant %s", got, fmt.Sprintf(want, statetest.ID(2)))
	}
}

func compact(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	return strings.NewReplacer("\n", "", "  ", "", `": `, `":`).Replace(string(raw))
}

func TestModify(t *testing.T) {
	m := threeNodes(t)
	var op map[string]any
	u := succeeds(`[["master_candidate","True"]]`)
	u.Log = []state.LogLine{{Text: " - INFO: hello"}}
	u.Progress = []string{"effective on 3 of 3 nodes"}
	m.b.OnSubmit = func(id int64, o map[string]any) {
		op, u.ID = o, id
		m.b.Do(state.KindJobUpdate, u)
	}
	r := m.run(Node, "modify", "-C", "yes", "--auto-promote", "node3")
	if r.code != ExitOK || r.out != "Modified node node3\n - master_candidate -> True\n" {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.err, "2026  - INFO: hello\n") || !strings.Contains(r.err, "effective on 3 of 3 nodes\n") {
		t.Errorf("stderr: %q", r.err)
	}
	if fmt.Sprint(op) != "map[OP_ID:OP_NODE_SET_PARAMS auto_promote:true force:false master_candidate:true node_name:node3.lab.test]" {
		t.Errorf("opcode: %v", op)
	}
	var out modified
	m.wantJSON(&out, Node, "modify", "--json", "-O=no", "-D=no", "-f", "node3")
	if out.Changes[0] != [2]string{"master_candidate", "True"} || out.Unreachable == nil || fmt.Sprint(op["offline"], op["drained"], op["force"]) != "false false true" {
		t.Errorf("%+v %v", out, op)
	}
	u.OpResult = []json.RawMessage{json.RawMessage(`[]`)}
	if got := m.want(Node, "modify", "-O", "no", "node2"); got != "" {
		t.Errorf("nothing was modified: %q", got)
	}
	m.fail(ExitFailed, "Please give at least one of the parameters.", Node, "modify", "node2")
	m.fail(ExitFailed, "want yes or no", Node, "modify", "-C", "maybe", "node2")
	m.fail(ExitFailed, "usage: gnt-node modify NODE", Node, "modify", "-C", "yes")
}

func TestMove(t *testing.T) {
	m := master(t, 2)
	m.b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	var op map[string]any
	u := succeeds(`[["primary_ip","10.78.0.2"]]`)
	m.b.OnSubmit = func(id int64, o map[string]any) {
		op, u.ID = o, id
		m.b.Do(state.KindJobUpdate, u)
	}
	out := m.want(Node, "modify", "--address", "10.78.0.2", "-s", "10.77.0.2", "--node-parameters", "ssh_port=2222", "node2")
	if out != "Modified node node2\n - primary_ip -> 10.78.0.2\n" {
		t.Errorf("stdout: %q", out)
	}
	const want = "map[OP_ID:OP_NODE_SET_PARAMS addresses:[10.78.0.2] auto_promote:false force:false ndparams:map[ssh_port:2222] node_name:node2.lab.test secondary_ip:10.77.0.2]"
	if got := fmt.Sprint(op); got != want {
		t.Errorf("opcode: %s", got)
	}
	if got := m.want(Node, "modify", "--dry-run", "--address", "10.78.0.2", "node2"); got != "Would modify node node2\n - primary_ip -> 10.78.0.2\n" {
		t.Errorf("stdout: %q", got)
	}
	m.fail(ExitFailed, "want ssh_port=N", Node, "modify", "--node-parameters", "cpu_speed=3", "node2")
	m.fail(ExitFailed, "want ssh_port=N", Node, "modify", "--node-parameters", "ssh_port=0", "node2")
	m.fail(ExitFailed, "10.1", Node, "modify", "--address", "10.1", "node2")
	u.OpResult = []json.RawMessage{json.RawMessage(`[["name","web.lab.test"]]`)}
	if got := m.want(Node, "rename", "node2", "web.lab.test"); got != "Renamed node node2 to web.lab.test\n" {
		t.Errorf("stdout: %q", got)
	}
	if got := fmt.Sprint(op); got != "map[OP_ID:OP_NODE_RENAME new_name:web.lab.test node_name:node2.lab.test]" {
		t.Errorf("opcode: %s", got)
	}
	m.fail(ExitFailed, "usage: gnt-node rename NODE NEW-NAME", Node, "rename", "node2")
}

func TestModifySubmit(t *testing.T) {
	m := master(t, 2)
	if got := m.want(Node, "modify", "--submit", "-D", "yes", "node2"); got != "JobID: 1\n" {
		t.Errorf("stdout: %q", got)
	}
	if got := m.want(Node, "modify", "--submit", "--json", "-D", "yes", "node2"); compact(t, json.RawMessage(got)) != `{"job":2}` {
		t.Errorf("stdout: %q", got)
	}
	m.ends(succeeds(`[["drained","True"]]`))
	if got := m.want(Node, "modify", "--print-jobid", "-D", "yes", "node2"); got != "3\nModified node node2\n - drained -> True\n" {
		t.Errorf("stdout: %q", got)
	}
}

func TestRefusedJobs(t *testing.T) {
	m := master(t, 2)
	for _, c := range []struct{ result, text, want string }{
		{
			`["OpPrereqError",["Not enough","wrong_state"]]`, "Not enough",
			"Failure: prerequisites not met for this operation:\nerror type: wrong_state, error details:\nNot enough\n",
		},
		{
			`["OpPrereqError",["Not enough","wrong_state"]]`, "Not enough\nhint: take more",
			"Failure: prerequisites not met for this operation:\nerror type: wrong_state, error details:\nNot enough\nhint: take more\n",
		},
		{`["OpExecError",["it broke"]]`, "it broke", "Failure: command execution error:\nit broke\n"},
		{`null`, "it broke", "Failure: command execution error:\nit broke\n"},
		{`"strange"`, "it broke", "Failure: command execution error:\nit broke\n"},
	} {
		m.ends(state.JobUpdate{Status: state.JobError, Error: &c.text, OpResult: []json.RawMessage{json.RawMessage(c.result)}})
		if r := m.run(Node, "modify", "-C", "yes", "node2"); r.code != ExitFailed || r.out != "" || r.err != c.want {
			t.Errorf("%s: %+v, want %q", c.result, r, c.want)
		}
	}
	m.ends(state.JobUpdate{Status: state.JobCanceled})
	m.fail(ExitFailed, "has been canceled", Node, "remove", "node2")
}

// A change that some nodes have not confirmed: G4.
func TestG4UnreachableNodesAreNamed(t *testing.T) {
	m := master(t, 2)
	until := time.Date(2026, 11, 22, 14, 3, 12, 0, time.UTC)
	u := succeeds(`[["offline","True"]]`)
	u.Unreachable = &[]state.Unreachable{{Node: "node8.lab.test", RPCUntil: &until, SSHUntil: &until}, {Node: "node9.lab.test"}}
	m.ends(u)
	r := m.run(Node, "modify", "-O", "yes", "node2")
	if r.code != ExitPending || r.out != "Modified node node2\n - offline -> True\n" {
		t.Errorf("%+v", r)
	}
	for _, line := range []string{
		"  node8.lab.test: RPC trust ends: 2026-11-22 15:03:12 +0100; SSH trust ends: 2026-11-22 15:03:12 +0100\n",
		"  node9.lab.test: RPC trust ends: no bound; SSH trust ends: no bound\n",
	} {
		if !strings.Contains(r.err, line) {
			t.Errorf("%q is missing in\n%s", line, r.err)
		}
	}
	if r := m.run(Node, "remove", "--json", "node2"); r.code != ExitPending || !strings.Contains(r.out, `"rpc_until": "2026-11-22T14:03:12Z"`) {
		t.Errorf("remove: %+v", r)
	}
	if r := m.run(Job, "watch", "2"); r.code != ExitPending || !strings.Contains(r.err, "node8.lab.test") {
		t.Errorf("watch: %+v", r)
	}
}

func TestRemove(t *testing.T) {
	m := master(t, 2)
	m.b.OnSubmit = func(id int64, op map[string]any) {
		if fmt.Sprint(op) != "map[OP_ID:OP_NODE_REMOVE node_name:node2.lab.test]" {
			t.Errorf("opcode: %v", op)
		}
		u := succeeds("[]")
		u.ID = id
		m.b.Do(state.KindJobUpdate, u)
	}
	if got := m.want(Node, "remove", "node2"); got != "" {
		t.Errorf("stdout: %q", got)
	}
}

func TestAddPrintsOnlyTheString(t *testing.T) {
	m := master(t, 1)
	r := m.run(Node, "add", "node2.lab.test", "--address", "10.77.0.2", "--ttl", "2m")
	token, err := pki.ParseToken(strings.TrimSuffix(r.out, "\n"))
	if err != nil || r.code != ExitOK || token.Fields().Name != "node2.lab.test" {
		t.Fatalf("%v: %+v", err, r)
	}
	if strings.Contains(r.err, strings.TrimSpace(r.out)) || !strings.Contains(r.err, "noded join -") || !strings.Contains(r.err, " +0100.\n") {
		t.Errorf("stderr: %q", r.err)
	}
	if !strings.Contains(r.err, "Warning: with two master candidates only one votes, at present node1.lab.test.\n") || !strings.Contains(r.err, "it takes the recovery key") {
		t.Errorf("no warning of two candidates: %q", r.err)
	}
	var a struct {
		Token, Name, Expires string
		Addresses            []string
	}
	m.wantJSON(&a, Node, "add", "--json", "node2.lab.test")
	if _, err := pki.ParseToken(a.Token); err != nil || a.Name != "node2.lab.test" || !strings.HasSuffix(a.Expires, "Z") {
		t.Errorf("%v: %+v", err, a)
	}
	m.fail(ExitFailed, "Node node1 already in the cluster (as node1.lab.test) - please retry with '--readd'\n", Node, "add", "node1")
	m.fail(ExitFailed, "host name", Node, "add", "Node2")
	m.fail(ExitFailed, "want whole seconds", Node, "add", "node3", "--ttl", "1ms")
	m.fail(ExitFailed, "address", Node, "add", "node3", "--address", "nowhere")
}

func TestAddWithWishes(t *testing.T) {
	m := master(t, 1)
	m.fail(ExitFailed, "it needs feature level 2", Node, "add", "--vm-capable=no", "node2.lab.test")
	m.b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	m.want(Node, "add", "-s", "10.78.0.2", "--node-parameters", "ssh_port=2222", "--master-capable=no", "--vm-capable=no", "node2.lab.test")
	s, _ := m.b.State()
	rec := s.LiveAdmissions(m.b.Now())[0]
	if rec.Secondary.String() != "10.78.0.2" || rec.SSHPort != 2222 || *rec.MasterCapable || *rec.VMCapable {
		t.Errorf("%+v", rec)
	}
	if r := m.run(Node, "add", "--master-capable=no", "node2.lab.test"); strings.Contains(r.err, "Warning") {
		t.Errorf("it cannot become a candidate: %s", r.err)
	}
}

func TestReadd(t *testing.T) {
	m := threeNodes(t)
	m.b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	m.fail(ExitFailed, "Node node9 not in the cluster - please retry without '--readd'\n", Node, "add", "--readd", "node9")
	m.fail(ExitFailed, "Node node1 is the master, cannot readd\n", Node, "add", "--readd", "node1")
	m.fail(ExitFailed, "Node node2 already in the cluster (as node2.lab.test) - please retry with '--readd'\n", Node, "add", "node2")
	var op map[string]any
	m.b.OnSubmit = func(id int64, o map[string]any) {
		op = o
		m.b.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), Flags: &state.FlagPatch{MasterCandidate: new(false), Offline: new(true)}})
		u := succeeds(`[["master_candidate","False"]]`)
		u.ID, u.Unreachable = id, &[]state.Unreachable{{Node: "node2.lab.test"}}
		m.b.Do(state.KindJobUpdate, u)
	}
	r := m.run(Node, "add", "--readd", "node2")
	token, err := pki.ParseToken(strings.TrimSuffix(r.out, "\n"))
	if err != nil || r.code != ExitPending || token.Fields().Name != "node2.lab.test" || !strings.Contains(r.err, "noded leave --yes") {
		t.Fatalf("%v: %+v", err, r)
	}
	if fmt.Sprint(op) != "map[OP_ID:OP_NODE_READD node_name:node2.lab.test]" {
		t.Errorf("opcode: %v", op)
	}
	s, _ := m.b.State()
	if rec := s.LiveAdmissions(m.b.Now())[0]; rec.Node != statetest.ID(2) {
		t.Errorf("the string is for node %s", rec.Node)
	}
}

// With three candidates nothing is to be warned of.
func TestAddToThree(t *testing.T) {
	m := master(t, 3)
	m.b.Promote(2)
	m.b.Promote(3)
	if r := m.run(Node, "add", "node4.lab.test"); r.code != ExitOK || strings.Contains(r.err, "Warning") {
		t.Errorf("%+v", r)
	}
}

func TestTokens(t *testing.T) {
	m := master(t, 1)
	token := m.want(Node, "add", "node2.lab.test")
	var list []struct{ ID, Name, State string }
	m.wantJSON(&list, Node, "tokens", "list", "--json")
	if len(list) != 1 || list[0].Name != "node2.lab.test" || list[0].State != "open" {
		t.Fatalf("%+v", list)
	}
	if out := m.want(Node, "tokens", "list"); !strings.Contains(out, list[0].ID) || !strings.Contains(out, "anywhere") || strings.Contains(out, strings.TrimSpace(token)) {
		t.Errorf("table: %s", out)
	}
	if got := m.want(Node, "tokens", "revoke", list[0].ID); got != "" {
		t.Errorf("stdout: %q", got)
	}
	m.wantJSON(&list, Node, "tokens", "list", "--json")
	if len(list) != 0 {
		t.Errorf("after revocation: %+v", list)
	}
	m.fail(ExitFailed, "UUID", Node, "tokens", "revoke", "all")
	m.fail(ExitFailed, "unknown command", Node, "tokens", "nosuch")
}

func TestNodeInfo(t *testing.T) {
	m := threeNodes(t)
	m.b.Inspected = map[cluster.NodeID]rpc.NodeState{statetest.ID(1): {Software: "v1", Fresh: true, PrivateKey: true, Foreign: []string{"SHA256:x"}}}
	out := m.want(Node, "info")
	for _, want := range []string{
		"- Node name: node1.lab.test\n  primary ip: 10.77.0.1\n  secondary ip: 10.77.0.1\n  master candidate: True\n  drained: False\n" +
			"  offline: False\n  master_capable: True\n  vm_capable: True\n  node parameters:\n    ssh_port: 22\n  UUID: ",
		"\n  ssh host keys:\n    - SHA256:", "\n  root ssh keys:\n    - SHA256:", "\n  last contact: 2026-", "\n  map confirmed: not known\n",
		"\n    root key on the node: True\n", "\n    foreign keys of former candidates:\n      - SHA256:x\n",
		"- Node name: node2.lab.test\n", "\n  answer: the node does not answer\n", "\n  answer: the node is set offline\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	var list []struct {
		Name  string
		State *rpc.NodeState
		Error string

		Details wire.NodeDetails
	}
	m.wantJSON(&list, Node, "info", "--json", "node1", "node2")
	if len(list) != 2 || list[0].State == nil || !list[0].State.PrivateKey || list[1].State != nil || list[1].Error == "" || len(list[1].Details.Client) != 1 || list[1].Details.HeadVersion == 0 {
		t.Errorf("%+v", list)
	}
}
