package masterd

import (
	"context"
	"encoding/json"
	"maps"
	"sync"

	"github.com/hashicorp/raft"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/rpc"
)

// seenBook remembers the newest position that peers showed, so that a restored
// copy of a peer's disk can be told that it is one. It lives in memory: it
// serves for as long as one candidate runs on.
type seenBook struct {
	mu   sync.Mutex
	last map[life]rpc.Seen
}

// life is one time of a node in the role. At the end its disk is emptied, and at
// every promotion it makes new keys; so nothing of one life is held against
// another, however the news of them arrive.
type life struct {
	node        cluster.NodeID
	incarnation uint64
	signing     string
}

func lifeOf(c *candmap.Candidate) life { return life{c.UUID, c.Incarnation, string(c.Signing)} }

func newSeenBook() *seenBook { return &seenBook{last: map[life]rpc.Seen{}} }

func (b *seenBook) note(l life, s rpc.Seen) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.last[l]
	if s.Version.Newer(old.Version) {
		old.Version = s.Version
	}
	if s.Term > old.Term || s.Term == old.Term && s.Index > old.Index {
		old.Term, old.Index = s.Term, s.Index
	}
	b.last[l] = old
}

// keep forgets the lives that the map does not know.
func (b *seenBook) keep(m *candmap.Verified) {
	now := map[life]bool{}
	for _, c := range m.Candidates {
		now[lifeOf(&c)] = true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.last, func(l life, _ rpc.Seen) bool { return !now[l] })
}

func (b *seenBook) of(l life) rpc.Seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last[l]
}

// sender carries raft messages over the RPC gate.
type sender struct {
	client  *rpc.Client
	evicts  func(cluster.NodeID) bool
	refused func(cluster.NodeID, error)
}

// Send implements consensus.Sender.
func (s sender) Send(ctx context.Context, to raft.ServerID, message string, body []byte) ([]byte, error) {
	node, _, err := consensus.ParseServerID(to)
	if err != nil {
		return nil, err
	}
	if s.evicts(node) {
		return nil, errEvicted
	}
	var reply json.RawMessage
	err = s.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Masterd}, rpc.MethodRaft, message, json.RawMessage(body), &reply)
	s.refused(node, err)
	return reply, err
}
