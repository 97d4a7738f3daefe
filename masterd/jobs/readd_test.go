package jobs

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func readd(i int) string {
	return fmt.Sprintf(`{"OP_ID":"%s","node_name":"%s"}`, OpNodeReadd, statetest.Name(i))
}

// TestG4ReaddTakesPowerFirst: before there is a string for the new life, the
// old one can do nothing any more, be its machine alive or not.
func TestG4ReaddTakesPowerFirst(t *testing.T) {
	for _, up := range []bool{true, false} {
		w := newWorld(t, 4, 3)
		w.at(2).up = up
		j := w.finish(w.submit(readd(2)))
		wantSuccess(t, j, `[["master_candidate","False"],["offline","True"]]`)
		n := w.node(2)
		if n.Flags.MasterCandidate || !n.Flags.Offline || n.Keys != nil || w.node(4).Flags.MasterCandidate {
			t.Errorf("up %v: flags %+v", up, n.Flags)
		}
		if want := []string{"change node-change", "destroy node2.lab.test", "change job-update"}; !slices.Equal(w.calls, want) {
			t.Errorf("calls %q, want %q", w.calls, want)
		}
		wantSuccess(t, w.finish(w.submit(readd(2))), `[]`)
	}
}

func TestReaddOfOthers(t *testing.T) {
	w := newWorld(t, 3, 2)
	before := w.State().Head().Hash
	wantSuccess(t, w.finish(w.submit(readd(3))), `[]`)
	for op, want := range map[string]string{
		readd(1): `["OpPrereqError",["Cannot readd the master node","wrong_state"]]`,
		readd(9): `["OpPrereqError",["Node node9.lab.test is not in the configuration","unknown_entity"]]`,
	} {
		if j := w.finish(w.submit(op)); j.Status != state.JobError || !strings.Contains(string(j.OpResult[0]), want) {
			t.Errorf("%s: %s %s", op, j.Status, j.OpResult[0])
		}
	}
	if w.State().Head().Hash != before {
		t.Error("the map has changed")
	}
}
