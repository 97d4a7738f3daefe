package consensus

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/masterd/state/statetest"
)

// TestG3StandbyDeposesNobody: a server without a vote that answers the log with
// a far term. Raft would step down at each answer, so nobody could even remove
// that server.
func TestG3StandbyDeposesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		l.evil = ServerID(statetest.ID(9), 1)
		l.hooks.MayDepose = func(id raft.ServerID) bool { return id != l.evil }
		lead := founded(t, l)
		grow(t, lead, 2)
		grow(t, lead, 3)
		term := lead.node.Term()
		if err := lead.node.AddNonvoter(t.Context(), l.evil); err != nil {
			t.Fatal(err)
		}
		until(t, time.Minute, "it has lied often", func() bool { return l.lied.Load() > 5 })
		if !lead.node.Leads() || lead.node.Term() != term {
			t.Fatalf("it deposed the leader; the term went from %d to %d", term, lead.node.Term())
		}
		if err := lead.node.RemoveServer(t.Context(), l.evil); err != nil {
			t.Errorf("it cannot be removed: %v", err)
		}
	})
}

// ahead is a peer whose term is 9.
type ahead struct{}

func (ahead) Send(_ context.Context, _ raft.ServerID, message string, _ []byte) ([]byte, error) {
	return []byte(`{"Term":9}`), nil
}

// TestWhoseTermCounts: a voter that knows of a newer leader must be heard, and
// the term of an answer that is not ahead says nothing.
func TestWhoseTermCounts(t *testing.T) {
	tr := NewTransport("me", ahead{})
	for _, c := range []struct {
		name    string
		hook    func(raft.ServerID) bool
		own     uint64
		refused bool
	}{
		{"no hook", nil, 8, false},
		{"a voter", func(raft.ServerID) bool { return true }, 8, false},
		{"a standby", func(id raft.ServerID) bool { return id != "peer" }, 8, true},
		{"a standby, same term", func(raft.ServerID) bool { return false }, 9, false},
		{"a standby, behind", func(raft.ServerID) bool { return false }, 10, false},
	} {
		tr.hooks.MayDepose = c.hook
		err := tr.AppendEntries("peer", "peer", &raft.AppendEntriesRequest{Term: c.own}, &raft.AppendEntriesResponse{})
		if (err != nil) != c.refused {
			t.Errorf("%s: entries: %v", c.name, err)
		}
		err = tr.InstallSnapshot("peer", "peer", &raft.InstallSnapshotRequest{Term: c.own}, &raft.InstallSnapshotResponse{}, strings.NewReader(""))
		if (err != nil) != c.refused {
			t.Errorf("%s: snapshot: %v", c.name, err)
		}
	}
}

// TestG3FollowersAreSeen: a follower never sends, so its answers are what tells
// how far its disk was, should an older copy of it come back.
func TestG3FollowersAreSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type position struct{ term, index uint64 }
		var mu sync.Mutex
		seen := map[raft.ServerID]position{}
		l := newLAN()
		l.hooks.Confirmed = func(id raft.ServerID, term, index uint64) {
			mu.Lock()
			defer mu.Unlock()
			seen[id] = position{term, index}
		}
		lead := founded(t, l)
		other := grow(t, lead, 2)
		for i := range 5 {
			if _, err := lead.admission(t.Context(), 10+i); err != nil {
				t.Fatal(err)
			}
		}
		until(t, 10*time.Second, "the newest entry is confirmed", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return seen[other.id] == position{lead.node.Term(), lead.node.LastIndex()}
		})
		if last, err := other.disk.LastIndex(); err != nil || last != lead.node.LastIndex() {
			t.Errorf("the disk of the follower reaches to %d, %v", last, err)
		}
	})
}
