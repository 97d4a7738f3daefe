package jobs

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func tagOp(op, kind, name, rest string) string {
	return fmt.Sprintf(`{"OP_ID":"%s","kind":"%s","name":"%s",%s}`, op, kind, name, rest)
}

func TestTags(t *testing.T) {
	w := newWorld(t, 2, 1)
	node := string(statetest.Name(2))
	wantSuccess(t, w.finish(w.submit(tagOp(OpTagsSet, "node", node, `"tags":["b","a","b"]`))), `null`)
	wantSuccess(t, w.finish(w.submit(tagOp(OpTagsSet, "cluster", "", `"tags":["prod"]`))), `null`)
	if got := w.node(2).Tags; !slices.Equal(got, []string{"a", "b"}) || !slices.Equal(w.State().Cluster.Tags, []string{"prod"}) {
		t.Errorf("node %v, cluster %v", got, w.State().Cluster.Tags)
	}
	wantSuccess(t, w.finish(w.submit(tagOp(OpTagsDel, "node", node, `"tags":["a"]`))), `null`)
	wantSuccess(t, w.finish(w.submit(tagOp(OpTagsDel, "cluster", "", `"tags":["prod"]`))), `null`)
	if got := w.node(2).Tags; !slices.Equal(got, []string{"b"}) || len(w.State().Cluster.Tags) > 0 {
		t.Errorf("node %v, cluster %v", got, w.State().Cluster.Tags)
	}
}

func TestTagRefusals(t *testing.T) {
	w := newWorld(t, 2, 1)
	node := string(statetest.Name(2))
	var many []string
	for i := range state.MaxTags + 1 {
		many = append(many, fmt.Sprintf(`"t%d"`, i))
	}
	for op, want := range map[string]string{
		tagOp(OpTagsSet, "node", node, `"tags":[]`):                               `["OpPrereqError",["Please name at least one tag","wrong_input"]]`,
		tagOp(OpTagsSet, "node", "nosuch", `"tags":["a"]`):                        `["OpPrereqError",["Node 'nosuch' not known","unknown_entity"]]`,
		tagOp(OpTagsSet, "instance", node, `"tags":["a"]`):                        `["OpPrereqError",["Objects of kind 'instance' have no tags","wrong_input"]]`,
		tagOp(OpTagsDel, "node", node, `"tags":["a","c"]`):                        `["OpPrereqError",["Tag(s) a, c not found","unknown_entity"]]`,
		tagOp(OpTagsSet, "node", node, `"tags":["a b"]`):                          `wrong_input`,
		tagOp(OpTagsSet, "node", node, `"tags":["`+strings.Repeat("x", 129)+`"]`): `wrong_input`,
		tagOp(OpTagsSet, "node", node, `"tags":[`+strings.Join(many, ",")+`]`):    `There would be 4097 tags, and the limit is 4096`,
	} {
		j := w.finish(w.submit(op))
		if j.Status != state.JobError || !strings.Contains(string(j.OpResult[0]), want) {
			t.Errorf("%.80s: %s %s, want %s", op, j.Status, j.OpResult[0], want)
		}
	}
	if got := w.node(2).Tags; len(got) > 0 {
		t.Errorf("tags %v", got)
	}
}

// TestDryRunChangesNothing, whatever it is asked to do.
func TestDryRunChangesNothing(t *testing.T) {
	for op, want := range map[string]string{
		tagOp(OpTagsSet, "cluster", "", `"tags":["x"]`): "would change the tags of the cluster",
		modify(3, `"master_candidate":true`):            "would change the role of node node3.lab.test from regular to master-candidate",
		modify(2, `"offline":true,"auto_promote":true`): "would change the role of node node2.lab.test from master-candidate to offline",
		remove(2): "would remove node node2.lab.test from the cluster",
	} {
		w := newWorld(t, 3, 2)
		before := w.State().Head()
		j := w.finish(w.submit(strings.TrimSuffix(op, "}") + `,"dry_run":true}`))
		if j.Status != state.JobSuccess || !strings.Contains(logOf(j), want) {
			t.Errorf("%s: job is %s: %s\n%s", op, j.Status, j.Error, logOf(j))
		}
		if w.State().Head().Hash != before.Hash || len(w.State().Cluster.Tags) > 0 || !slices.Equal(w.calls, []string{"change job-update"}) {
			t.Errorf("%s: something was done: %q", op, w.calls)
		}
	}
	w := newWorld(t, 2, 1)
	j := w.finish(w.submit(`{"OP_ID":"OP_NODE_REMOVE","node_name":"node1.lab.test","dry_run":true}`))
	if j.Status != state.JobError {
		t.Error("a dry run does not check")
	}
}
