package roles

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
)

// View is what the leader knows about voting. The lists need not be sorted.
type View struct {
	Leader        cluster.NodeID
	MapVoters     []cluster.NodeID // of the newest committed map
	Candidates    []cluster.NodeID // of that map
	RaftVoters    []cluster.NodeID // of raft's newest configuration
	RaftNonvoters []cluster.NodeID
	// CaughtUp reports whether a raft non-voter holds nearly the whole log.
	CaughtUp func(cluster.NodeID) bool
	// Reachable reports whether a node has answered lately. The caller decides
	// how lately: a vote should not move because of one lost packet.
	Reachable func(cluster.NodeID) bool
}

// VoterStepKind says what a VoterStep does.
type VoterStepKind string

// The kinds of steps; VoterNone is that of no step.
const (
	VoterNone    VoterStepKind = ""
	AddNonvoter  VoterStepKind = "add-nonvoter"
	AddVoter     VoterStepKind = "add-voter"
	DemoteRaft   VoterStepKind = "demote-raft" // of a voter to a non-voter
	RemoveRaft   VoterStepKind = "remove-raft"
	SetMapVoters VoterStepKind = "set-map-voters"
)

// The ranks of candidates for a vote, the best first.
const (
	rankLeader = iota
	rankMapVoter
	rankRaftVoter
	rankReady
	rankUnreachable
)

// VoterStep is one step towards the voters that there should be. Blocked says
// why no step can be taken although one is due.
type VoterStep struct {
	Kind    VoterStepKind
	Node    cluster.NodeID
	Voters  []cluster.NodeID // of SetMapVoters, sorted
	Blocked string
}

// NextVoters returns the next step, or none when all is as it should be. Taken
// one at a time, with the view renewed after each, the steps lead to the
// largest odd number of candidates up to seven, the leader among them, that
// vote in raft and in the map alike; all other candidates stand by as
// non-voters. At every point the map's voters are voters in raft, their number
// is odd, and a configuration is left only for one in which a majority can be
// reached without the node that leaves. Those who vote keep voting while they
// can be reached, and also when they cannot, as long as nobody can replace
// them.
func NextVoters(v View) VoterStep {
	v = v.sorted()
	if !contains(v.Candidates, v.Leader) || !contains(v.RaftVoters, v.Leader) {
		return VoterStep{Blocked: "the leader is not a candidate that votes in raft"}
	}
	want := v.wanted()
	for _, next := range []func([]cluster.NodeID) (VoterStep, bool){
		v.mendMap, v.removeStrangers, v.addStandby, v.demoteSurplus, v.addVoters, v.moveMap,
	} {
		if s, ok := next(want); ok {
			return s
		}
	}
	return v.blocked(want)
}

func (v View) sorted() View {
	for _, list := range []*[]cluster.NodeID{&v.MapVoters, &v.Candidates, &v.RaftVoters, &v.RaftNonvoters} {
		*list = slices.Compact(slices.SortedFunc(slices.Values(*list), state.CompareID))
	}
	return v
}

// answers reports whether a node is up; the leader is.
func (v View) answers(id cluster.NodeID) bool {
	return id == v.Leader || v.Reachable == nil || v.Reachable(id)
}

// reachable reports whether a node can be counted on to vote: one that is no
// candidate is refused by the others, however well it is.
func (v View) reachable(id cluster.NodeID) bool {
	return contains(v.Candidates, id) && v.answers(id)
}

// rank orders candidates for a vote, the lower the better; ok is false for one
// that cannot vote now: it would have to catch up first, or cannot be reached.
func (v View) rank(id cluster.NodeID) (rank int, ok bool) {
	reachable := v.reachable(id)
	switch {
	case id == v.Leader:
		return rankLeader, true
	case contains(v.MapVoters, id) && reachable:
		return rankMapVoter, true
	case contains(v.RaftVoters, id) && reachable:
		return rankRaftVoter, true
	case contains(v.RaftNonvoters, id) && reachable && (v.CaughtUp == nil || v.CaughtUp(id)):
		return rankReady, true
	case contains(v.MapVoters, id):
		return rankUnreachable, true
	}
	return 0, false
}

// wanted returns who should vote, sorted: of those that could vote at once the
// largest odd number, the best first.
func (v View) wanted() []cluster.NodeID {
	var able []cluster.NodeID
	for _, id := range v.Candidates {
		if _, ok := v.rank(id); ok {
			able = append(able, id)
		}
	}
	slices.SortFunc(able, func(a, b cluster.NodeID) int {
		x, _ := v.rank(a)
		y, _ := v.rank(b)
		return cmp.Or(cmp.Compare(x, y), state.CompareID(a, b))
	})
	able = able[:largestOdd(len(able))]
	slices.SortFunc(able, state.CompareID)
	return able
}

// largestOdd returns the largest odd number up to n and to the limit of voters.
func largestOdd(n int) int {
	n = min(n, candmap.MaxVoters)
	if n%2 == 0 {
		n--
	}
	return max(n, 0)
}

