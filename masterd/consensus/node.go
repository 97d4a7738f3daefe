package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// Timing holds raft's times. They decide how soon a dead master is replaced,
// and how long a pause of a healthy one goes unnoticed.
type Timing struct {
	Heartbeat   time.Duration // silence before a follower asks for an election
	Election    time.Duration
	LeaderLease time.Duration // a leader without a majority for so long steps down
	Commit      time.Duration // upper bound of a follower's lag in idle times
	Hung        time.Duration // a leader that commits nothing for so long is silenced
}

// DefaultTiming replaces a killed master in about a second.
var DefaultTiming = Timing{
	Heartbeat:   600 * time.Millisecond,
	Election:    600 * time.Millisecond,
	LeaderLease: 400 * time.Millisecond,
	Commit:      50 * time.Millisecond,
	Hung:        5 * time.Second,
}

// outstanding is how many proposals may wait for their commit. Raft writes those
// that wait for the disk in one go.
const outstanding = 64

// logCache is how many entries are kept opened in memory for the followers.
const logCache = 128

// Config says what a Node needs.
type Config struct {
	ID        raft.ServerID
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Sender    Sender
	Hooks     Hooks
	Timing    Timing // zero: DefaultTiming
	Logger    hclog.Logger
	// Fatal is called when going on would break a promise: an unknown command,
	// or a disk that hangs under the leader. It must not block.
	Fatal func(error)
}

// Node is this candidate's part in raft. All methods may be called
// concurrently.
type Node struct {
	raft      *raft.Raft
	transport *Transport
	fsm       *fsm
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	id        raft.ServerID
	timing    Timing
	fatal     func(error)
	log       hclog.Logger
	handing   atomic.Int32 // leadership is being handed over

	proposing *semaphore.Weighted // held by whoever proposes, see Propose
	closing   atomic.Bool         // nothing more is proposed
	watchdog  sync.WaitGroup
	stop      context.CancelFunc
}

// New starts raft on the given stores.
func New(cfg Config) (*Node, error) {
	if cfg.Timing == (Timing{}) {
		cfg.Timing = DefaultTiming
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &Node{
		transport: NewTransport(cfg.ID, cfg.Sender), fsm: newFSM(cfg.Fatal),
		stable: cfg.Stable, snapshots: cfg.Snapshots, id: cfg.ID, timing: cfg.Timing, fatal: cfg.Fatal, log: cfg.Logger, stop: stop, proposing: semaphore.NewWeighted(outstanding),
	}
	n.transport.hooks = cfg.Hooks
	logs, err := raft.NewLogCache(logCache, cfg.Logs)
	if err != nil {
		stop()
		return nil, fmt.Errorf("start raft: %w", err)
	}
	r, err := raft.NewRaft(raftConfig(cfg), n.fsm, logs, cfg.Stable, cfg.Snapshots, n.transport)
	if err != nil {
		stop()
		return nil, fmt.Errorf("start raft: %w", err)
	}
	n.raft = r
	n.watchdog.Go(func() { n.watchDisk(ctx) })
	return n, nil
}

func raftConfig(cfg Config) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = cfg.ID
	c.HeartbeatTimeout = cfg.Timing.Heartbeat
	c.ElectionTimeout = cfg.Timing.Election
	c.LeaderLeaseTimeout = cfg.Timing.LeaderLease
	c.CommitTimeout = cfg.Timing.Commit
	c.MaxAppendEntries = 16
	c.TrailingLogs = 256
	c.SnapshotThreshold = 512
	c.SnapshotInterval = 2 * time.Minute
	c.ShutdownOnRemove = false // the candidate map decides who takes part
	c.NoLegacyTelemetry = true
	c.Logger = cfg.Logger
	return c
}

// Close leaves raft; the log stays.
func (n *Node) Close() error {
	n.stop()
	_ = n.transport.Close() // only cancels
	end := time.Now().Add(settleLimit)
	n.quiesce(end)
	n.settle(end)
	err := n.raft.Shutdown().Error()
	n.watchdog.Wait()
	return err
}

// How long Close waits for entries that are being committed or applied.
const (
	settleLimit = 200 * time.Millisecond
	settlePause = time.Millisecond
)

// quiesce lets nothing more be proposed, and waits for the answers to what is.
func (n *Node) quiesce(end time.Time) {
	n.closing.Store(true)
	ctx, cancel := context.WithDeadline(context.Background(), end)
	defer cancel()
	if n.proposing.Acquire(ctx, outstanding) == nil {
		n.proposing.Release(outstanding)
	}
}

// settle lets what is committed be applied. Raft never answers those who wait
// for entries that its state machine has not taken when it shuts down. Only a
// leader can still commit: a follower hears of no commit after its transport
// has closed, and would wait in vain while its keys are to be destroyed.
func (n *Node) settle(end time.Time) {
	// why-sleep: raft tells nobody when it has applied an entry.
	for ; time.Now().Before(end); time.Sleep(settlePause) {
		s := n.raft.Stats()
		settled := s["last_log_index"] == s["commit_index"] || n.raft.State() != raft.Leader
		if settled && s["fsm_pending"] == "0" && s["applied_index"] == s["commit_index"] {
			return
		}
	}
}

