package masterd

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// voting is what the leader knows about voting at this moment. Without raft's
// configuration it knows of no raft voters, and then no step is permitted.
func (l *leader) voting() roles.View {
	st := l.node.State()
	v := roles.View{
		Leader: l.self, MapVoters: st.Voters(),
		CaughtUp:  func(id cluster.NodeID) bool { return l.node.CaughtUp(l.serverID(id)) },
		Reachable: func(id cluster.NodeID) bool { return !l.evicted(id) && l.push.reach.of(id).failures < givenUpAfter },
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

// votingNow is voting with the voters, and others, asked at this moment: what was
// reachable at the last beacon may be dead by now.
func (l *leader) votingNow(ctx context.Context, also ...cluster.NodeID) roles.View {
	v := l.voting()
	answers := l.answering(ctx, slices.Concat(v.RaftVoters, v.MapVoters, also))
	before := v.Reachable
	v.Reachable = func(id cluster.NodeID) bool {
		if up, asked := answers[id]; asked {
			return up
		}
		return before(id)
	}
	return v
}

// answerLimit is how long a voter may take to say that it is there.
const answerLimit = time.Second

// answering asks the masterds of nodes whether they are there, all at once.
func (l *leader) answering(ctx context.Context, ids []cluster.NodeID) map[cluster.NodeID]bool {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	answers := map[cluster.NodeID]bool{l.self: true}
	for _, id := range slices.Compact(slices.SortedFunc(slices.Values(ids), state.CompareID)) {
		if id == l.self {
			continue
		}
		all.Go(func() {
			up := !l.evicted(id) && l.alive(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			answers[id] = up
		})
	}
	all.Wait()
	return answers
}

// unpublished reports whether a committed map is not signed yet. Until it is,
// those who left by it are among the voters that must sign it, and can do so
// only while they follow the log.
func (l *leader) unpublished() bool { return l.node.State().Head().Version.Newer(l.held().At()) }

// stepVoters makes one step towards the right voters, and reports whether it
// made one. A step that seems due is decided again with fresh answers.
func (l *leader) stepVoters(ctx context.Context) (bool, error) {
	select {
	case l.moving <- struct{}{}:
		defer func() { <-l.moving }()
	default: // a handover gives and needs votes of its own
		return false, nil
	}
	v := l.voting()
	if roles.NextVoters(v).Kind == roles.VoterNone {
		return false, nil
	}
	// Those who stand by are asked, too: with a new voter that has died meanwhile
	// the new voters might be too few to decide, and nothing takes that back.
	step := roles.NextVoters(l.votingNow(ctx, v.RaftNonvoters...))
	if step.Kind == roles.VoterNone || l.unpublished() {
		return false, nil
	}
	return true, l.takeStep(ctx, step)
}

// takeStep makes one step; whoever calls it holds moving.
func (l *leader) takeStep(ctx context.Context, step roles.VoterStep) error {
	l.log.Info("changing voters", zap.String("step", string(step.Kind)), zap.Stringer("node", step.Node))
	switch id := l.serverID(step.Node); step.Kind {
	case roles.AddNonvoter:
		return l.node.AddNonvoter(ctx, id)
	case roles.AddVoter:
		return l.node.AddVoter(ctx, id)
	case roles.DemoteRaft:
		return l.node.DemoteVoter(ctx, id)
	case roles.RemoveRaft:
		return l.node.RemoveServer(ctx, id)
	default:
		_, _, err := l.change(ctx, state.KindSetVoters, state.SetVoters{Voters: step.Voters}, l.meta(selfActor, rpc.NewRequestID()), nil)
		return err
	}
}
