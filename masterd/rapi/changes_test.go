package rapi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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

// What a change puts into the queue.
func TestChangesAreJobs(t *testing.T) {
	cases := []struct {
		verb, path, body string
		summary, op      string
	}{
		{
			"PUT", "/2/nodes/node2/role?force=1&auto-promote=1", `"regular"`, "NODE_SET_PARAMS(node2.lab.test)",
			`{"OP_ID":"OP_NODE_SET_PARAMS","node_name":"node2.lab.test","master_candidate":false,"drained":false,"offline":false,"auto_promote":true,"force":true}`,
		},
		{
			"PUT", "/2/nodes/node2.lab.test/role", `"master-candidate"`, "NODE_SET_PARAMS(node2.lab.test)",
			`{"OP_ID":"OP_NODE_SET_PARAMS","node_name":"node2.lab.test","master_candidate":true,"auto_promote":false,"force":false}`,
		},
		{
			"PUT", "/2/nodes/node2/role?force=0", `"drained"`, "NODE_SET_PARAMS(node2.lab.test)",
			`{"OP_ID":"OP_NODE_SET_PARAMS","node_name":"node2.lab.test","drained":true,"auto_promote":false,"force":false}`,
		},
		{
			"PUT", "/2/nodes/node2/role", ` "offline" `, "NODE_SET_PARAMS(node2.lab.test)",
			`{"OP_ID":"OP_NODE_SET_PARAMS","node_name":"node2.lab.test","offline":true,"auto_promote":false,"force":false}`,
		},
		{
			"POST", "/2/nodes/nosuch/modify", `{"master_capable":false,"vm_capable":null,"auto_promote":true}`, "NODE_SET_PARAMS(nosuch)",
			`{"OP_ID":"OP_NODE_SET_PARAMS","node_name":"nosuch","master_capable":false,"auto_promote":true,"force":false}`,
		},
		{
			"DELETE", "/2/nodes/" + statetest.ID(2).String(), "", "NODE_REMOVE(node2.lab.test)",
			`{"OP_ID":"OP_NODE_REMOVE","node_name":"node2.lab.test"}`,
		},
		{
			"POST", "/2/verify", `{"error_codes":true,"ignore_errors":["ENODETIME"]}`, "CLUSTER_VERIFY",
			`{"OP_ID":"OP_CLUSTER_VERIFY","error_codes":true,"ignore_errors":["ENODETIME"],"verbose":false}`,
		},
		{"PUT", "/2/redistribute-config", "", "CLUSTER_REDIST_CONF", `{"OP_ID":"OP_CLUSTER_REDIST_CONF"}`},
		{
			"PUT", "/2/modify", `{"candidate_pool_size":3,"policy":"strict"}`, "CLUSTER_SET_PARAMS",
			`{"OP_ID":"OP_CLUSTER_SET_PARAMS","candidate_pool_size":3,"policy":"strict"}`,
		},
		{"PUT", "/2/name", `{"name":"other.test"}`, "CLUSTER_RENAME(other.test)", `{"OP_ID":"OP_CLUSTER_RENAME","name":"other.test"}`},
		{"POST", "/2/verify", "", "CLUSTER_VERIFY", `{"OP_ID":"OP_CLUSTER_VERIFY","error_codes":false,"ignore_errors":[],"verbose":false}`},
	}
	b := newBench(t, 2)
	b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSettings})
	for _, c := range cases {
		var id int64
		b.want(c.verb, c.path, c.body, &id)
		s, _ := b.State()
		j := s.Jobs[id]
		if j == nil || j.Summary[0] != c.summary || !sameJSON(t, string(j.Ops[0]), c.op) {
			t.Errorf("%s %s: job %d: %+v, want %s", c.verb, c.path, id, j, c.op)
		}
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y map[string]any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(slices.Sorted(maps.Keys(x)), x) == fmt.Sprint(slices.Sorted(maps.Keys(y)), y)
}

func TestBodiesAreStrict(t *testing.T) {
	b := newBench(t, 2)
	const modify = "/2/nodes/node2/modify"
	for _, c := range []struct {
		verb, path, body string
		status           int
		message          string
	}{
		{"POST", modify, `{"drained":true,"powered":true}`, 400, "Invalid body contents: unknown field &quot;powered&quot;"},
		{"POST", modify, `{"drained":"yes"}`, 400, ""},
		{"POST", modify, `{"drained":true}{}`, 400, "Unable to parse JSON data"},
		{"POST", modify, `"` + strings.Repeat("x", 70<<10) + `"`, 413, ""},
		{"PUT", "/2/nodes/node2/role", `"<b>"`, 400, "Can&#x27;t set &#x27;&lt;b&gt;&#x27; role"},
		{"POST", "/2/admissions", `{"name":"*"}`, 400, ""},
		{"POST", "/2/admissions", `{"name":"node9.lab.test","ttl_seconds":-1}`, 400, ""},
		{"POST", "/2/admissions", `{"name":"node9.lab.test","ttl_seconds":604801}`, 400, ""},
		{"DELETE", "/2/admissions/x", "", 404, "Not Found"},
		{"GET", "/2/jobs/x", "", 404, "Not Found"},
		{"GET", "/2/jobs/-1", "", 404, "Not Found"},
		{"GET", "/2/jobs/9999999999999999999", "", 404, "Not Found"},
		{"GET", "/2/nodes/..", "", 404, "Not Found"},
		{"PUT", "/2/nodes/node2/modify", "", 501, "Method PUT is unsupported for path /2/nodes/node2/modify"},
	} {
		e := b.refuse(c.verb, c.path, c.body, c.status)
		if c.message != "" && e.Message != c.message {
			t.Errorf("%s %s %.40s: %q, want %q", c.verb, c.path, c.body, e.Message, c.message)
		}
		if e.Explain == "" || e.Reason == "" {
			t.Errorf("%s %s %.40s: %+v", c.verb, c.path, c.body, e)
		}
	}
}

