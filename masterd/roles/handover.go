package roles

import (
	"fmt"
	"slices"

	"rolekey/cluster"
)

// NextHandover returns the next step before leadership can be given to a
// candidate, and ready when none is left: it votes in raft. The map's voters
// stay as they are; what the new leader makes of the votes is NextVoters. A
// vote is added only where a majority of the new configuration can be reached,
// and only to who holds nearly all of the log. No step and not ready means that
// it has to catch up first.
func NextHandover(v View, to cluster.NodeID) (step VoterStep, ready bool) {
	v = v.sorted()
	switch {
	case !contains(v.Candidates, to):
		return VoterStep{Blocked: "it is not a master candidate"}, false
	case !contains(v.RaftVoters, v.Leader):
		return VoterStep{Blocked: "the leader's vote is not known at present"}, false
	case !v.reachable(to):
		return VoterStep{Blocked: "its masterd does not answer the master"}, false
	case contains(v.RaftVoters, to):
		return VoterStep{}, true
	case !contains(v.RaftNonvoters, to):
		return VoterStep{Kind: AddNonvoter, Node: to}, false
	case v.CaughtUp != nil && !v.CaughtUp(to):
		return VoterStep{}, false
	}
	after := append(slices.Clone(v.RaftVoters), to)
	if !v.majority(after) {
		return VoterStep{Blocked: fmt.Sprintf("with its vote %d of %d voters must answer, and fewer do", len(after)/2+1, len(after))}, false
	}
	return VoterStep{Kind: AddVoter, Node: to}, false
}