// ID returns this server's name.
func (n *Node) ID() raft.ServerID { return n.id }

// State returns what this node has applied.
func (n *Node) State() *state.State { return n.fsm.current.Load() }

// Watch returns a channel that closes at the next change of State.
func (n *Node) Watch() <-chan struct{} { return n.fsm.watch() }

// Term returns raft's current term.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// LastIndex returns the index of the newest entry on disk.
func (n *Node) LastIndex() uint64 { return n.raft.LastIndex() }

// Leads reports whether this node is leader.
func (n *Node) Leads() bool { return n.raft.State() == raft.Leader }

// Leader returns who leads as far as this node knows, "" when nobody does.
func (n *Node) Leader() raft.ServerID {
	_, id := n.raft.LeaderWithID()
	return id
}

// Leadership delivers true when this node becomes leader and false when it
// stops; only the newest value is kept.
func (n *Node) Leadership() <-chan bool { return n.raft.LeaderCh() }

// Handle gives a message to raft and returns the encoded answer.
func (n *Node) Handle(ctx context.Context, m *Message) ([]byte, error) {
	switch c := m.cmd.(type) {
	case *raft.AppendEntriesRequest:
		n.bridge(c)
	case *raft.RequestVoteRequest:
		if answer, ok, err := n.yield(c); ok {
			return answer, err
		}
	}
	return n.transport.Handle(ctx, m)
}

// bridge checks for raft that new entries follow the newest snapshot. Raft
// looks for the entry before them in its log only, where the snapshot's last
// one is not. So a follower that stored the first entries after a snapshot, and
// whose answer was lost, would be sent that snapshot again and again, for ever.
func (n *Node) bridge(a *raft.AppendEntriesRequest) {
	if a.PrevLogEntry == 0 || a.PrevLogEntry == n.raft.LastIndex() || len(a.Entries) == 0 || a.Entries[0].Index != a.PrevLogEntry+1 {
		return
	}
	metas, err := n.snapshots.List()
	if err != nil || len(metas) == 0 || metas[0].Index != a.PrevLogEntry || metas[0].Term != a.PrevLogTerm {
		return // raft will say what is missing
	}
	a.PrevLogEntry, a.PrevLogTerm = 0, 0 // nothing is left to compare
	a.LeaderCommitIndex = min(a.LeaderCommitIndex, a.Entries[len(a.Entries)-1].Index)
}

// Propose commits one command that is derived from the newest state and
// returns when this node has applied it. Only the leader can.
//
// A command that may yield a map is alone: the map is derived from the state
// that all commands before it leave. Those about jobs yield none and mean the
// same behind one another, so many may be on their way at once. Whether one of
// them fits is decided when it is applied, by every replica alike; what Propose
// checks beforehand only keeps from the log what is in vain.
func (n *Node) Propose(ctx context.Context, kind string, body any, meta state.Meta) (state.Result, error) {
	share := int64(outstanding)
	if state.AboutJobs(kind) {
		share = 1
	}
	if err := n.proposing.Acquire(ctx, share); err != nil {
		return state.Result{}, noQuorum("commit "+kind, err)
	}
	defer n.proposing.Release(share)
	if n.closing.Load() {
		return state.Result{}, noQuorum("commit "+kind, raft.ErrRaftShutdown)
	}
	cmd, err := state.Propose(n.State(), kind, body, meta)
	if err != nil {
		return state.Result{}, err
	}
	data, err := state.EncodeCommand(cmd)
	if err != nil {
		return state.Result{}, fmt.Errorf("encode %s: %w", kind, err)
	}
	f := n.raft.Apply(data, n.timing.Hung)
	if err := wait(ctx, f); err != nil {
		return state.Result{}, noQuorum("commit "+kind, err)
	}
	result, ok := f.Response().(state.Result)
	if !ok {
		return state.Result{}, fmt.Errorf("commit %s: raft answered %T", kind, f.Response())
	}
	if result.Err != nil {
		return result, result.Err
	}
	return result, nil
}

// Barrier returns when every entry committed so far is applied here, and
// tells the followers at once what is committed.
func (n *Node) Barrier(ctx context.Context) error {
	return noQuorum("raft barrier", wait(ctx, n.raft.Barrier(n.timing.Hung)))
}

// Kick makes the followers learn of the newest commit now instead of with the
// next heartbeat; it does not wait.
func (n *Node) Kick() { n.raft.Barrier(n.timing.Hung) }

// VerifyLeader asks a majority whether this node still leads.
func (n *Node) VerifyLeader(ctx context.Context) error {
	return noQuorum("verify leadership", wait(ctx, n.raft.VerifyLeader()))
}

// noQuorum gives raft's errors the code that a caller acts on.
func noQuorum(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return cluster.Errorf(cluster.CodeNotMaster, "%s: this node is not, or no longer, the master", what)
	case errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, context.DeadlineExceeded):
		return cluster.Errorf(cluster.CodeNoQuorum, "%s: no majority of the voters answered: %v", what, err)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

// wait waits for a raft future, or for the end of ctx; the entry may then
// still be committed.
func wait(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // ends when raft answers, at the latest at shutdown
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