// majority reports whether enough of the voters can be reached to decide.
func (v View) majority(voters []cluster.NodeID) bool {
	up := 0
	for _, id := range voters {
		if v.reachable(id) {
			up++
		}
	}
	return up > len(voters)/2
}

// mendMap repairs a map that names a voter which raft does not have: it cannot
// have committed what it would sign.
func (v View) mendMap([]cluster.NodeID) (VoterStep, bool) {
	both := intersect(v.MapVoters, v.RaftVoters)
	if len(both) == len(v.MapVoters) {
		return VoterStep{}, false
	}
	both = v.pick(both)
	return VoterStep{Kind: SetMapVoters, Voters: both}, v.maySetMap(both)
}

// pick returns the largest odd number of the voters, with the leader, the
// reachable ones first.
func (v View) pick(voters []cluster.NodeID) []cluster.NodeID {
	return pickVoters(voters, v.Leader, v.reachable)
}

// removeStrangers takes from raft who is no candidate any more: first from the
// voters, the dead before the living, then from the non-voters.
func (v View) removeStrangers([]cluster.NodeID) (VoterStep, bool) {
	strangers := v.deadFirst(subtract(subtract(v.RaftVoters, v.Candidates), v.MapVoters))
	if id, ok := v.mayLeave(strangers); ok {
		return VoterStep{Kind: RemoveRaft, Node: id}, true
	}
	if gone := subtract(v.RaftNonvoters, v.Candidates); len(gone) > 0 {
		return VoterStep{Kind: RemoveRaft, Node: gone[0]}, true
	}
	return VoterStep{}, false
}

// addStandby lets every candidate follow the log.
func (v View) addStandby([]cluster.NodeID) (VoterStep, bool) {
	missing := subtract(subtract(v.Candidates, v.RaftVoters), v.RaftNonvoters)
	if len(missing) == 0 {
		return VoterStep{}, false
	}
	return VoterStep{Kind: AddNonvoter, Node: missing[0]}, true
}

// demoteSurplus takes the vote in raft from who is not wanted and votes in the
// map no more.
func (v View) demoteSurplus(want []cluster.NodeID) (VoterStep, bool) {
	surplus := v.deadFirst(subtract(subtract(v.RaftVoters, want), v.MapVoters))
	id, ok := v.mayLeave(surplus)
	return VoterStep{Kind: DemoteRaft, Node: id}, ok
}

// addVoters gives the vote in raft to who is wanted: so many that the map can
// name an odd number.
func (v View) addVoters(want []cluster.NodeID) (VoterStep, bool) {
	for _, id := range subtract(want, v.RaftVoters) {
		if v.majority(append(slices.Clone(v.RaftVoters), id)) {
			return VoterStep{Kind: AddVoter, Node: id}, true
		}
	}
	return VoterStep{}, false
}

// moveMap makes the map name the wanted voters, when raft has them all.
func (v View) moveMap(want []cluster.NodeID) (VoterStep, bool) {
	if slices.Equal(want, v.MapVoters) || len(subtract(want, v.RaftVoters)) > 0 {
		return VoterStep{}, false
	}
	return VoterStep{Kind: SetMapVoters, Voters: want}, v.maySetMap(want)
}

// maySetMap reports whether a map with these voters can be signed: by a
// majority of the voters now, and of those to come.
func (v View) maySetMap(voters []cluster.NodeID) bool {
	return len(voters) > 0 && v.majority(v.MapVoters) && v.majority(voters)
}

// mayLeave returns the first node whose leaving raft's voters keeps a majority
// of the rest in reach.
func (v View) mayLeave(ids []cluster.NodeID) (cluster.NodeID, bool) {
	for _, id := range ids {
		if v.majority(without(v.RaftVoters, id)) {
			return id, true
		}
	}
	return cluster.NodeID{}, false
}

func (v View) deadFirst(ids []cluster.NodeID) []cluster.NodeID {
	return slices.SortedStableFunc(slices.Values(ids), func(a, b cluster.NodeID) int {
		return boolRank(v.answers(a)) - boolRank(v.answers(b))
	})
}

// blocked says what is left to do when no step may be taken.
func (v View) blocked(want []cluster.NodeID) VoterStep {
	if slices.Equal(v.RaftVoters, want) && slices.Equal(v.MapVoters, want) {
		return VoterStep{}
	}
	var down []string
	for _, id := range v.RaftVoters {
		if !v.reachable(id) {
			down = append(down, id.String())
		}
	}
	return VoterStep{Blocked: fmt.Sprintf("a change of voters waits for unreachable voters: %s", strings.Join(down, ", "))}
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}

func subtract(a, b []cluster.NodeID) []cluster.NodeID {
	return slices.DeleteFunc(slices.Clone(a), func(id cluster.NodeID) bool { return contains(b, id) })
}

func intersect(a, b []cluster.NodeID) []cluster.NodeID {
	return slices.DeleteFunc(slices.Clone(a), func(id cluster.NodeID) bool { return !contains(b, id) })
}

func without(a []cluster.NodeID, id cluster.NodeID) []cluster.NodeID {
	return subtract(a, []cluster.NodeID{id})
}
