package masterd

import (
	"testing"

	"rolekey/candmap"
	"rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// spaces is a body without end; it counts what is read.
type spaces struct{ read int }

func (s *spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	s.read += len(p)
	return len(p), nil
}

// TestRaftMessagesAreBounded: a voter may send many at once, and only a
// snapshot needs room.
func TestRaftMessagesAreBounded(t *testing.T) {
	for _, name := range []string{consensus.MessageAppendEntries, consensus.MessageRequestVote, consensus.MessageTimeoutNow, "x", ""} {
		body := &spaces{}
		_, err := readMessage("peer", name, body)
		if cluster.CodeOf(err) != cluster.CodeTooLarge {
			t.Errorf("%q: a message without end: %v", name, err)
		}
		if body.read > 64<<20 {
			t.Errorf("%q: %d bytes were read", name, body.read)
		}
	}
	if got := consensus.MaxBody(consensus.MessageInstallSnapshot); got < state.MaxSnapshot/3*4 {
		t.Errorf("the largest snapshot does not fit into %d bytes", got)
	}
}

func TestG3SeenBookKeepsTheNewest(t *testing.T) {
	v := func(n uint64) cluster.Version { return cluster.Version{Epoch: 1, Version: n} }
	book := newSeenBook()
	one := life{node: candmaptest.NodeID(1)}
	for _, c := range []struct{ note, want rpc.Seen }{
		{rpc.Seen{Term: 5, Index: 100}, rpc.Seen{Term: 5, Index: 100}},
		{rpc.Seen{Term: 5, Index: 90}, rpc.Seen{Term: 5, Index: 100}},
		{rpc.Seen{Term: 4, Index: 200}, rpc.Seen{Term: 5, Index: 100}},
		{rpc.Seen{Version: v(7)}, rpc.Seen{Term: 5, Index: 100, Version: v(7)}},
		{rpc.Seen{Version: v(6)}, rpc.Seen{Term: 5, Index: 100, Version: v(7)}},
		{rpc.Seen{Term: 6, Index: 80}, rpc.Seen{Term: 6, Index: 80, Version: v(7)}}, // a log that was cut and grew again
		{rpc.Seen{Term: 6, Index: 81, Version: v(8)}, rpc.Seen{Term: 6, Index: 81, Version: v(8)}},
	} {
		book.note(one, c.note)
		if got := book.of(one); got != c.want {
			t.Errorf("after %+v the book says %+v, want %+v", c.note, got, c.want)
		}
	}
	if got := book.of(life{node: candmaptest.NodeID(2)}); got != (rpc.Seen{}) {
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
		former := lifeOf(verified(t, first, 1, 2, 3).Candidate(id))
		now := former
		if entry := c.next.Candidate(id); entry != nil {
			now = lifeOf(entry)
		}
		book.note(former, seen)
		book.keep(c.next)
		if got := book.of(former); (got == seen) != c.kept {
			t.Errorf("%s: the book says %+v of the former life", name, got)
		}
		book.note(former, seen) // a message that was under way
		if got := book.of(now); (got == seen) != (now == former) {
			t.Errorf("%s: late news of the former life make it %+v", name, got)
		}
	}
}
