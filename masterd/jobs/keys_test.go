package jobs

import (
	"testing"
	"testing/synctest"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// TestNewNodeNeedsAMoment: a node that refuses its first order, because it is
// not fresh yet, becomes a candidate all the same; one that never takes it does
// not, and its job says why.
func TestNewNodeNeedsAMoment(t *testing.T) {
	for refusals, want := range map[int]bool{1: true, 8: true, 1000: false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2, 2)
			w.do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{CandidatePoolSize: new(3)}})
			w.do(state.KindNodeChange, state.NodeChange{Node: w.node(2).UUID, Flags: &state.FlagPatch{MasterCandidate: new(false)}})
			w.at(2).refuse, w.at(2).refusal = refusals, cluster.Errorf(cluster.CodeMapStale, "the map is stale here")
			j := w.finish(w.submit(add(2)))
			if got := w.node(2).Flags.MasterCandidate; got != want || (j.Status == state.JobSuccess) != want {
				t.Errorf("%d refusals: candidate %t, job %s: %s", refusals, got, j.Status, j.Error)
			}
		})
	}
}
