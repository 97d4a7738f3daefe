package roles_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func ids(list ...int) []cluster.NodeID {
	out := []cluster.NodeID{}
	for _, i := range list {
		out = append(out, statetest.ID(i))
	}
	return out
}

func in(list []cluster.NodeID) func(cluster.NodeID) bool {
	return func(id cluster.NodeID) bool { return slices.Contains(list, id) }
}

func TestNextVoters(t *testing.T) {
	for name, c := range map[string]struct {
		raft, non, mapped, cands, up, ready []int
		want                                string
	}{
		"alone":                       {ids1(1), nil, ids1(1), ids1(1), nil, nil, ""},
		"second stands by":            {ids1(1), nil, ids1(1), ids1(1, 2), ids1(2), nil, "add-nonvoter 2"},
		"two: one votes":              {ids1(1), ids1(2), ids1(1), ids1(1, 2), ids1(2), ids1(2), ""},
		"third not ready: wait":       {ids1(1), ids1(2, 3), ids1(1), ids1(1, 2, 3), ids1(2, 3), ids1(2), ""},
		"three: raft first":           {ids1(1), ids1(2, 3), ids1(1), ids1(1, 2, 3), ids1(2, 3), ids1(2, 3), "add-voter 2"},
		"three: and the other":        {ids1(1, 2), ids1(3), ids1(1), ids1(1, 2, 3), ids1(2, 3), ids1(3), "add-voter 3"},
		"third fell behind: back":     {ids1(1, 2), ids1(3), ids1(1), ids1(1, 2, 3), ids1(2, 3), nil, "demote-raft 2"},
		"then the map":                {ids1(1, 2, 3), nil, ids1(1), ids1(1, 2, 3), ids1(2, 3), nil, "set-map-voters [1 2 3]"},
		"dead voter stays alone":      {ids1(1, 2, 3), nil, ids1(1, 2, 3), ids1(1, 2, 3), ids1(2), nil, ""},
		"dead voter: new one first":   {ids1(1, 2, 3), ids1(4), ids1(1, 2, 3), ids1(1, 2, 3, 4), ids1(2, 4), ids1(4), "add-voter 4"},
		"dead voter: out of the map":  {ids1(1, 2, 3, 4), nil, ids1(1, 2, 3), ids1(1, 2, 3, 4), ids1(2, 4), nil, "set-map-voters [1 2 4]"},
		"dead voter: out of raft":     {ids1(1, 2, 3, 4), nil, ids1(1, 2, 4), ids1(1, 2, 3, 4), ids1(2, 4), nil, "demote-raft 3"},
		"demoted: out of raft":        {ids1(1, 2, 3), nil, ids1(1), ids1(1, 2), ids1(2, 3), nil, "remove-raft 3"},
		"demoted: dead one first":     {ids1(1, 2, 3, 4, 5), nil, ids1(1, 2, 3), ids1(1, 2, 3), ids1(2, 3, 4), nil, "remove-raft 5"},
		"demoted: then the even one":  {ids1(1, 2), nil, ids1(1), ids1(1, 2), ids1(2), nil, "demote-raft 2"},
		"no majority left: blocked":   {ids1(1, 2, 3), nil, ids1(1), ids1(1, 2), ids1(3), nil, "blocked"},
		"removed standby":             {ids1(1), ids1(9), ids1(1), ids1(1), nil, nil, "remove-raft 9"},
		"map without raft is mended":  {ids1(1, 2), ids1(3), ids1(1, 2, 3), ids1(1, 2, 3), ids1(2, 3), ids1(3), "set-map-voters [1]"},
		"leader not a candidate":      {ids1(1), nil, ids1(2), ids1(2), nil, nil, "blocked"},
		"eight candidates: seven":     {ids1(1, 2, 3, 4, 5, 6, 7), ids1(8), ids1(1, 2, 3, 4, 5, 6, 7), ids1(1, 2, 3, 4, 5, 6, 7, 8), ids1(2, 3, 4, 5, 6, 7, 8), ids1(8), ""},
		"new leader outside the map":  {ids1(1, 2, 3, 4), nil, ids1(2, 3, 4), ids1(1, 2, 3, 4), ids1(2, 3, 4), nil, "set-map-voters [1 2 3]"},
		"unreachable is not promoted": {ids1(1), ids1(2, 3), ids1(1), ids1(1, 2, 3), ids1(2), ids1(2, 3), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := roles.NextVoters(roles.View{
				Leader: statetest.ID(1), MapVoters: ids(c.mapped...), Candidates: ids(c.cands...),
				RaftVoters: ids(c.raft...), RaftNonvoters: ids(c.non...),
				CaughtUp: in(ids(c.ready...)), Reachable: in(ids(c.up...)),
			})
			if show(got) != c.want {
				t.Fatalf("got %q, want %q", show(got), c.want)
			}
		})
	}
}

func ids1(list ...int) []int { return list }

