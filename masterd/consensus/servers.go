package consensus

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
)

// Servers returns raft's newest configuration.
func (n *Node) Servers() ([]raft.Server, error) {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("read raft configuration: %w", err)
	}
	return f.Configuration().Servers, nil
}

// Votes reports whether a server is a voter in the newest configuration that
// this node knows of.
func (n *Node) Votes(id raft.ServerID) bool {
	servers, err := n.Servers()
	return err == nil && slices.ContainsFunc(servers, func(s raft.Server) bool { return s.ID == id && s.Suffrage == raft.Voter })
}

// CaughtUp reports whether a server has confirmed nearly all of the log to
// this leader: with so little missing, its vote delays nobody.
func (n *Node) CaughtUp(id raft.ServerID) bool {
	const nearly = 4
	index, ok := n.transport.matched(id, n.Term())
	return ok && index+nearly >= n.LastIndex()
}

// AddNonvoter makes raft send the log to a server that has no vote.
func (n *Node) AddNonvoter(ctx context.Context, id raft.ServerID) error {
	n.transport.forget(id)
	return noQuorum("add raft non-voter", wait(ctx, n.raft.AddNonvoter(id, raft.ServerAddress(id), 0, n.timing.Hung)))
}

// AddVoter gives a server a vote at once: only for one that has caught up.
func (n *Node) AddVoter(ctx context.Context, id raft.ServerID) error {
	return noQuorum("add raft voter", wait(ctx, n.raft.AddVoter(id, raft.ServerAddress(id), 0, n.timing.Hung)))
}

// DemoteVoter takes a server's vote away.
func (n *Node) DemoteVoter(ctx context.Context, id raft.ServerID) error {
	return noQuorum("demote raft voter", wait(ctx, n.raft.DemoteVoter(id, 0, n.timing.Hung)))
}

// RemoveServer makes raft forget a server.
func (n *Node) RemoveServer(ctx context.Context, id raft.ServerID) error {
	return noQuorum("remove raft server", wait(ctx, n.raft.RemoveServer(id, 0, n.timing.Hung)))
}
