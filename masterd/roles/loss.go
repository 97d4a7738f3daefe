package roles

import (
	"cmp"
	"slices"
	"strings"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// VotersAfterLoss returns the voters of the map that takes the leaver's role
// away, sorted, or nil when the leaver does not vote and nothing changes. All
// of them vote now, because a new one would first have to vote in raft; their
// number is the largest odd one, with the leader among them and the reachable
// first. reachable may be nil.
func VotersAfterLoss(current []cluster.NodeID, leaver, leader cluster.NodeID, reachable func(cluster.NodeID) bool) []cluster.NodeID {
	if !contains(current, leaver) {
		return nil
	}
	left := pickVoters(without(current, leaver), leader, reachable)
	if len(left) == 0 { // the leader votes in raft; the map did not say so yet
		return []cluster.NodeID{leader}
	}
	return left
}

func pickVoters(voters []cluster.NodeID, leader cluster.NodeID, reachable func(cluster.NodeID) bool) []cluster.NodeID {
	rank := func(id cluster.NodeID) int {
		switch {
		case id == leader:
			return 0
		case reachable == nil || reachable(id):
			return 1
		}
		return 2
	}
	best := slices.SortedFunc(slices.Values(voters), func(a, b cluster.NodeID) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), state.CompareID(a, b))
	})
	best = best[:largestOdd(len(best))]
	slices.SortFunc(best, state.CompareID)
	return best
}

// CheckLoss refuses to take the candidate role from a node when the cluster
// could not decide any more without it: the map that demotes it must be signed
// by a majority of the voters before, and the raft configuration it is in
// lasts until it is removed from there too, which it might not help with. name
// gives the nodes their names in the message.
func CheckLoss(v View, leaver cluster.NodeID, name func(cluster.NodeID) cluster.Name) error {
	v = v.sorted()
	for _, voters := range [][]cluster.NodeID{v.MapVoters, v.RaftVoters} {
		if !contains(voters, leaver) {
			continue
		}
		need := len(voters)/2 + 1
		var up, down []string
		for _, id := range without(voters, leaver) {
			if v.reachable(id) {
				up = append(up, string(name(id)))
			} else {
				down = append(down, string(name(id)))
			}
		}
		if len(up) >= need {
			continue
		}
		e := refuse(WrongState, "Node %s cannot lose its role now: of %d voters %d must agree without it, and only %d can be reached (%s)",
			name(leaver), len(voters), need, len(up), strings.Join(up, ", "))
		if len(down) == 0 {
			return e.withHint("The voters are being changed. Try again in a moment.")
		}
		return e.withHint("Bring %s back, or set offline first what will not come back: gnt-node modify --offline=yes NODE", strings.Join(down, ", "))
	}
	return nil
}