// Every change is refused on a node that is not the master in office, and
// reads are answered.
func TestOnlyTheMasterChanges(t *testing.T) {
	b := newBench(t, 2)
	elsewhere := cluster.Errorf(cluster.CodeNotMaster, "this node is not the master").WithHint("run it on node9")
	elsewhere.Node = "node9.lab.test"
	before := len(jobsOf(b))
	for _, refusal := range []*cluster.Error{elsewhere, cluster.Errorf(cluster.CodeNoQuorum, "there is no master")} {
		b.Fail(nil, refusal)
		for _, c := range [][3]string{
			{"PUT", "/2/nodes/node2/role", `"drained"`},
			{"POST", "/2/nodes/node2/modify", `{"drained":true}`},
			{"DELETE", "/2/nodes/node2", ""},
			{"POST", "/2/verify", ""},
			{"DELETE", "/2/jobs/1", ""},
			{"POST", "/2/admissions", `{"name":"node3.lab.test"}`},
			{"DELETE", "/2/admissions/" + cluster.NewUUID().String(), ""},
		} {
			e := b.refuse(c[0], c[1], c[2], refusal.Code.HTTPStatus())
			if e.Reason != refusal.Code || e.Hint != refusal.Hint || e.Node != refusal.Node {
				t.Errorf("%s %s: %+v", c[0], c[1], e)
			}
		}
		var info wire.Info
		if b.want("GET", "/2/info", "", &info); info.Rolekey.Ready || info.Master != "node1.lab.test" {
			t.Errorf("info: %+v", info)
		}
		for _, path := range []string{"/2/nodes?bulk=1", "/2/map", "/2/jobs", "/2/admissions"} {
			b.want("GET", path, "", new(any))
		}
	}
	if n := len(jobsOf(b)); n != before {
		t.Errorf("%d jobs, want %d", n, before)
	}
	b.Fail(cluster.Errorf(cluster.CodeNoMap, "no cluster"), nil)
	for _, path := range []string{"/2/info", "/2/nodes", "/2/nodes/node1", "/2/map", "/2/jobs", "/2/jobs/1", "/2/admissions"} {
		if e := b.refuse("GET", path, "", 503); e.Reason != cluster.CodeNoMap {
			t.Errorf("%s: %+v", path, e)
		}
	}
}

// A master that loses its office in the middle of a change does not name itself
// as the one to ask.
func TestOfficeLostMeanwhile(t *testing.T) {
	b := newBench(t, 2)
	lost := cluster.Errorf(cluster.CodeNotMaster, "leadership lost")
	b.SubmitErr = lost
	b.OnRefuse = func() { b.Fail(nil, cluster.Errorf(cluster.CodeNoQuorum, "no master")) }
	if e := b.refuse("POST", "/2/verify", "", 503); e.Reason != cluster.CodeNoQuorum || !strings.Contains(e.Hint, "gnt-job list") {
		t.Errorf("nobody is master: %+v", e)
	}
	b.Fail(nil, nil)
	b.OnRefuse = func() {
		e := cluster.Errorf(cluster.CodeNotMaster, "the master is another")
		e.Node = "node2.lab.test"
		b.Fail(nil, e)
	}
	if e := b.refuse("POST", "/2/verify", "", 403); e.Reason != cluster.CodeNotMaster || e.Node != "node2.lab.test" {
		t.Errorf("another is master: %+v", e)
	}
}

func jobsOf(b *bench) []*state.Job {
	s, _ := b.State()
	return s.SortedJobs()
}

