package roles

import (
	"fmt"
	"strings"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// PoolStats are the figures of the candidate pool.
type PoolStats struct {
	Now    int // candidates
	Should int // candidates that there should be
	Max    int // nodes that could be candidates
}

// Pool counts candidates as Ganeti's GetMasterCandidateStats does, leaving out
// the excepted nodes.
func Pool(s *state.State, except ...cluster.NodeID) PoolStats {
	var p PoolStats
	for id, n := range s.Nodes {
		if contains(except, id) {
			continue
		}
		if eligible(n) {
			p.Max++
		}
		if n.Flags.MasterCandidate {
			p.Now++
		}
	}
	p.Should = min(p.Max, s.Params.CandidatePoolSize)
	return p
}

// eligible reports whether the node may be a candidate as it stands.
func eligible(n *state.Node) bool {
	return n.Flags.MasterCapable && !n.Flags.Offline && !n.Flags.Drained
}

// roomForOne reports whether the pool wants one more node that is not counted
// among its possible members yet.
func roomForOne(s *state.State, except ...cluster.NodeID) bool {
	p := Pool(s, except...)
	return p.Now < min(p.Should+1, s.Params.CandidatePoolSize)
}

// PlanPool returns the nodes to promote, in the order to try them, and how
// many of them; the others stand in when one cannot be reached. Nobody is
// ever demoted because the pool shrank. Nodes that have not joined yet come
// last: they may never do.
func PlanPool(s *state.State, except ...cluster.NodeID) (candidates []cluster.NodeID, want int) {
	p := Pool(s, except...)
	if want = p.Should - p.Now; want <= 0 {
		return nil, 0
	}
	var late []cluster.NodeID
	for _, n := range s.SortedNodes() {
		switch {
		case n.Flags.MasterCandidate || !eligible(n) || contains(except, n.UUID):
		case n.Joined:
			candidates = append(candidates, n.UUID)
		default:
			late = append(late, n.UUID)
		}
	}
	return append(candidates, late...), want
}

// MayPromote reports whether who asks may have nodes promoted: over RAPI alone
// nobody does, where the cluster does not allow it.
func MayPromote(s *state.State, rapi bool) bool { return !rapi || s.Params.RAPIMayPromote }

// NoPromotionNotice is the line in the log of a job that must not fill the pool.
func NoPromotionNotice(lacking int) Message {
	return info("Not promoting other nodes, of which the candidate pool lacks %d: RAPI may not promote nodes in this cluster", lacking)
}

// PromotedNotice is the line in a job's log that names the nodes that the pool
// took in.
func PromotedNotice(names []cluster.Name) Message {
	text := make([]string, len(names))
	for i, n := range names {
		text[i] = string(n)
	}
	return info("Promoted nodes to master candidate role: %s", strings.Join(text, ", "))
}

// SurplusNotice warns of a pool that is larger than wanted; ok is false when
// it is not.
func SurplusNotice(s *state.State, except ...cluster.NodeID) (m Message, ok bool) {
	p := Pool(s, except...)
	return info("Note: more nodes are candidates (%d) than desired (%d)", p.Now, p.Should), p.Now > p.Should
}

// StayNotice says, when a pool of this size is smaller than what is in it, who
// stays in it and why; ok is false when it is not.
func StayNotice(s *state.State, size int) (m Message, ok bool) {
	var stay []string
	for _, n := range s.SortedNodes() {
		if n.Flags.MasterCandidate {
			stay = append(stay, string(n.Name))
		}
	}
	return info("All candidates stay so (%s): nobody loses root's keys because a number changed; to demote one: gnt-node modify --master-candidate=no NODE",
		strings.Join(stay, ", ")), len(stay) > size
}

// Message is a line of a job's log.
type Message struct {
	Warning bool
	Text    string
}

// String returns the line as Ganeti writes it.
func (m Message) String() string {
	if m.Warning {
		return " - WARNING: " + m.Text
	}
	return " - INFO: " + m.Text
}

func info(format string, args ...any) Message { return Message{Text: fmt.Sprintf(format, args...)} }

func warning(format string, args ...any) Message {
	return Message{Warning: true, Text: fmt.Sprintf(format, args...)}
}
