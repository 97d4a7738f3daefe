package rapi_test

import (
	"slices"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func TestTagsAreJobs(t *testing.T) {
	b := newBench(t, 2)
	if e := b.refuse("PUT", "/2/nodes/node2/tags?tag=a", "", 409); e.Reason != cluster.CodeConflict || e.Hint == "" {
		t.Errorf("at level 1: %+v", e)
	}
	if e := b.refuse("POST", "/2/nodes/node2/modify?dry-run=1", `{"drained":true}`, 409); e.Reason != cluster.CodeConflict {
		t.Errorf("a dry run at level 1: %+v", e)
	}
	b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	for _, c := range []struct{ verb, path, body, summary, op string }{
		{"PUT", "/2/nodes/node2/tags?tag=a&tag=b", "", "TAGS_SET(node2.lab.test)", `{"OP_ID":"OP_TAGS_SET","kind":"node","name":"node2.lab.test","tags":["a","b"]}`},
		{"DELETE", "/2/nodes/node2/tags?tag=a&dry-run=1", "", "TAGS_DEL(node2.lab.test)", `{"OP_ID":"OP_TAGS_DEL","kind":"node","name":"node2.lab.test","tags":["a"],"dry_run":true}`},
		{"PUT", "/2/tags", `["x"]`, "TAGS_SET(cluster)", `{"OP_ID":"OP_TAGS_SET","kind":"cluster","name":"","tags":["x"]}`},
		{"DELETE", "/2/tags?tag=x", "", "TAGS_DEL(cluster)", `{"OP_ID":"OP_TAGS_DEL","kind":"cluster","name":"","tags":["x"]}`},
		{
			"POST", "/2/nodes/node2/modify?dry-run=1", `{"drained":true}`, "NODE_SET_PARAMS(node2.lab.test)",
			`{"OP_ID":"OP_NODE_SET_PARAMS","node_name":"node2.lab.test","drained":true,"auto_promote":false,"force":false,"dry_run":true}`,
		},
	} {
		var id int64
		b.want(c.verb, c.path, c.body, &id)
		s, _ := b.State()
		if j := s.Jobs[id]; j == nil || j.Summary[0] != c.summary || !sameJSON(t, string(j.Ops[0]), c.op) {
			t.Errorf("%s %s: job %d: %s, want %s", c.verb, c.path, id, j.Ops, c.op)
		}
	}
	b.refuse("PUT", "/2/tags", "", 400)
	b.refuse("DELETE", "/2/nodes/node2/tags", "", 400)
	b.refuse("GET", "/2/nodes/nosuch/tags", "", 404)
	b.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), AddTags: []string{"b", "a"}})
	var tags []string
	if b.want("GET", "/2/nodes/node2/tags", "", &tags); !slices.Equal(tags, []string{"a", "b"}) {
		t.Errorf("tags %v", tags)
	}
	if b.want("GET", "/2/tags", "", &tags); len(tags) > 0 {
		t.Errorf("tags %v", tags)
	}
}