func TestAdmissions(t *testing.T) {
	b := newBench(t, 1)
	var a wire.Admitted
	b.want("POST", "/2/admissions", `{"name":"node2.lab.test","addresses":["10.77.0.2"],"ttl_seconds":120}`, &a)
	token, err := pki.ParseToken(a.Token)
	if err != nil || token.Fields().Name != "node2.lab.test" {
		t.Fatalf("token: %v", err)
	}
	if got := a.Admission.Expires.Sub(a.Admission.Created); got != 2*time.Minute || a.Admission.Actor != "root (local socket)" && !strings.HasPrefix(a.Admission.Actor, "uid ") {
		t.Errorf("record: %+v", a.Admission)
	}
	if o := a.Outlook; o.Candidates != 2 || len(o.Voters) != 1 || o.Voters[0] != "node1.lab.test" || !o.Recovery {
		t.Errorf("outlook: %+v", o)
	}
	var list []wire.Admission
	if b.want("GET", "/2/admissions", "", &list); len(list) != 1 || list[0].ID != a.Admission.ID || list[0].State != "open" {
		t.Errorf("list: %+v", list)
	}
	if strings.Contains(b.ask("GET", "/2/admissions", "").text, a.Token) {
		t.Error("the list tells the string")
	}
	b.want("DELETE", "/2/admissions/"+a.Admission.ID.String(), "", new(any))
	if b.want("GET", "/2/admissions", "", &list); len(list) != 0 {
		t.Errorf("after revocation: %+v", list)
	}
	b.refuse("DELETE", "/2/admissions/"+cluster.NewUUID().String(), "", 403)
	if e := b.refuse("POST", "/2/admissions", `{"name":"node1.lab.test"}`, 409); e.Reason != cluster.CodeAlreadyExists {
		t.Errorf("a node that is there: %+v", e)
	}
}

func TestMapTellsWhatNodesConfirmed(t *testing.T) {
	b := newBench(t, 3)
	b.Promote(2)
	s, _ := b.State()
	until := b.Now().Add(time.Minute)
	b.Confirm(rapi.NodeStatus{
		Node: statetest.ID(1), Version: s.Head().Version, Hash: s.Head().Hash, Age: 1500 * time.Millisecond, Fresh: true, Reachable: true,
		LeaseUntil: until,
	})
	var m wire.Map
	b.want("GET", "/2/map", "", &m)
	if m.Hash != s.Head().Hash || m.Version != s.Head().Version.Version || *m.Master != statetest.ID(1) || m.MasterName != "node1.lab.test" {
		t.Errorf("map: %+v", m)
	}
	if len(m.Candidates) != 2 || !m.Candidates[0].Voter || m.Candidates[1].Voter || m.Candidates[1].Name != "node2.lab.test" {
		t.Errorf("candidates: %+v", m.Candidates)
	}
	key := statetest.Keys(1, 0)
	if c := m.Candidates[0]; c.Client[0] != key.Client[0] || !strings.HasPrefix(c.SSH[0], "ssh-ed25519 AAAA") {
		t.Errorf("keys: %+v", c)
	}
	n := m.Nodes[0]
	if n.Role != cluster.RoleMaster || n.Hash != s.Head().Hash.String() || *n.AgeSeconds != 1.5 || !n.Fresh || !n.RPCUntil.Equal(until) || n.SSHUntil != nil {
		t.Errorf("node 1: %+v", n)
	}
	if n := m.Nodes[2]; n.Role != cluster.RoleRegular || n.Version != 0 || n.Hash != "" || n.AgeSeconds != nil || n.Fresh || n.Reachable {
		t.Errorf("node 3, which confirmed nothing: %+v", n)
	}
	// Digests are lower-case hex wherever they stand.
	text := b.ask("GET", "/2/map", "").text
	if !strings.Contains(text, `"client":["`+key.Client[0].String()+`"]`) {
		t.Errorf("client digest: %s", text)
	}
}

func TestShortNames(t *testing.T) {
	b := newBench(t, 2)
	record := b.Record(5, "node2.other.test")
	b.Do(state.KindAdmissionCreate, state.AdmissionCreate{Record: record})
	n := statetest.Node(5)
	n.Record, n.Name = record.ID, record.Name
	b.Do(state.KindNodeAdmit, n)
	for ref, want := range map[string]string{
		"node1": "node1.lab.test", "node1.lab": "node1.lab.test", "node2.other": "node2.other.test",
		statetest.ID(2).String(): "node2.lab.test", "node2.lab.test": "node2.lab.test",
	} {
		var got wire.Node
		if b.want("GET", "/2/nodes/"+ref, "", &got); string(got.Name) != want {
			t.Errorf("%s is %s, want %s", ref, got.Name, want)
		}
	}
	for _, ref := range []string{"node2", "node", "ode1", "NODE1", "node1.", "*", statetest.ID(9).String()} {
		b.refuse("GET", "/2/nodes/"+ref, "", 404)
	}
}

func TestInspect(t *testing.T) {
	b := newBench(t, 2)
	b.Inspected = map[cluster.NodeID]rpc.NodeState{statetest.ID(2): {Name: "node2.lab.test", PrivateKey: true}}
	var s rpc.NodeState
	if b.want("GET", "/2/nodes/node2/state", "", &s); !s.PrivateKey {
		t.Errorf("state: %+v", s)
	}
	if e := b.refuse("GET", "/2/nodes/node1/state", "", 503); e.Reason != cluster.CodeUnavailable {
		t.Errorf("a silent node: %+v", e)
	}
}
