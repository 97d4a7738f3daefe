package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func TestTags(t *testing.T) {
	m := master(t, 2)
	m.b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	var op map[string]any
	u := succeeds(`null`)
	m.b.OnSubmit = func(id int64, o map[string]any) {
		op, u.ID = o, id
		m.b.Do(state.KindJobUpdate, u)
	}
	file := filepath.Join(t.TempDir(), "tags")
	if err := os.WriteFile(file, []byte("dmz\n\n rack:b7 \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := m.want(Node, "add-tags", "--from", file, "node2", "x"); got != "" {
		t.Errorf("stdout: %q", got)
	}
	if got := fmt.Sprint(op); got != "map[OP_ID:OP_TAGS_SET kind:node name:node2.lab.test tags:[x dmz rack:b7]]" {
		t.Errorf("opcode: %s", got)
	}
	m.want(Cluster, "remove-tags", "--dry-run", "x")
	if got := fmt.Sprint(op); got != "map[OP_ID:OP_TAGS_DEL dry_run:true kind:cluster name: tags:[x]]" {
		t.Errorf("opcode: %s", got)
	}
	m.fail(ExitFailed, "usage: gnt-node add-tags NODE TAG...", Node, "add-tags", "node2")
	m.fail(ExitFailed, "usage: gnt-cluster remove-tags TAG...", Cluster, "remove-tags")
	m.fail(ExitFailed, "read tags:", Node, "add-tags", "--from", file+"x", "node2")

	m.b.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), AddTags: []string{"rack:b7", "dmz"}})
	m.b.Do(state.KindClusterChange, state.ClusterChange{AddTags: []string{"rack:none"}})
	if got := m.want(Node, "list-tags", "node2"); got != "dmz\nrack:b7\n" {
		t.Errorf("tags: %q", got)
	}
	var tags []string
	if m.wantJSON(&tags, Cluster, "list-tags", "--json"); fmt.Sprint(tags) != "[rack:none]" {
		t.Errorf("tags: %v", tags)
	}
	if got := m.want(Cluster, "search-tags", "^rack:"); got != "/cluster rack:none\n/nodes/node2.lab.test rack:b7\n" {
		t.Errorf("found: %q", got)
	}
	m.fail(ExitFailed, "", Cluster, "search-tags", "nothing")
	m.fail(ExitFailed, "error parsing regexp", Cluster, "search-tags", "(")
	m.fail(ExitFailed, "Node 'nosuch' not known", Node, "list-tags", "nosuch")
}
