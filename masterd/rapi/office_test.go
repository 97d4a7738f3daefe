package rapi_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/wire"
)

func TestFailover(t *testing.T) {
	b := newBench(t, 3)
	b.Promote(2)
	var done wire.FailoverDone
	b.want("POST", "/2/failover", `{"to":"node2"}`, &done)
	if done.Master != "node2.lab.test" || done.Previous != "node1.lab.test" || done.MapVersion == 0 || done.Steps == nil {
		t.Errorf("%+v", done)
	}
	b.refuse("POST", "/2/failover", `{"to":"nosuch"}`, 404)
	b.refuse("POST", "/2/failover", `{}`, 400)
	b.refuse("POST", "/2/failover", `{"to":"node2","force":true}`, 400)
}

// TestMasterIsNamed: who asks another node is told where the master is, and not
// sent there.
func TestMasterIsNamed(t *testing.T) {
	b := newBench(t, 2)
	elsewhere := cluster.Errorf(cluster.CodeNotMaster, "this node is not the master")
	elsewhere.Node = "node2.lab.test"
	b.Fail(nil, elsewhere)
	got := b.ask("PUT", "/2/nodes/node2/role", `"drained"`)
	if got.status != http.StatusForbidden || !strings.Contains(got.text, `"master_url":"https://node2.lab.test:5080"`) || got.header.Get("Location") != "" {
		t.Errorf("%+v", got)
	}
	b.Fail(cluster.Errorf(cluster.CodeUnavailable, "no state"), elsewhere)
	if e := b.refuse("POST", "/2/failover", `{"to":"node1"}`, 403); e.MasterURL != "" {
		t.Errorf("without a state: %+v", e)
	}
}

func TestAuditTail(t *testing.T) {
	b := newBench(t, 2)
	b.AuditLog = filepath.Join(t.TempDir(), "audit.log")
	var got wire.Audit
	if b.want("GET", "/2/audit", "", &got); got.Lines == nil || got.More || got.Node != "node1.lab.test" {
		t.Errorf("none: %+v", got)
	}
	text := `{"time":"2026-01-02T03:04:05Z","act":"master_began"}` + "\n" + `{"time":"2026-01-02T03:04:06Z","act":"job_ended"}` + "\n"
	if err := os.WriteFile(b.AuditLog, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if b.want("GET", "/2/audit?lines=1", "", &got); len(got.Lines) != 1 || !got.More || !strings.Contains(string(got.Lines[0]), "job_ended") {
		t.Errorf("one: %+v", got)
	}
	if b.want("GET", "/2/audit?since=2026-01-02T04:04:06%2B01:00", "", &got); len(got.Lines) != 1 || got.More {
		t.Errorf("since: %+v", got)
	}
	for _, query := range []string{"lines=0", "lines=1001", "lines=x", "since=yesterday"} {
		b.refuse("GET", "/2/audit?"+query, "", 400)
	}
	for _, r := range rapi.Routes(b.Backend) {
		if r.Path == "/2/audit" && r.Needs != cluster.PermissionAdmin {
			t.Errorf("it needs %s", r.Needs)
		}
	}
}

// TestFeatures: Ganeti's come first and stay, ours are marked.
func TestFeatures(t *testing.T) {
	b := newBench(t, 1)
	var got []string
	b.want("GET", "/2/features", "", &got)
	theirs := []string{"node-migrate-reqv1", "instance-create-reqv1", "instance-reinstall-reqv1", "node-evac-res1"}
	if !slices.Equal(got[:4], theirs) || !slices.Contains(got, "rolekey-failover") {
		t.Errorf("features %q", got)
	}
	for _, f := range got[4:] {
		if !strings.HasPrefix(f, "rolekey-") {
			t.Errorf("feature %q", f)
		}
	}
}
