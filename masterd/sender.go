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
	mu    sync.Mutex
	last  map[cluster.NodeID]rpc.Seen
	lives map[cluster.NodeID]life // of the candidates of the newest map
}

// life tells one time of a node in the role from the next: it makes new keys
// at every promotion.
type life struct {
	incarnation uint64
	signing     string
}

func newSeenBook() *seenBook { return &seenBook{last: map[cluster.NodeID]rpc.Seen{}} }

func (b *seenBook) note(node cluster.NodeID, s rpc.Seen) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.last[node]
	if s.Version.Newer(old.Version) {
		old.Version = s.Version
	}
	if s.Term > old.Term || s.Term == old.Term && s.Index > old.Index {
		old.Term, old.Index = s.Term, s.Index
	}
	b.last[node] = old
}

// keep forgets nodes that are no candidates any more, or are again: their state
// was destroyed, and they rightly begin with an empty disk. A map between may
// have been skipped, so their keys tell.
func (b *seenBook) keep(m *candmap.Verified) {
	lives := map[cluster.NodeID]life{}
	for _, c := range m.Candidates {
		lives[c.UUID] = life{c.Incarnation, string(c.Signing)}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.last, func(id cluster.NodeID, _ rpc.Seen) bool { return lives[id] == life{} || lives[id] != b.lives[id] })
	b.lives = lives
}

func (b *seenBook) of(node cluster.NodeID) rpc.Seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last[node]
}

// sender carries raft messages over the RPC gate.
type sender struct{ client *rpc.Client }

// Send implements consensus.Sender.
func (s sender) Send(ctx context.Context, to raft.ServerID, message string, body []byte) ([]byte, error) {
	node, _, err := consensus.ParseServerID(to)
	if err != nil {
		return nil, err
	}
	var reply json.RawMessage
	err = s.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Masterd}, rpc.MethodRaft, message, json.RawMessage(body), &reply)
	return reply, err
}
