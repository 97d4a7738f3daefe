package masterd

import (
	"encoding/json"
	"testing"

	"github.com/hashicorp/raft"

	"rolekey/candmap"
	"rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/rpc"
)

func raftMessage(t *testing.T, m any) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"message": m})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestG3Position: what a message tells of its sender's disk.
func TestG3Position(t *testing.T) {
	for _, c := range []struct {
		name, message string
		body          []byte
		want          rpc.Seen
		ok            bool
	}{
		{"vote", consensus.MessageRequestVote, raftMessage(t, &raft.RequestVoteRequest{Term: 9, LastLogIndex: 40, LastLogTerm: 7}), rpc.Seen{Term: 7, Index: 40}, true},
		{"entries", consensus.MessageAppendEntries, raftMessage(t, &raft.AppendEntriesRequest{Term: 9, PrevLogEntry: 40, Entries: []*raft.Log{{Index: 41}, {Index: 42}}}), rpc.Seen{Term: 9, Index: 42}, true},
		{"empty entries", consensus.MessageAppendEntries, raftMessage(t, &raft.AppendEntriesRequest{Term: 9, PrevLogEntry: 40}), rpc.Seen{Term: 9, Index: 40}, true},
		{"heartbeat", consensus.MessageAppendEntries, raftMessage(t, &raft.AppendEntriesRequest{Term: 9}), rpc.Seen{}, false},
		{"pre-vote", consensus.MessageRequestPreVote, raftMessage(t, &raft.RequestPreVoteRequest{Term: 9}), rpc.Seen{}, false},
		{"snapshot", consensus.MessageInstallSnapshot, raftMessage(t, &raft.InstallSnapshotRequest{Term: 9}), rpc.Seen{}, false},
		{"junk", consensus.MessageRequestVote, []byte("x"), rpc.Seen{}, false},
		{"nothing", consensus.MessageAppendEntries, nil, rpc.Seen{}, false},
	} {
		if got, ok := position(c.message, c.body); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %t, want %+v, %t", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestG3SeenBookKeepsTheNewest(t *testing.T) {
	v := func(n uint64) cluster.Version { return cluster.Version{Epoch: 1, Version: n} }
	book := newSeenBook()
	id := candmaptest.NodeID(1)
	for _, c := range []struct{ note, want rpc.Seen }{
		{rpc.Seen{Term: 5, Index: 100}, rpc.Seen{Term: 5, Index: 100}},
		{rpc.Seen{Term: 5, Index: 90}, rpc.Seen{Term: 5, Index: 100}},
		{rpc.Seen{Term: 4, Index: 200}, rpc.Seen{Term: 5, Index: 100}},
		{rpc.Seen{Version: v(7)}, rpc.Seen{Term: 5, Index: 100, Version: v(7)}},
		{rpc.Seen{Version: v(6)}, rpc.Seen{Term: 5, Index: 100, Version: v(7)}},
		{rpc.Seen{Term: 6, Index: 80}, rpc.Seen{Term: 6, Index: 80, Version: v(7)}}, // a log that was cut and grew again
		{rpc.Seen{Term: 6, Index: 81, Version: v(8)}, rpc.Seen{Term: 6, Index: 81, Version: v(8)}},
	} {
		book.note(id, c.note)
		if got := book.of(id); got != c.want {
			t.Errorf("after %+v the book says %+v, want %+v", c.note, got, c.want)
		}
	}
	if got := book.of(candmaptest.NodeID(2)); got != (rpc.Seen{}) {
		t.Errorf("of a node never seen it says %+v", got)
	}
}

// TestG3SeenBookForgetsAFormerLife: a node that lost the role destroys its
// state, and begins anew when it is promoted again. Otherwise it would be
// taken for a restored copy, for ever.
func TestG3SeenBookForgetsAFormerLife(t *testing.T) {
	first := candmaptest.Map(1, 2, 3)
	id := candmaptest.NodeID(3)
	seen := rpc.Seen{Term: 5, Index: 100}
	with := func(edit func(m *candmap.Map)) *candmap.Verified {
		m := candmaptest.Next(first)
		edit(m)
		return verified(t, m, 1, 2)
	}
	for name, c := range map[string]struct {
		next *candmap.Verified
		kept bool
	}{
		"nothing changed":       {with(func(*candmap.Map) {}), true},
		"demoted":               {with(func(m *candmap.Map) { candmaptest.SetVoters(m, 1) }), false},
		"no vote any more":      {with(func(m *candmap.Map) { m.Candidates[1].Voter, m.Candidates[2].Voter = false, false }), true},
		"demoted and promoted":  {with(func(m *candmap.Map) { m.Candidates[2].Signing = candmaptest.Public(33) }), false},
		"another node promoted": {with(func(m *candmap.Map) { m.Candidates = append(m.Candidates, candmaptest.Candidate(4, false)) }), true},
		"admitted again":        {with(func(m *candmap.Map) { m.Candidates[2].Incarnation = 2 }), false},
	} {
		book := newSeenBook()
		book.keep(verified(t, first, 1, 2, 3))
		book.note(id, seen)
		book.keep(c.next)
		if got := book.of(id); (got == seen) != c.kept {
			t.Errorf("%s: the book says %+v", name, got)
		}
	}
}
