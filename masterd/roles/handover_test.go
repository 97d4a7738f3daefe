package roles_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rolekey/masterd/roles"
	"rolekey/masterd/state/statetest"
)

func TestNextHandover(t *testing.T) {
	for name, c := range map[string]struct {
		raft, non, mapped, cands, up, ready []int
		want                                string
		done                                bool
	}{
		"a voter":                       {ids1(1, 2, 3), nil, ids1(1, 2, 3), ids1(1, 2, 3), ids1(2, 3), nil, "", true},
		"a voter that is down":          {ids1(1, 2, 3), nil, ids1(1, 2, 3), ids1(1, 2, 3), ids1(3), nil, "blocked", false},
		"two: the other gets a vote":    {ids1(1), ids1(2), ids1(1), ids1(1, 2), ids1(2), ids1(2), "add-voter 2", false},
		"two: and has it":               {ids1(1, 2), nil, ids1(1), ids1(1, 2), ids1(2), nil, "", true},
		"it is behind: wait":            {ids1(1), ids1(2), ids1(1), ids1(1, 2), ids1(2), nil, "", false},
		"raft does not know it yet":     {ids1(1), nil, ids1(1), ids1(1, 2), ids1(2), nil, "add-nonvoter 2", false},
		"no candidate":                  {ids1(1, 2, 3), nil, ids1(1), ids1(1, 3), ids1(2, 3), nil, "blocked", false},
		"standby of four":               {ids1(1, 3, 4), ids1(2), ids1(1, 3, 4), ids1(1, 2, 3, 4), ids1(2, 3, 4), ids1(2), "add-voter 2", false},
		"standby of four, one dead":     {ids1(1, 3, 4), ids1(2), ids1(1, 3, 4), ids1(1, 2, 3, 4), ids1(2, 3), ids1(2), "add-voter 2", false},
		"standby of six, two are dead":  {ids1(1, 3, 4, 5, 6), ids1(2), ids1(1, 3, 4, 5, 6), ids1(1, 2, 3, 4, 5, 6), ids1(2, 3, 4), ids1(2), "add-voter 2", false},
		"standby of six, three are out": {ids1(1, 3, 4, 5, 6), ids1(2), ids1(1, 3, 4, 5, 6), ids1(1, 2, 3, 4, 5, 6), ids1(2, 3), ids1(2), "blocked", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, done := roles.NextHandover(roles.View{
				Leader: statetest.ID(1), MapVoters: ids(c.mapped...), Candidates: ids(c.cands...),
				RaftVoters: ids(c.raft...), RaftNonvoters: ids(c.non...), CaughtUp: in(ids(c.ready...)), Reachable: in(ids(c.up...)),
			}, statetest.ID(2))
			if show(got) != c.want || done != c.done {
				t.Fatalf("got %q and %t, want %q and %t", show(got), done, c.want, c.done)
			}
		})
	}
}

// Whatever the cluster looks like, a handover adds votes of candidates only,
// moves no vote of the map, and leaves a majority in reach.
func TestHandoverKeepsAMajority(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := func(name string) []int {
			return rapid.SliceOfDistinct(rapid.IntRange(1, 7), rapid.ID[int]).Draw(t, name)
		}
		up := some("up")
		v := roles.View{
			Leader: statetest.ID(1), Candidates: ids(some("candidates")...), MapVoters: ids(some("map")...),
			RaftVoters: ids(some("raft")...), RaftNonvoters: ids(some("non")...), CaughtUp: in(ids(some("ready")...)), Reachable: in(ids(up...)),
		}
		to := statetest.ID(rapid.IntRange(2, 7).Draw(t, "to"))
		step, ready := roles.NextHandover(v, to)
		if ready && !slices.Contains(v.RaftVoters, to) {
			t.Fatal("it may take over without a vote")
		}
		if step.Kind == roles.VoterNone {
			return
		}
		if step.Node != to || !slices.Contains(v.Candidates, to) || step.Kind != roles.AddNonvoter && step.Kind != roles.AddVoter {
			t.Fatalf("%s of %v", step.Kind, step.Node)
		}
		if step.Kind != roles.AddVoter {
			return
		}
		reached := 0
		for _, id := range append(slices.Clone(v.RaftVoters), to) {
			if slices.Contains(v.Candidates, id) && (id == v.Leader || v.Reachable(id)) {
				reached++
			}
		}
		if reached <= (len(v.RaftVoters)+1)/2 {
			t.Fatalf("only %d of %d can be reached", reached, len(v.RaftVoters)+1)
		}
	})
}
