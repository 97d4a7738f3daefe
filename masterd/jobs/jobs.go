// Package jobs runs the replicated jobs of the cluster on the elected master.
//
// A job is a record in the replicated state. The commit that changes the
// cluster also notes, in the same entry, which steps are left, so that the next
// master resumes a job exactly where this one died: nothing is done twice that
// must not be, and nothing is left half done. Jobs run one at a time, in the
// order of their numbers. One that is to be canceled is, unless it has committed
// something; then it goes on to the end of its opcode.
//
// A Runner belongs to one term of one master; Run is called once.
package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/task"
	"rolekey/masterd/hooks"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/masterd/verify"
	"rolekey/rpc"
)

// Spread says how far a change has got.
type Spread struct {
	Done, All   int // nodes that confirmed it, of those that are not offline
	Unreachable []state.Unreachable
	Problems    []string // of nodes that did confirm it: node and text
}

// Cluster is what jobs need of the master.
type Cluster interface {
	State() *state.State
	Watch() <-chan struct{}
	Now() time.Time
	// Change commits a command and publishes the map that it yields.
	Change(ctx context.Context, kind string, body any, actor, request string) (Spread, error)
	// Republish delivers the newest map again and reports who holds it.
	Republish(ctx context.Context) (Spread, error)
	// Redistribute does that with the whole roster, and has the nodes rewrite
	// their derived files.
	Redistribute(ctx context.Context) (Spread, error)
	// Dismiss delivers the newest map to a node that has been removed.
	Dismiss(ctx context.Context, gone *state.Node) error
	// Voting tells who votes in the map and in raft, and who answers now.
	Voting(ctx context.Context) roles.View
	// Answers asks a node for its version, and returns why there is no answer.
	Answers(ctx context.Context, node cluster.NodeID) error
	// AnswersAt does the same at an address that may not be the node's yet.
	AnswersAt(ctx context.Context, node cluster.NodeID, addr netip.Addr) error
	KeyCreate(ctx context.Context, node cluster.NodeID, r rpc.KeyCreateRequest) (rpc.CandidateKeys, error)
	KeyDestroy(ctx context.Context, node cluster.NodeID) (rpc.KeyDestroyReply, error)
	// SSHSettle has a node wait until logins by SSH are decided.
	SSHSettle(ctx context.Context, node cluster.NodeID, r rpc.SSHSettleRequest) (rpc.SSHSettleReply, error)
	// Inspect asks a node what it is like now.
	Inspect(ctx context.Context, node cluster.NodeID) (rpc.NodeState, error)
	// CertPrepare and CertInstall have a node make its next keys, and use the
	// certificates that were issued for them.
	CertPrepare(ctx context.Context, node cluster.NodeID, r rpc.CertPrepareRequest) (rpc.CertPrepareReply, error)
	CertInstall(ctx context.Context, node cluster.NodeID, r rpc.CertInstallRequest) (rpc.CertInstallReply, error)
	// Repair has a node put its own files right.
	Repair(ctx context.Context, node cluster.NodeID) (rpc.RepairReply, error)
	// Verify checks the cluster, tells each line of its report, and returns what
	// it found.
	Verify(ctx context.Context, op json.RawMessage, tell func(line string)) (verify.Report, error)
	// Hooks has nodes run the administrator's scripts.
	Hooks(ctx context.Context, c hooks.Call) hooks.Report
}

// Runner runs jobs.
type Runner struct {
	c   Cluster
	log *zap.Logger
}

// New makes a runner.
func New(c Cluster, log *zap.Logger) *Runner { return &Runner{c: c, log: log} }