func show(s roles.VoterStep) string {
	number := func(id cluster.NodeID) int { return int(id[7]) }
	switch {
	case s.Blocked != "":
		return "blocked"
	case s.Kind == roles.VoterNone:
		return ""
	case s.Kind == roles.SetMapVoters:
		n := []int{}
		for _, id := range s.Voters {
			n = append(n, number(id))
		}
		return fmt.Sprintf("%s %v", s.Kind, n)
	}
	return fmt.Sprintf("%s %d", s.Kind, number(s.Node))
}

// voting is a model of a cluster whose voters move one step at a time.
type voting struct {
	t     *rapid.T
	v     roles.View
	down  map[cluster.NodeID]bool
	slow  map[cluster.NodeID]bool
	nodes []cluster.NodeID
}

func newVoting(t *rapid.T) *voting {
	m := &voting{t: t, down: map[cluster.NodeID]bool{}, slow: map[cluster.NodeID]bool{}, nodes: ids(1, 2, 3, 4, 5, 6, 7, 8, 9)}
	m.v = roles.View{
		Leader: m.nodes[0], MapVoters: m.nodes[:1:1], RaftVoters: m.nodes[:1:1], Candidates: m.nodes[:1:1],
		Reachable: func(id cluster.NodeID) bool { return !m.down[id] },
		CaughtUp:  func(id cluster.NodeID) bool { return !m.slow[id] },
	}
	return m
}

func (m *voting) alive(list []cluster.NodeID) int {
	n := 0
	for _, id := range list {
		if !m.down[id] && slices.Contains(m.v.Candidates, id) { // others are refused
			n++
		}
	}
	return n
}

func (m *voting) other(from []cluster.NodeID, label string) (cluster.NodeID, bool) {
	from = slices.DeleteFunc(slices.Clone(from), func(id cluster.NodeID) bool { return id == m.v.Leader })
	if len(from) == 0 {
		return cluster.NodeID{}, false
	}
	return rapid.SampledFrom(from).Draw(m.t, label), true
}

// disturb lets something happen that leaves raft its quorum.
func (m *voting) disturb() {
	id, _ := m.other(m.nodes, "node")
	switch rapid.SampledFrom([]string{"promote", "demote", "crash", "start", "slow", "fast", "elect"}).Draw(m.t, "event") {
	case "promote":
		if !slices.Contains(m.v.Candidates, id) {
			m.v.Candidates = append(slices.Clip(m.v.Candidates), id)
		}
	case "demote":
		m.demote(id)
	case "crash":
		m.down[id] = true
		if 2*m.alive(m.v.RaftVoters) <= len(m.v.RaftVoters) || 2*m.alive(m.v.MapVoters) <= len(m.v.MapVoters) {
			delete(m.down, id) // what cannot decide at all is not the planner's to repair
		}
	case "start":
		delete(m.down, id)
	case "slow":
		m.slow[id] = true
	case "fast":
		delete(m.slow, id)
	case "elect":
		if slices.Contains(m.v.RaftVoters, id) && slices.Contains(m.v.Candidates, id) && !m.down[id] {
			m.v.Leader = id
		}
	}
}

func (m *voting) demote(id cluster.NodeID) {
	if !slices.Contains(m.v.Candidates, id) {
		return
	}
	if roles.CheckLoss(m.v, id, func(cluster.NodeID) cluster.Name { return "n" }) != nil {
		return
	}
	if after := roles.VotersAfterLoss(m.v.MapVoters, id, m.v.Leader, m.v.Reachable); after != nil {
		m.setMap(after)
	}
	m.v.Candidates = slices.DeleteFunc(slices.Clone(m.v.Candidates), func(c cluster.NodeID) bool { return c == id })
}

func (m *voting) setMap(voters []cluster.NodeID) {
	if 2*m.alive(m.v.MapVoters) <= len(m.v.MapVoters) || 2*m.alive(voters) <= len(voters) {
		m.t.Fatalf("a map with voters %v cannot be signed: before %v, down %v", voters, m.v.MapVoters, m.down)
	}
	m.v.MapVoters = voters
}

func (m *voting) step() bool {
	s := roles.NextVoters(m.v)
	raft := slices.Clone(m.v.RaftVoters)
	switch s.Kind {
	case roles.VoterNone:
		return false
	case roles.AddNonvoter:
		m.v.RaftNonvoters = append(slices.Clip(m.v.RaftNonvoters), s.Node)
	case roles.AddVoter:
		m.v.RaftNonvoters = drop(m.v.RaftNonvoters, s.Node)
		m.v.RaftVoters = append(raft, s.Node)
	case roles.DemoteRaft:
		m.v.RaftVoters = drop(raft, s.Node)
		m.v.RaftNonvoters = append(slices.Clip(m.v.RaftNonvoters), s.Node)
	case roles.RemoveRaft:
		m.v.RaftVoters, m.v.RaftNonvoters = drop(raft, s.Node), drop(m.v.RaftNonvoters, s.Node)
	case roles.SetMapVoters:
		m.setMap(s.Voters)
	}
	if 2*m.alive(m.v.RaftVoters) <= len(m.v.RaftVoters) {
		m.t.Fatalf("step %+v leaves raft without a reachable majority: %v, down %v", s, m.v.RaftVoters, m.down)
	}
	return true
}

