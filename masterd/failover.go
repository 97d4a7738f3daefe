package masterd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/masterd/consensus"
	"rolekey/masterd/rapi"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// An orderly failover is a call on the local socket and no job: the node that
// takes over is no master yet, and may order nothing; and there is nothing to
// resume. Each of its steps leaves a cluster that is whole: a vote given and not
// used is taken back by the leader's planner, an election that was begun ends by
// itself, and what the old master had committed the next one completes. Whoever
// is interrupted runs the command again.
const (
	failoverLimit = 30 * time.Second
	campaignTries = 5
	handoverPause = 50 * time.Millisecond
	// electionLook is how often an election is looked at: raft tells nobody when
	// it is lost.
	electionLook = 5 * time.Millisecond
)

// Failover implements rapi.Backend.
func (d *Daemon) Failover(ctx context.Context, to string, by audit.Caller) (rpc.FailoverReply, error) {
	return d.moveMaster(audit.WithCaller(ctx, by), to)
}

// failover moves the master role: to this node, or from it to another one.
func (d *Daemon) failover(ctx context.Context, r *rpc.FailoverRequest) (any, error) {
	return d.moveMaster(ctx, r.To)
}

func (d *Daemon) moveMaster(ctx context.Context, to string) (rpc.FailoverReply, error) {
	m, err := d.running()
	if err != nil {
		return rpc.FailoverReply{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, failoverLimit)
	defer cancel()
	began := time.Now()
	f := &failover{m: m}
	if to == "" {
		err = f.takeOver(ctx)
	} else {
		err = f.handOver(ctx, to)
	}
	f.reply.Version = m.keeper.View().At()
	m.log.Info("master failover", zap.String("to", string(f.reply.Master)), zap.String("from", string(f.reply.Previous)),
		zap.Stringer("version", f.reply.Version), zap.Strings("steps", f.reply.Steps), zap.Duration("took", time.Since(began)), zap.Error(err))
	d.audit.Write(audit.Event{
		Act: audit.Failover, Caller: audit.CallerOf(ctx), Target: string(f.reply.Master),
		Before: audit.Values{"master": string(f.reply.Previous)}, Version: f.reply.Version,
	}.Of(err))
	if errors.Is(err, context.DeadlineExceeded) && cluster.CodeOf(err) == cluster.CodeInternal {
		err = cluster.Errorf(cluster.CodeNoQuorum, "no master has come into office within %s", failoverLimit).
			WithHint("gnt-cluster getmaster tells who is master; the command may be run again")
	}
	return f.reply, err
}

// failover is one under way.
type failover struct {
	m     *member
	reply rpc.FailoverReply
}

func (f *failover) did(format string, args ...any) {
	f.reply.Steps = append(f.reply.Steps, fmt.Sprintf(format, args...))
}

// begin notes who is master; to is who will be.
func (f *failover) begin(st *state.State, to *state.Node) error {
	f.reply.Master, f.reply.Previous = to.Name, nameIn(st, st.Master)
	if to.UUID == st.Master && f.m.node.Leads() {
		return cluster.Errorf(cluster.CodeConflict, "This commands must be run on the node where you want the new master to be. %s is already the master", to.Name)
	}
	return nil
}

func nameIn(st *state.State, id cluster.NodeID) cluster.Name {
	if n := st.Node(id); n != nil {
		return n.Name
	}
	return ""
}

// takeOver makes this voter the leader. It commands nobody: the other voters
// elect it as they would if the leader were dead.
func (f *failover) takeOver(ctx context.Context) error {
	m := f.m
	st := m.node.State()
	self := st.Node(m.self.node)
	if self == nil {
		return cluster.Errorf(cluster.CodeUnavailable, "this candidate has not received the cluster's state yet").WithHint("try again in a moment")
	}
	if err := f.begin(st, self); err != nil {
		return err
	}
	if !m.node.Votes(m.node.ID()) {
		return cluster.Errorf(cluster.CodeConflict, "Node %s is a candidate that stands by: it has no vote in an election, and cannot take over by itself", self.Name).
			WithHint("run on the master, %s: gnt-cluster master-failover --to %s", f.reply.Previous, self.Name)
	}
	for range campaignTries {
		leads, err := f.campaign(ctx)
		if err != nil {
			return err
		}
		if leads {
			return f.awaitOffice(ctx)
		}
	}
	return cluster.Errorf(cluster.CodeUnavailable, "the voters elected another node each time, which holds more of the log").
		WithHint("gnt-cluster getmaster tells who is master; the command may be run again")
}

// campaign asks for the votes once, and reports whether this node leads then.
// The leader is asked first: it knows how to go without losing a moment. Where
// it does not, the others decide.
func (f *failover) campaign(ctx context.Context) (bool, error) {
	n := f.m.node
	leader, err := f.awaitLeader(ctx)
	if err != nil || leader == n.ID() {
		return err == nil, err
	}
	if f.ask(ctx, leader) {
		return true, nil
	}
	if err := f.catchUp(ctx, leader); err != nil {
		return false, err
	}
	if err := n.Campaign(ctx); err != nil && !n.Leads() {
		return false, err
	}
	f.did("asked all voters for their votes")
	leader, err = f.awaitLeader(ctx)
	return leader == n.ID(), err
}

// ask asks the leader to hand over, and reports whether this node leads then.
func (f *failover) ask(ctx context.Context, leader raft.ServerID) bool {
	n := f.m.node
	ctx, cancel := context.WithTimeout(ctx, 2*n.Timing().Election)
	defer cancel()
	if err := n.AskLeader(ctx, leader); err != nil {
		f.did("the master did not hand over: %v", err)
		return false
	}
	f.did("asked the master to hand over")
	return f.until(ctx, electionLook, func() (bool, error) { return n.Leads(), nil }) == nil
}

// awaitLeader waits for the end of an election, if there is one.
func (f *failover) awaitLeader(ctx context.Context) (leader raft.ServerID, err error) {
	n := f.m.node
	err = f.until(ctx, electionLook, func() (bool, error) {
		leader = n.Leader()
		return leader != "" && !n.Campaigns(), nil
	})
	return leader, err
}

// catchUp waits until this node holds what the leader holds at the moment: with
// less, the voters would refuse it, after they have left their leader. A leader
// that does not say is no reason to keep it.
func (f *failover) catchUp(ctx context.Context, leader raft.ServerID) error {
	id, _, err := consensus.ParseServerID(leader)
	if err != nil {
		return err
	}
	seen, err := f.m.askSeen(ctx, id)
	if err != nil {
		f.did("the master does not tell how long its log is: %v", err)
		return nil
	}
	return f.until(ctx, electionLook, func() (bool, error) { return f.m.node.LastIndex() >= seen.Last, nil })
}

// awaitOffice waits until this node, which was elected, is master.
func (f *failover) awaitOffice(ctx context.Context) error {
	err := f.until(ctx, electionLook, func() (bool, error) {
		if f.m.office.holder() != nil {
			return true, nil
		}
		if !f.m.node.Leads() {
			return false, cluster.Errorf(cluster.CodeNoQuorum, "this node was elected, and lost its office before its map was published").
				WithHint("gnt-cluster getmaster tells who is master; the command may be run again")
		}
		return false, nil
	})
	if err == nil {
		f.did("elected, and in office")
	}
	return err
}

// handOver gives leadership to another candidate, which gets a vote first if it
// has none.
func (f *failover) handOver(ctx context.Context, ref string) error {
	l := f.m.office.holder()
	if l == nil {
		return f.m.Ready()
	}
	st := l.node.State()
	to := rapi.Find(st, ref)
	if to == nil {
		return cluster.Errorf(cluster.CodeNotFound, "Node '%.64s' not known", ref)
	}
	if err := f.begin(st, to); err != nil {
		return err
	}
	if !to.Flags.MasterCandidate {
		return cluster.Errorf(cluster.CodeConflict, "Node %s is not among the nodes marked as master candidates; only these can become master", to.Name).
			WithHint("gnt-node modify --master-candidate=yes %s", to.Name)
	}
	select {
	case l.moving <- struct{}{}:
		defer func() { <-l.moving }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := f.giveVote(ctx, l, to); err != nil {
		return err
	}
	if err := l.node.Transfer(ctx, l.serverID(to.UUID)); err != nil {
		return cluster.Errorf(cluster.CodeUnavailable, "node %s did not take leadership over: %v", to.Name, err).
			WithHint("this node leads on, or another one does: gnt-cluster getmaster; the command may be run again")
	}
	f.did("handed leadership to %s", to.Name)
	return f.awaitSuccessor(ctx, to)
}

// giveVote takes the steps that the planner wants before the handover.
func (f *failover) giveVote(ctx context.Context, l *leader, to *state.Node) error {
	return f.until(ctx, handoverPause, func() (bool, error) {
		if l.unpublished() {
			return false, nil
		}
		step, ready := roles.NextHandover(l.votingNow(ctx, to.UUID), to.UUID)
		switch {
		case ready:
			return true, nil
		case step.Blocked != "":
			return false, cluster.Errorf(cluster.CodeConflict, "Node %s cannot become master now: %s", to.Name, step.Blocked)
		case step.Kind == roles.VoterNone:
			return false, nil
		}
		f.did("%s %s in raft", step.Kind, to.Name)
		return false, l.takeStep(ctx, step)
	})
}

// awaitSuccessor waits until the map that is in force here names the new
// master.
func (f *failover) awaitSuccessor(ctx context.Context, to *state.Node) error {
	old := f.m.self.node
	return f.until(ctx, electionLook, func() (bool, error) {
		switch now := f.m.keeper.View().Map.Master; {
		case now == to.UUID:
			return true, nil
		case now != old:
			return false, cluster.Errorf(cluster.CodeUnavailable, "%s became master instead", nameIn(f.m.node.State(), now))
		}
		return false, nil
	})
}

// until asks again and again, until the answer is yes or an error.
func (f *failover) until(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