// Run works until ctx ends, which is when leadership ends. An error means that
// this master could not even record what became of a job.
func (r *Runner) Run(ctx context.Context) error {
	tasks := task.New(ctx)
	tasks.Go("run jobs", r.work)
	tasks.Go("cancel jobs", r.bury)
	if err := tasks.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (r *Runner) work(ctx context.Context) error {
	for {
		changed := r.c.Watch()
		if j := next(r.c.State()); j != nil {
			if err := r.one(ctx, j); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// next returns the oldest job that has not ended, and may go on.
func next(s *state.State) *state.Job {
	for j := range s.ActiveJobs() {
		if !doomed(j) {
			return j
		}
	}
	return nil
}

// one runs a job to its end, or to the end of this master.
func (r *Runner) one(ctx context.Context, j *state.Job) error {
	ctx = rpc.WithRequestID(ctx, j.RequestID)
	run := &run{c: r.c, job: j, update: state.JobUpdate{ID: j.ID}}
	wanted, stop := r.whileWanted(ctx, j.ID)
	err := run.all(wanted)
	stop()
	if ctx.Err() != nil {
		return context.Cause(ctx) // the next master resumes the job
	}
	if lost(err) {
		return fmt.Errorf("run job %d: %w", j.ID, err)
	}
	if r.gone(j.ID) {
		r.log.Info("job canceled", zap.Int64("job", j.ID), zap.Strings("summary", j.Summary))
		return nil
	}
	if err != nil && run.canceling() && !run.committed() {
		err = errCanceled
	}
	r.log.Info("job ended", zap.Int64("job", j.ID), zap.Strings("summary", j.Summary), zap.Error(err))
	if err := run.finish(ctx, err); ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}

// lost reports whether an error says that this master is none any more.
func lost(err error) bool {
	c := cluster.CodeOf(err)
	return c == cluster.CodeNotMaster || c == cluster.CodeNoQuorum
}

// run is one job under way. What it learns collects in update, which goes into
// the next commit.
type run struct {
	c      Cluster
	job    *state.Job
	update state.JobUpdate
	op     int
	dry    bool        // the opcode only says what it would do
	keep   bool        // the opcode leaves the shared SSH key as it is
	remote bool        // the opcode came over RAPI
	idle   *hooks.Idle // of the opcode's pre phase; nil: an earlier master ran it
}

// resume is what the commit notes about the steps that are left.
type resume struct {
	Op      int          `json:"op"`
	Node    state.Node   `json:"node,omitzero"` // as it was before the commit; none: it is about the cluster
	Steps   []roles.Step `json:"steps"`
	Results [][2]string  `json:"results"`
	Cert    []byte       `json:"cert,omitempty"` // of a promotion

	Retire []cluster.SSHKey `json:"retire,omitempty"` // that stepRoll takes away
	Now    bool             `json:"now,omitempty"`    // it does so without delay
	Renew  *renewal         `json:"renew,omitempty"`  // of OpClusterRenew

	voters []cluster.NodeID // the map's voters after a loss; nil: they stay
}

const stepCommitted = "committed"

func (r *run) all(ctx context.Context) error {
	r.update.OpStatus = slices.Clone(r.job.OpStatus)
	r.update.OpResult = slices.Clone(r.job.OpResult)
	for len(r.update.OpResult) < len(r.job.Ops) {
		r.update.OpResult = append(r.update.OpResult, json.RawMessage("null"))
	}
	for i := range r.job.Ops {
		if r.job.OpStatus[i].Ended() {
			continue
		}
		r.op, r.idle = i, nil
		if r.canceling() && r.left() == nil {
			return errCanceled
		}
		r.update.OpStatus[i] = state.JobRunning
		result, err := r.execute(ctx, r.job.Ops[i])
		if err != nil {
			return err
		}
		r.update.OpStatus[i], r.update.OpResult[i] = state.JobSuccess, result
	}
	return nil
}

func (r *run) execute(ctx context.Context, raw json.RawMessage) (json.RawMessage, error) {
	var op struct {
		ID       string `json:"OP_ID"`
		DryRun   bool   `json:"dry_run"`
		NoRotate bool   `json:"no_rotate"`
		RAPI     bool   `json:"rapi"`
	}
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	r.remote = op.RAPI
	if left := r.left(); left != nil {
		return r.rest(ctx, left)
	}
	do, ok := ops[op.ID]
	if !ok {
		return nil, &roles.PrereqError{Class: roles.WrongInput, Msg: fmt.Sprintf("Opcode %.64s is not known", op.ID)}
	}
	r.dry, r.keep = op.DryRun, op.NoRotate
	switch {
	case r.keep && r.remote:
		return nil, prereq(roles.WrongState, "Only root on the master may leave the shared SSH key as it is")
	case r.keep && !r.sharing():
		return nil, prereq(roles.WrongInput, "There is nothing to be left unrotated: every master candidate has an SSH key of its own")
	}
	return do(ctx, r, raw)
}

// left returns the steps of this op that an earlier master committed to.
func (r *run) left() *resume { return leftOf(r.job, r.op) }

func leftOf(j *state.Job, op int) *resume {
	if j.Step != stepCommitted {
		return nil
	}
	var left resume
	if json.Unmarshal(j.Data, &left) != nil || left.Op != op {
		return nil
	}
	return &left
}

// say appends a line to the job's log.
func (r *run) say(text string) {
	r.update.Log = append(r.update.Log, state.LogLine{Op: r.op, Text: text})
}

// ended reports whether somebody else has ended the job.
func (r *run) ended() bool {
	j := r.c.State().Jobs[r.job.ID]
	return j == nil || j.Status.Ended()
}

// flush commits what has collected so far.
func (r *run) flush(ctx context.Context) error {
	r.update.Log = newest(r.update.Log)
	u := r.update
	_, err := r.c.Change(ctx, state.KindJobUpdate, u, r.job.Actor, r.job.RequestID)
	r.drained()
	return err
}

// newest returns the lines that the state would keep: more than that may not
// fit into one entry of the log. The first of them then says how many are gone.
func newest(log []state.LogLine) []state.LogLine {
	size := 0
	for i := range log {
		at := len(log) - 1 - i
		if size += min(len(log[at].Text), state.MaxLogText); i == state.MaxLogEntries || size > state.MaxLogBytes {
			kept := slices.Clone(log[at+1:])
			kept[0].Text = fmt.Sprintf("  - NOTICE: %d earlier lines are left out: there are too many.", at+2)
			return kept
		}
	}
	return log
}

// drained forgets what a commit has carried.
func (r *run) drained() {
	u := r.update
	r.update = state.JobUpdate{ID: u.ID, OpStatus: u.OpStatus, OpResult: u.OpResult}
}

// finish records how the job ended.
func (r *run) finish(ctx context.Context, err error) error {
	r.update.Status = state.JobSuccess
	if errors.Is(err, errCanceled) { // what its earlier opcodes did stays
		r.update.Status = state.JobCanceled
		for i := r.op; i < len(r.update.OpStatus); i++ {
			r.update.OpStatus[i] = state.JobCanceled
		}
	} else if err != nil {
		r.update.Status = state.JobError
		text := err.Error()
		if p := (*roles.PrereqError)(nil); errors.As(err, &p) && p.Hint != "" {
			text += "\nhint: " + p.Hint
		}
		r.update.Error = &text
		r.update.OpResult[r.op] = failure(err)
		for i := r.op; i < len(r.update.OpStatus); i++ {
			r.update.OpStatus[i] = state.JobError
		}
	}
	ferr := r.flush(ctx)
	if ferr == nil || lost(ferr) || ctx.Err() != nil {
		return ferr
	}
	if r.ended() { // canceled meanwhile; nothing was committed
		return nil
	}
	// A master that gave up here would only begin the same job again.
	text := fmt.Sprintf("the job has ended, and what became of it cannot be recorded: %v", ferr)
	r.update = state.JobUpdate{ID: r.job.ID, Status: state.JobError, Error: &text}
	return r.flush(ctx)
}

// failure renders an error as Ganeti's opresult.
func failure(err error) json.RawMessage {
	var p *roles.PrereqError
	var veto *hooks.Abort
	result := []any{"OpExecError", []string{err.Error()}}
	switch {
	case errors.As(err, &p):
		result = []any{"OpPrereqError", []string{p.Msg, string(p.Class)}}
	case errors.As(err, &veto):
		result = []any{"HooksAbort", veto.Args()}
	}
	b, err := json.Marshal(result)
	if err != nil {
		return json.RawMessage("null")
	}
	return b
}