func drop(list []cluster.NodeID, id cluster.NodeID) []cluster.NodeID {
	return slices.DeleteFunc(slices.Clone(list), func(x cluster.NodeID) bool { return x == id })
}

func (m *voting) invariants() {
	v := m.v
	if n := len(v.MapVoters); n%2 == 0 || n > candmap.MaxVoters {
		m.t.Fatalf("%d map voters", n)
	}
	for _, id := range v.MapVoters {
		if !slices.Contains(v.RaftVoters, id) || !slices.Contains(v.Candidates, id) {
			m.t.Fatalf("map voter %s votes not in raft, or is no candidate", id)
		}
	}
	if !slices.Contains(v.RaftVoters, v.Leader) {
		m.t.Fatalf("the leader lost its vote")
	}
}

// TestG3VotersStayDecidable: whatever happens between two steps, the voters of
// map and raft keep their invariants, and in quiet they settle.
func TestG3VotersStayDecidable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newVoting(t)
		for range rapid.IntRange(1, 60).Draw(t, "rounds") {
			m.disturb()
			for range rapid.IntRange(0, 4).Draw(t, "steps") {
				m.step()
				m.invariants()
			}
		}
		for n := 0; m.step(); n++ { // quiet, with some nodes down
			if m.invariants(); n > 100 {
				t.Fatalf("no rest after %d steps", n)
			}
		}
		for id := range m.down {
			if slices.Contains(m.v.Candidates, id) {
				delete(m.down, id)
			}
		}
		clear(m.slow)
		for n := 0; m.step(); n++ {
			if m.invariants(); n > 100 {
				t.Fatalf("no rest after %d steps", n)
			}
		}
		m.settled()
	})
}

// settled checks the end: the largest odd number of candidates votes, in map
// and raft alike, and the others stand by.
func (m *voting) settled() {
	want := min(len(m.v.Candidates), candmap.MaxVoters)
	if want%2 == 0 {
		want--
	}
	byID := func(l []cluster.NodeID) []cluster.NodeID {
		return slices.SortedFunc(slices.Values(l), state.CompareID)
	}
	if len(m.v.MapVoters) != want || !slices.Equal(byID(m.v.MapVoters), byID(m.v.RaftVoters)) || !slices.Contains(m.v.MapVoters, m.v.Leader) {
		m.t.Fatalf("settled with map %v, raft %v, leader %s of %d candidates", m.v.MapVoters, m.v.RaftVoters, m.v.Leader, len(m.v.Candidates))
	}
	if all := byID(slices.Concat(m.v.RaftVoters, m.v.RaftNonvoters)); !slices.Equal(all, byID(m.v.Candidates)) {
		m.t.Fatalf("raft has %v, the candidates are %v", all, m.v.Candidates)
	}
}

func TestVotersAfterLoss(t *testing.T) {
	for _, c := range []struct {
		current      []int
		leaver, lead int
		up, want     []int
	}{
		{ids1(1, 2, 3), 3, 1, ids1(1, 2, 3), ids1(1)},
		{ids1(1, 2, 3, 4, 5), 5, 1, ids1(1, 2, 3, 4), ids1(1, 2, 3)},
		{ids1(1, 2, 3, 4, 5), 5, 4, ids1(3), ids1(1, 3, 4)},
		{ids1(1, 2, 3), 4, 1, nil, nil},
		{ids1(2), 2, 1, nil, ids1(1)},
	} {
		got := roles.VotersAfterLoss(ids(c.current...), statetest.ID(c.leaver), statetest.ID(c.lead), in(ids(c.up...)))
		if !slices.Equal(got, ids(c.want...)) || (got == nil) != (c.want == nil) {
			t.Errorf("%v without %d: %v, want %v", c.current, c.leaver, got, c.want)
		}
	}
}

func TestCheckLossKeepsTheQuorum(t *testing.T) {
	v := roles.View{Leader: statetest.ID(1), MapVoters: ids(1, 2, 3), RaftVoters: ids(1, 2, 3), Candidates: ids(1, 2, 3)}
	name := func(id cluster.NodeID) cluster.Name { return statetest.Name(int(id[7])) }
	for _, c := range []struct {
		up     []int
		leaver int
		ok     bool
	}{
		{ids1(2, 3), 3, true}, {ids1(2), 3, true}, {ids1(2), 2, false}, {nil, 2, false}, {nil, 9, true},
	} {
		v.Reachable = in(ids(c.up...))
		if err := roles.CheckLoss(v, statetest.ID(c.leaver), name); (err == nil) != c.ok {
			t.Errorf("with %v up, losing %d: %v", c.up, c.leaver, err)
		}
	}
	v.Reachable = in(ids(2))
	e, _ := roles.CheckLoss(v, statetest.ID(2), name).(*roles.PrereqError)
	if e == nil || e.Class != roles.WrongState || e.Hint == "" {
		t.Fatalf("refusal %+v lacks class or remedy", e)
	}
}
