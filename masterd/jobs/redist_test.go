package jobs

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"rolekey/masterd/state"
)

const redist = `{"OP_ID":"OP_CLUSTER_REDIST_CONF"}`

func TestRedistribute(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.at(3).up = false
	j := w.finish(w.submit(redist))
	wantSuccess(t, j, `null`)
	if !slices.Equal(w.calls, []string{"redistribute", "change job-update"}) {
		t.Errorf("calls %q", w.calls)
	}
	if len(j.Unreachable) != 1 || j.Unreachable[0].Node != "node3.lab.test" || !strings.HasPrefix(j.Progress[0].Text, "effective on 2 of 3 nodes; node3.lab.test unreachable") {
		t.Errorf("unreachable %v, progress %v", j.Unreachable, j.Progress)
	}
	w.calls = nil
	j = w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_REDIST_CONF","dry_run":true}`))
	wantSuccess(t, j, `null`)
	if !strings.Contains(logOf(j), "Dry run: would deliver map and roster to 3 nodes") || slices.Contains(w.calls, "redistribute") {
		t.Errorf("dry run: %q, calls %q", logOf(j), w.calls)
	}
}

func TestPassesDrain(t *testing.T) {
	const forced = `{"OP_ID":"OP_CLUSTER_REDIST_CONF","even_if_drained":true}`
	for text, want := range map[string]bool{
		forced: true, forced + "\n" + forced: true, redist: false, forced + "\n" + redist: false,
		`{"OP_ID":"OP_NODE_REMOVE","even_if_drained":true}`: false, "null": false,
	} {
		var ops []json.RawMessage
		for _, op := range strings.Split(text, "\n") {
			ops = append(ops, json.RawMessage(op))
		}
		if got := PassesDrain(ops); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// A node that answers and cannot write its files is no success.
func TestRedistributeTellsProblems(t *testing.T) {
	w := newWorld(t, 2, 1)
	w.at(2).problems = []string{"derive: disk full"}
	j := w.finish(w.submit(redist))
	if j.Status != state.JobError || !strings.Contains(j.Error, "node2.lab.test: derive: disk full") {
		t.Errorf("job is %s: %s", j.Status, j.Error)
	}
}
