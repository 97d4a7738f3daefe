package jobs

import (
	"testing"
	"testing/synctest"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// TestNewNodeNeedsAMoment: a node that refuses its first order, because it is
// not fresh yet, or got a newer map than the order names before it, becomes a candidate all the same; one that never takes it does
// not, and its job says why.
func TestNewNodeNeedsAMoment(t *testing.T) {
	for _, c := range []struct {
		refusals int
		code     cluster.Code
		want     bool
	}{
		{1, cluster.CodeMapStale, true},
		{8, cluster.CodeMapStale, true},
		{1000, cluster.CodeMapStale, false},
		{1, cluster.CodeMapOlder, true},
		{1, cluster.CodeBusy, true},
		{1, cluster.CodeConflict, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2, 2)
			w.do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{CandidatePoolSize: new(3)}})
			w.do(state.KindNodeChange, state.NodeChange{Node: w.node(2).UUID, Flags: &state.FlagPatch{MasterCandidate: new(false)}})
			w.at(2).refuse, w.at(2).refusal = c.refusals, cluster.Errorf(c.code, "not now")
			j := w.finish(w.submit(add(2)))
			if got := w.node(2).Flags.MasterCandidate; got != c.want || (j.Status == state.JobSuccess) != c.want {
				t.Errorf("%d refusals, %s: candidate %t, job %s: %s", c.refusals, c.code, got, j.Status, j.Error)
			}
		})
	}
}
