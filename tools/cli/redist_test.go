package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/masterd/state"
)

func TestRedistConf(t *testing.T) {
	m := master(t, 2)
	m.fail(ExitFailed, "it needs feature level 2", Cluster, "redist-conf")
	m.b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	var op map[string]any
	u := succeeds(`null`)
	m.b.OnSubmit = func(id int64, o map[string]any) {
		op, u.ID = o, id
		m.b.Do(state.KindJobUpdate, u)
	}
	if got := m.want(Cluster, "redist-conf"); got != "" || fmt.Sprint(op) != "map[OP_ID:OP_CLUSTER_REDIST_CONF]" {
		t.Errorf("%q, opcode %v", got, op)
	}
	var out struct{ Job int64 }
	if m.wantJSON(&out, Cluster, "redist-conf", "--json", "--yes-do-it", "--dry-run"); out.Job != 2 || op["dry_run"] != true || op["even_if_drained"] != true {
		t.Errorf("%+v, opcode %v", out, op)
	}
	u.Unreachable = &[]state.Unreachable{{Node: "node9.lab.test"}}
	m.fail(ExitPending, "node9.lab.test: RPC trust ends", Cluster, "redist-conf")
}

// An empty file says that there is no master, not that there is no cluster.
func TestGetMasterFromEmptyFile(t *testing.T) {
	m := newMachine(t)
	path := m.at.SSConf("master_node")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := m.run(Cluster, "getmaster"); r.code != ExitFailed || !strings.Contains(r.err, "knows of no master") {
		t.Errorf("%+v", r)
	}
}
