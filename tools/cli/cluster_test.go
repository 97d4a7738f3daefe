package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rolekey/cluster"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/rapitest"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

func TestMap(t *testing.T) {
	m := threeNodes(t)
	s, _ := m.b.State()
	out := m.want(Cluster, "map")
	for _, want := range []string{
		"Cluster: lab.test (", fmt.Sprintf("Map: version %d of epoch 1, issued 2026-11-22 13:", s.Head().Version.Version),
		"Hash: " + s.Head().Hash.String() + "\n", "Master: node1.lab.test\n", "Lease: 2m for RPC (strict afterwards), 24h for SSH keys\n",
		"Recovery: with 1 of 1 keys\n",
		"\nnode1.lab.test master           voter     1.", " 1.2s ago Y     Y\n",
		"\nnode2.lab.test master-candidate candidate ?", "\nnode3.lab.test offline          -         ?",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

// What keeps a node from being reached is told, and takes over no terminal.
func TestMapTellsProblems(t *testing.T) {
	m := threeNodes(t)
	want := "node2.lab.test did not answer the master's last call: dial 10.77.0.2:1811: connection refused?[2J\n"
	if r := m.run(Cluster, "map"); r.code != ExitOK || r.err != want {
		t.Errorf("%+v", r)
	}
	var got wire.Map
	m.wantJSON(&got, Cluster, "map", "--json")
	if got.Nodes[0].Problem != "" || !strings.Contains(got.Nodes[1].Problem, "refused") {
		t.Errorf("%+v", got.Nodes)
	}
}

// A node that is not the master knows of no confirmations, and says so.
func TestMapOfAnotherCandidate(t *testing.T) {
	m := master(t, 2)
	if r := m.run(Cluster, "map"); r.code != ExitOK || !strings.Contains(r.out, "? ") || !strings.Contains(r.err, "Only the master knows") {
		t.Errorf("%+v", r)
	}
}

// The fields that others rely on.
func TestMapJSON(t *testing.T) {
	m := threeNodes(t)
	var got map[string]any
	m.wantJSON(&got, Cluster, "map", "--json")
	for _, k := range strings.Fields("cluster epoch version hash issued lease_seconds policy ssh_reach master candidates nodes") {
		if _, ok := got[k]; !ok {
			t.Errorf("%s is missing", k)
		}
	}
	candidate := got["candidates"].([]any)[0].(map[string]any)
	for _, k := range strings.Fields("uuid name address voter client signing ssh") {
		if _, ok := candidate[k]; !ok {
			t.Errorf("candidates[].%s is missing", k)
		}
	}
	node := got["nodes"].([]any)[0].(map[string]any)
	for _, k := range strings.Fields("uuid name role version hash age_seconds fresh reachable") {
		if _, ok := node[k]; !ok {
			t.Errorf("nodes[].%s is missing", k)
		}
	}
	hex := regexp.MustCompile(`^[0-9a-f]{64}$`)
	for _, digest := range []any{got["hash"], node["hash"], candidate["client"].([]any)[0]} {
		if !hex.MatchString(fmt.Sprint(digest)) {
			t.Errorf("%v is no digest", digest)
		}
	}
	if node["role"] != "master" || got["lease_seconds"] != 120.0 || got["issued"] == "" || node["age_seconds"] != 1.2 {
		t.Errorf("%v", got)
	}
}

func TestInfo(t *testing.T) {
	m := threeNodes(t)
	out := m.want(Cluster, "info")
	for _, want := range []string{"Cluster name: lab.test\n", "Master node: node1.lab.test\n", "  candidate pool size: 5\n", "  modify ssh setup: True\n", "Voters:\n  - node1.lab.test\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	var i wire.Info
	m.wantJSON(&i, Cluster, "info", "--json")
	if i.Master != "node1.lab.test" || i.PoolSize != 5 || !i.Rolekey.Ready {
		t.Errorf("%+v", i)
	}
}

func TestGetMaster(t *testing.T) {
	m := newMachine(t)
	m.fail(ExitNoCluster, "not part of a cluster", Cluster, "getmaster")
	m.serveNoded(rpc.LocalStatusReply{State: "member", Role: "regular", Master: "node7.lab.test"})
	if got := m.want(Cluster, "getmaster"); got != "node7.lab.test\n" {
		t.Errorf("%q", got)
	}
	if got := m.want(Cluster, "getmaster", "--json"); compact(t, json.RawMessage(got)) != `{"master":"node7.lab.test"}` {
		t.Errorf("%q", got)
	}
}

// When noded is down, what it wrote is read.
func TestGetMasterFromDisk(t *testing.T) {
	m := newMachine(t)
	path := m.at.SSConf("master_node")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("node7.lab.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := m.want(Cluster, "getmaster"); got != "node7.lab.test\n" {
		t.Errorf("%q", got)
	}
}

func TestWhereCommandsDoNotWork(t *testing.T) {
	elsewhere := cluster.Errorf(cluster.CodeNotMaster, "this node is not the master")
	const notMaster = "This is not the master node, please connect to node 'node7.lab.test' and rerun the command"
	t.Run("no cluster, no daemons", func(t *testing.T) {
		newMachine(t).fail(ExitNoCluster, "Cluster not initialized", Node, "list")
	})
	t.Run("no cluster", func(t *testing.T) {
		m := newMachine(t)
		m.serveNoded(rpc.LocalStatusReply{State: "none"})
		m.fail(ExitNoCluster, "hint: gnt-cluster init", Node, "list")
	})
	t.Run("removed", func(t *testing.T) {
		m := newMachine(t)
		m.serveNoded(rpc.LocalStatusReply{State: "removed", Role: "master-candidate"})
		m.fail(ExitNoCluster, "Cluster not initialized", Node, "list")
	})
	t.Run("no cluster, and masterd says so", func(t *testing.T) {
		m := master(t, 1)
		m.b.Fail(cluster.Errorf(cluster.CodeNoMap, "this node is in no cluster"), nil)
		m.fail(ExitNoCluster, "Cluster not initialized", Cluster, "info")
	})
	t.Run("normal node without masterd", func(t *testing.T) {
		m := newMachine(t)
		m.serveNoded(rpc.LocalStatusReply{State: "member", Role: "regular", Master: "node7.lab.test"})
		m.fail(ExitNotMaster, notMaster, Node, "list")
	})
	t.Run("normal node with masterd", func(t *testing.T) {
		m := master(t, 1)
		m.b.Fail(elsewhere, elsewhere)
		m.serveNoded(rpc.LocalStatusReply{State: "member", Role: "regular", Master: "node7.lab.test"})
		m.fail(ExitNotMaster, notMaster, Node, "list")
	})
	t.Run("master that is out of office", func(t *testing.T) {
		m := master(t, 1)
		m.b.Fail(elsewhere, elsewhere)
		m.serveNoded(rpc.LocalStatusReply{State: "member", Role: "master", Name: "node1.lab.test", Master: "node1.lab.test"})
		m.fail(ExitNoQuorum, "is not in office now", Node, "list")
	})
	t.Run("nobody knows a master", func(t *testing.T) {
		m := master(t, 1)
		m.b.Fail(elsewhere, elsewhere)
		m.fail(ExitNotMaster, "it knows of none", Node, "list")
	})
	t.Run("another candidate", func(t *testing.T) {
		m := master(t, 2)
		e := *elsewhere
		e.Node = "node7.lab.test"
		m.b.Fail(nil, &e)
		m.fail(ExitNotMaster, notMaster, Node, "modify", "-C", "yes", "node2")
		m.fail(ExitNotMaster, notMaster, Node, "add", "node9.lab.test")
		m.fail(ExitNotMaster, notMaster, Cluster, "verify")
		m.want(Node, "list")
		m.want(Cluster, "map")
	})
	t.Run("no quorum", func(t *testing.T) {
		m := master(t, 2)
		m.b.Fail(nil, cluster.Errorf(cluster.CodeNoQuorum, "there is no master").WithHint("wait"))
		m.fail(ExitNoQuorum, "Failure: command execution error:\nthere is no master\nhint: wait\n", Node, "remove", "node2")
	})
	t.Run("masterd of a candidate is down", func(t *testing.T) {
		m := newMachine(t)
		m.serveNoded(rpc.LocalStatusReply{State: "member", Role: "master-candidate", Master: "node7.lab.test"})
		m.fail(ExitFailed, "Cannot communicate with the master daemon.\nIs the process running", Node, "list")
	})
	t.Run("noded is down", func(t *testing.T) {
		m := newMachine(t)
		m.fail(ExitFailed, "Cannot communicate with the node daemon.\nIs the process running", Cluster, "init", "lab.test", "--node-name", "node1.lab.test", "--no-recovery-key")
	})
}

func TestInit(t *testing.T) {
	m := newMachine(t)
	m.b = rapitest.New(t, 1)
	m.serveNoded(rpc.LocalStatusReply{State: "none"})
	m.serveMasterd()
	recipients := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(recipients, []byte("# mine\nssh-ed25519 AAAA me\n\nage1xyz\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := m.run(Cluster, "init", "lab.test", "--node-name", "node1.lab.test", "--address", "10.77.0.1", "--recovery-recipient", "@"+recipients,
		"--recovery-recipient", "age1abc", "-C", "3", "--map-lease", "3s", "--ssh-lease", "90m", "--map-policy", "best_effort", "--ssh-reach", "master", "--no-ssh-setup", "--ssh-authorize", "command",
		"--master-netdev", "eth0", "--master-ip", "10.77.0.9/24", "--ssh-key-type", "ecdsa", "--ssh-key-mode", "shared", "--ssh-key-storage", "agent")
	if r.code != ExitOK || r.out != "" || !strings.Contains(r.err, "/root/recovery") {
		t.Fatalf("%+v", r)
	}
	got, err := json.Marshal(m.inits[0])
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"cluster":"lab.test","node":"node1.lab.test","addresses":["10.77.0.1"],"recovery_recipient":["ssh-ed25519 AAAA me","age1xyz","age1abc"],` +
		`"no_recovery_key":false,"candidate_pool_size":3,"lease_seconds":3,"ssh_lease_seconds":5400,"policy":"best_effort","ssh_reach":"master","ssh_setup":false,` +
		`"ssh_authorize":"command","ssh_key_mode":"shared","ssh_key_type":"ecdsa","ssh_key_bits":256,"ssh_key_storage":"agent","master_address":{"address":"10.77.0.9/24","netdev":"eth0"}}`
	if string(got) != want {
		t.Errorf("request %s\nwant    %s", got, want)
	}
	var reply rpc.InitReply
	m.wantJSON(&reply, Cluster, "init", "lab.test", "--node-name", "node1.lab.test", "--no-recovery-key", "--json")
	if d := m.inits[1]; reply.Version.Version != 1 || d.LeaseSeconds != 120 || d.SSHLeaseSeconds != 86400 || d.CandidatePoolSize != 5 || !d.SSHSetup || !d.NoRecoveryKey || d.MasterAddress != nil {
		t.Errorf("defaults: %+v, %+v", d, reply)
	}
}

// Init returns when the master is in office, and not before.
func TestInitWaitsForTheMaster(t *testing.T) {
	m := newMachine(t)
	m.b = rapitest.New(t, 1)
	m.b.Fail(nil, cluster.Errorf(cluster.CodeNoQuorum, "no master yet"))
	m.serveNoded(rpc.LocalStatusReply{State: "none"})
	asked := make(chan struct{}, 1000)
	h := rapi.New(m.b, m.b.Now)
	rapitest.ServeUnix(t, m.at.MasterdSock(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		asked <- struct{}{}
	}))
	done := make(chan result, 1)
	go func() {
		done <- m.run(Cluster, "init", "lab.test", "--node-name", "node1.lab.test", "--no-recovery-key")
	}()
	<-asked
	<-asked
	select {
	case r := <-done:
		t.Fatalf("returned before there was a master: %+v", r)
	default:
	}
	m.b.Fail(nil, nil)
	if r := <-done; r.code != ExitOK {
		t.Errorf("%+v", r)
	}
}

func TestInitRefusals(t *testing.T) {
	m := master(t, 1)
	m.serveNoded(rpc.LocalStatusReply{State: "none"})
	init := func(more ...string) []string {
		return append([]string{"init", "lab.test", "--node-name", "node1.lab.test"}, more...)
	}
	m.fail(ExitFailed, "Give either --recovery-recipient", Cluster, init()...)
	m.fail(ExitFailed, "Give either --recovery-recipient", Cluster, init("--no-recovery-key", "--recovery-recipient", "age1x")...)
	m.fail(ExitFailed, "whole seconds", Cluster, init("--no-recovery-key", "--map-lease", "1500ms")...)
	m.fail(ExitFailed, "policy", Cluster, init("--no-recovery-key", "--map-policy", "lax")...)
	m.fail(ExitFailed, "together", Cluster, init("--no-recovery-key", "--master-ip", "10.77.0.9")...)
	m.fail(ExitFailed, "ssh reach", Cluster, init("--no-recovery-key", "--ssh-reach", "all")...)
	m.fail(ExitFailed, "read recipients", Cluster, init("--recovery-recipient", "@/nosuch")...)
	m.fail(ExitFailed, "usage: gnt-cluster init NAME", Cluster, "init")
	if len(m.inits) != 0 {
		t.Errorf("noded was asked: %+v", m.inits)
	}
	m.initErr = cluster.Errorf(cluster.CodeConflict, "this node already belongs to a cluster").WithHint("noded leave")
	m.fail(ExitFailed, "error type: wrong_state, error details:\nthis node already belongs to a cluster\nhint: noded leave\n", Cluster, init("--no-recovery-key")...)
}

func TestVerify(t *testing.T) {
	m := master(t, 2)
	u := succeeds("true")
	u.Log = []state.LogLine{{Text: "* Verifying cluster config"}, {Text: "  - WARNING: node node2.lab.test: clock"}}
	m.ends(u)
	stamp := regexp.MustCompile(`^\w{3} Nov 22 13:\d\d:\d\d 2026 \* Verifying cluster config\n\w{3} Nov 22 13:\d\d:\d\d 2026   - WARNING: node node2.lab.test: clock\n$`)
	if r := m.run(Cluster, "verify"); r.code != ExitOK || !stamp.MatchString(r.out) || !strings.Contains(r.err, "Submitted jobs 1\nWaiting for job 1 ...\n") {
		t.Errorf("%+v", r)
	}
	u = succeeds("false")
	u.Log = []state.LogLine{{Text: "  - ERROR:ENODESSH:node:node2.lab.test:it: broke"}, {Text: "    remedy: mend it"}, {Text: "  - REPAIRED:ENODEMAP:node:node3.lab.test:done"}}
	m.ends(u)
	if r := m.run(Cluster, "verify", "--error-codes"); r.code != ExitFailed || !strings.Contains(r.out, "2026   - ERROR:ENODESSH:node:node2.lab.test:it: broke\n") || !strings.Contains(r.err, "failed while verifying the cluster") {
		t.Errorf("%+v", r)
	}
	r := m.run(Cluster, "verify", "--json")
	var rep report
	if err := json.Unmarshal([]byte(r.out), &rep); err != nil || r.code != ExitFailed || rep.OK {
		t.Fatalf("%v: %+v", err, r)
	}
	if want := (finding{"ERROR", "ENODESSH", "node", "node2.lab.test", "it: broke", "mend it"}); len(rep.Errors) != 1 || rep.Errors[0] != want || len(rep.Repaired) != 1 || rep.Repaired[0].Name != "node3.lab.test" {
		t.Errorf("findings: %+v", rep.Errors)
	}
}

// TestVerifyQuiet: cron mails what is printed, so only findings are.
func TestVerifyQuiet(t *testing.T) {
	m := master(t, 2)
	u := succeeds("true")
	u.Log = []state.LogLine{{Text: "* Verifying cluster config"}, {Text: "  - NOTICE: 1 offline node(s) found."}, {Text: "* Summary"}, {Text: "  No errors."}}
	m.ends(u)
	if r := m.run(Cluster, "verify", "--quiet"); r.code != ExitOK || r.out != "" || r.err != "" {
		t.Errorf("%+v", r)
	}
	if r := m.run(Cluster, "verify"); !strings.HasSuffix(r.out, "found.\n\nNo errors.\n") {
		t.Errorf("%+v", r)
	}
	u = succeeds("false")
	u.Log = []state.LogLine{{Text: "  - WARNING: node node2: late"}, {Text: "  - ERROR: node node2: broken"}, {Text: "* Summary"}, {Text: "  1 error on 1 node: node2, 1 warning."}}
	m.ends(u)
	if r := m.run(Cluster, "verify", "-q"); r.code != ExitFailed || r.out != "WARNING: node node2: late\nERROR: node node2: broken\n" || r.err != "" {
		t.Errorf("%+v", r)
	}
	r := m.run(Cluster, "verify", "--json")
	var rep report
	if err := json.Unmarshal([]byte(r.out), &rep); err != nil || !slices.Equal(rep.Summary, []string{"1 error on 1 node: node2, 1 warning."}) {
		t.Errorf("%v: %+v", err, r)
	}
	if r := m.run(Cluster, "verify", "-I", "ENODETIMES"); r.code != ExitFailed || !strings.HasPrefix(r.err, "option -I: invalid choice: 'ENODETIMES' (choose from ECLUSTERCERT, ") {
		t.Errorf("%+v", r)
	}
}

// TestVerifySparesTerminals: a master of an earlier release tells what nodes say
// as it is.
func TestVerifySparesTerminals(t *testing.T) {
	m := master(t, 2)
	u := succeeds("true")
	u.Log = []state.LogLine{{Text: "  - WARNING: node node2: \x1b[2J\u202eevil"}, {Text: "* Summary"}, {Text: "  \x1b[2J"}}
	m.ends(u)
	for _, args := range [][]string{{"verify"}, {"verify", "--quiet"}} {
		if r := m.run(Cluster, args...); strings.ContainsAny(r.out, "\x1b\u202e") || !strings.Contains(r.out, "node2: ?[2J?evil\n") {
			t.Errorf("%q", r.out)
		}
	}
}

// An error in the log fails the command, whatever the result says.
func TestVerifyBelievesItsOwnEyes(t *testing.T) {
	m := master(t, 1)
	u := succeeds("true")
	u.Log = []state.LogLine{{Text: "  - ERROR: node node2: broken"}}
	m.ends(u)
	if r := m.run(Cluster, "verify"); r.code != ExitFailed {
		t.Errorf("%+v", r)
	}
}

func TestVerifyFlags(t *testing.T) {
	m := master(t, 1)
	m.b.OnSubmit = func(id int64, op map[string]any) {
		if fmt.Sprint(op) != "map[OP_ID:OP_CLUSTER_VERIFY error_codes:true ignore_errors:[ENODETIME ENODESSH] verbose:true]" {
			t.Errorf("opcode: %v", op)
		}
		u := succeeds("true")
		u.ID = id
		m.b.Do(state.KindJobUpdate, u)
	}
	m.want(Cluster, "verify", "-v", "--error-codes", "-I", "ENODETIME", "-I", "ENODESSH")
}

// A wait survives a cluster that has no master for a moment.
func TestWaitSurvivesAnElection(t *testing.T) {
	m := master(t, 2)
	submitted := make(chan struct{})
	m.b.OnSubmit = func(int64, map[string]any) {
		m.b.Fail(cluster.Errorf(cluster.CodeUnavailable, "not running"), nil)
		close(submitted)
	}
	done := make(chan result, 1)
	go func() { done <- m.run(Node, "modify", "-D", "yes", "node2") }()
	<-submitted
	u := succeeds(`[["drained","True"]]`)
	u.ID = 1
	m.b.Do(state.KindJobUpdate, u)
	m.b.Fail(nil, nil)
	if r := <-done; r.code != ExitOK || !strings.Contains(r.out, "drained -> True") {
		t.Errorf("%+v", r)
	}
}

// Help, version and completion work anywhere, and every command has a text and
// an example.
func TestHelp(t *testing.T) {
	m := newMachine(t)
	for name, p := range map[string]Program{"gnt-cluster": Cluster, "gnt-node": Node, "gnt-job": Job} {
		if out := m.want(p, "--version"); !strings.HasPrefix(out, name+" (Rolekey) ") {
			t.Errorf("--version: %q", out)
		}
		if out := m.want(p, "completion", "bash"); !strings.Contains(out, name) {
			t.Errorf("completion: %.80q", out)
		}
		m.fail(ExitFailed, "Available Commands", p)
		m.fail(ExitFailed, "unknown command \"nosuch\"", p, "nosuch")
		m.fail(ExitFailed, "unknown flag: --nosuch", p, "--nosuch")
		checkHelp(t, p(&app{}))
	}
}

func checkHelp(t *testing.T, cmd *cobra.Command) {
	t.Helper()
	if cmd.Short == "" || cmd.Example == "" && cmd.Name() != "version" {
		t.Errorf("%s has no text or no example", cmd.CommandPath())
	}
	for _, c := range cmd.Commands() {
		checkHelp(t, c)
	}
}

// The manual names every command and every flag.
func TestManual(t *testing.T) {
	for name, p := range map[string]Program{"gnt-cluster": Cluster, "gnt-node": Node, "gnt-job": Job} {
		page, err := os.ReadFile("../../man/" + name + ".8.rst")
		if err != nil {
			t.Fatal(err)
		}
		checkManual(t, string(page), p(&app{}))
	}
}

func checkManual(t *testing.T, page string, cmd *cobra.Command) {
	t.Helper()
	if !strings.Contains(page, cmd.Name()) {
		t.Errorf("the manual does not name %s", cmd.CommandPath())
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(page, "--"+f.Name) {
			t.Errorf("the manual does not name --%s of %s", f.Name, cmd.CommandPath())
		}
		if f.Shorthand != "" && !strings.Contains(page, "-"+f.Shorthand+",") && !strings.Contains(page, "-"+f.Shorthand+" ") {
			t.Errorf("the manual does not name -%s of %s", f.Shorthand, cmd.CommandPath())
		}
	})
	for _, c := range cmd.Commands() {
		checkManual(t, page, c)
	}
}

func TestVersion(t *testing.T) {
	m := newMachine(t)
	var v map[string]any
	m.wantJSON(&v, Cluster, "version", "--json")
	if out := m.want(Cluster, "version"); v["software"] == "" || !strings.Contains(out, "Software version: ") {
		t.Errorf("%v %s", v, out)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{usageError("x"), 1},
		{&prereqError{}, 1},
		{&exitError{ExitPending, ""}, 3},
		{cluster.Errorf(cluster.CodeNoQuorum, "x"), 4},
		{fmt.Errorf("wait: %w", cluster.Errorf(cluster.CodeNoQuorum, "x")), 4},
		{cluster.Errorf(cluster.CodeNoMap, "x"), 5},
		{cluster.Errorf(cluster.CodeNotMaster, "x"), 11},
		{cluster.Errorf(cluster.CodeUnavailable, "x"), 1},
		{&exitError{ExitUnknownField, "x"}, 14},
		{errors.Join(nil, &exitError{ExitPending, ""}), 3},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}
