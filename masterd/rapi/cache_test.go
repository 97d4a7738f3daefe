package rapi_test

import (
	"net/http"
	"strings"
	"testing"

	"rolekey/masterd/state"
)

// TestNodeListIsKept: the list of all nodes is encoded once for as long as it
// says the same, and a client that has it already is told so.
func TestNodeListIsKept(t *testing.T) {
	b := newBench(t, 3)
	first := b.ask("GET", "/2/nodes?bulk=1", "")
	tag := first.header.Get("ETag")
	if first.status != http.StatusOK || tag == "" {
		t.Fatalf("status %d, tag %q", first.status, tag)
	}
	if again := b.ask("GET", "/2/nodes?bulk=1", "", "If-None-Match", tag); again.status != http.StatusNotModified || again.text != "" {
		t.Errorf("again: status %d, %d bytes", again.status, len(again.text))
	}
	s, err := b.State()
	if err != nil {
		t.Fatal(err)
	}
	b.Do(state.KindNodeChange, state.NodeChange{Node: s.NodeByName("node2.lab.test").UUID, AddTags: []string{"news"}})
	changed := b.ask("GET", "/2/nodes?bulk=1", "", "If-None-Match", tag)
	if changed.status != http.StatusOK || !strings.Contains(changed.text, "news") || changed.header.Get("ETag") == tag {
		t.Errorf("after a change: status %d, tag %q", changed.status, changed.header.Get("ETag"))
	}
}
