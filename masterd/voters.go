package masterd

import (
	"context"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
)

// voting is what the leader knows about voting at this moment. Without raft's
// configuration it knows of no raft voters, and then no step is permitted.
func (l *leader) voting() roles.View {
	st := l.node.State()
	v := roles.View{
		Leader: l.self, MapVoters: st.Voters(),
		CaughtUp:  func(id cluster.NodeID) bool { return l.node.CaughtUp(l.serverID(id)) },
		Reachable: func(id cluster.NodeID) bool { return l.push.reach.of(id).failures < givenUpAfter },
	}
	for _, n := range st.Candidates() {
		v.Candidates = append(v.Candidates, n.UUID)
	}
	servers, err := l.node.Servers()
	if err != nil {
		l.log.Warn("raft configuration cannot be read", zap.Error(err))
	}
	for _, s := range servers {
		id, _, err := consensus.ParseServerID(s.ID)
		switch {
		case err != nil:
			l.log.Error("raft has a server that is no node", zap.String("server", string(s.ID)))
		case s.Suffrage == raft.Voter:
			v.RaftVoters = append(v.RaftVoters, id)
		default:
			v.RaftNonvoters = append(v.RaftNonvoters, id)
		}
	}
	return v
}

// serverID returns the name of a node's raft server: the one that raft has, or
// the one that it will have.
func (l *leader) serverID(id cluster.NodeID) raft.ServerID {
	if n := l.node.State().Node(id); n != nil {
		return consensus.ServerID(id, n.Incarnation)
	}
	if servers, err := l.node.Servers(); err == nil {
		for _, s := range servers {
			if node, _, err := consensus.ParseServerID(s.ID); err == nil && node == id {
				return s.ID
			}
		}
	}
	return consensus.ServerID(id, 0)
}

// stepVoters makes one step towards the right voters, and reports whether it
// made one.
func (l *leader) stepVoters(ctx context.Context) (bool, error) {
	step := roles.NextVoters(l.voting())
	if step.Kind == roles.VoterNone {
		return false, nil
	}
	l.log.Info("changing voters", zap.String("step", string(step.Kind)), zap.Stringer("node", step.Node))
	switch id := l.serverID(step.Node); step.Kind {
	case roles.AddNonvoter:
		return true, l.node.AddNonvoter(ctx, id)
	case roles.AddVoter:
		return true, l.node.AddVoter(ctx, id)
	case roles.DemoteRaft:
		return true, l.node.DemoteVoter(ctx, id)
	case roles.RemoveRaft:
		return true, l.node.RemoveServer(ctx, id)
	default:
		_, _, err := l.change(ctx, state.KindSetVoters, state.SetVoters{Voters: step.Voters}, l.meta("masterd", ""), nil)
		return true, err
	}
}
