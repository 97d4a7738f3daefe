// Package rapitest is a candidate for tests of RAPI and of the commands: a
// replicated state without raft, behind rapi.Backend. What becomes of a job is
// up to the test.
//
// A Backend may be used concurrently; its fields are set while nobody asks.
package rapitest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/paths"
	"rolekey/masterd/jobs"
	"rolekey/masterd/rapi"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
	"rolekey/rpc"
)

// Backend implements rapi.Backend.
type Backend struct {
	// OnSubmit says what becomes of a job; nil: it stays queued.
	OnSubmit func(id int64, op map[string]any)
	// SubmitErr is what Submit answers, after OnRefuse; nil: all is well.
	SubmitErr error
	OnRefuse  func()
	// Inspected is what Inspect answers; a node that is not in it is silent.
	Inspected map[cluster.NodeID]rpc.NodeState
	// AuditLog is the file that Audit reads.
	AuditLog string

	mu        sync.Mutex
	lab       *statetest.Lab
	changed   chan struct{}
	stateErr  error
	readyErr  error
	confirmed []rapi.NodeStatus
}

// New makes the candidate node1.lab.test of a cluster of so many nodes, which
// is its master.
func New(tb statetest.TB, nodes int) *Backend {
	b := &Backend{lab: statetest.New(tb), changed: make(chan struct{})}
	for i := 2; i <= nodes; i++ {
		b.lab.Add(i)
	}
	return b
}

// Do applies a command that must be accepted.
func (b *Backend) Do(kind string, body any) state.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.notify()
	return b.lab.Do(kind, body)
}

// Promote makes node i a candidate.
func (b *Backend) Promote(i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.notify()
	b.lab.Promote(i)
}

// Record returns an open admission record for node i under a name.
func (b *Backend) Record(i int, name cluster.Name) pki.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.lab.Record(i)
	r.Name = name
	return r
}

// Confirm sets what the nodes last confirmed.
func (b *Backend) Confirm(status ...rapi.NodeStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.confirmed = status
}

// Fail sets what State and Ready answer; nil: all is well.
func (b *Backend) Fail(state, ready error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.notify()
	b.stateErr, b.readyErr = state, ready
}

func (b *Backend) notify() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Now is the time of the last command.
func (b *Backend) Now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lab.Now
}

// State implements rapi.Backend.
func (b *Backend) State() (*state.State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lab.S, b.stateErr
}

// Watch implements rapi.Backend.
func (b *Backend) Watch() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// Ready implements rapi.Backend.
func (b *Backend) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.readyErr
}

// Submit implements rapi.Backend.
func (b *Backend) Submit(_ context.Context, ops []json.RawMessage, summary []string, _, _ string) (int64, error) {
	if b.SubmitErr != nil {
		b.OnRefuse()
		return 0, b.SubmitErr
	}
	res, err := b.try(state.KindJobSubmit, state.JobSubmit{Ops: ops, Summary: summary})
	if err == nil && b.OnSubmit != nil {
		var op map[string]any
		if err := json.Unmarshal(ops[0], &op); err != nil {
			return 0, err
		}
		b.OnSubmit(res.JobID, op)
	}
	return res.JobID, err
}

func (b *Backend) try(kind string, body any) (state.Result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.notify()
	return b.lab.Try(kind, body)
}

// Cancel implements rapi.Backend. A job that is queued is canceled at once;
// what becomes of another one is up to the test.
func (b *Backend) Cancel(_ context.Context, id int64, _, _ string) error {
	s, err := b.State()
	if err != nil {
		return err
	}
	if err := jobs.Cancelable(s, id); err != nil {
		return err
	}
	update := jobs.CancelingUpdate(id)
	if s.Jobs[id].Status == state.JobQueued {
		update.Status = state.JobCanceled
	}
	_, err = b.try(state.KindJobUpdate, update)
	return err
}

// DrainQueue implements rapi.Backend.
func (b *Backend) DrainQueue(_ context.Context, drained bool, _, _ string) error {
	_, err := b.try(state.KindClusterChange, state.ClusterChange{QueueDrained: &drained})
	return err
}

// Change implements rapi.Backend.
func (b *Backend) Change(_ context.Context, kind string, body any, _, _ string) error {
	_, err := b.try(kind, body)
	return err
}

// Archive implements rapi.Backend.
func (b *Backend) Archive(_ context.Context, ids []int64, _, _ string) error {
	_, err := b.try(state.KindJobArchive, state.JobArchive{IDs: ids})
	return err
}

// Admit implements rapi.Backend.
func (b *Backend) Admit(_ context.Context, spec rapi.AdmitSpec) (rapi.AdmitResult, error) {
	rec, seed, err := pki.NewRecord(spec.Record(), b.Now())
	if err != nil {
		return rapi.AdmitResult{}, err
	}
	if _, err := b.try(state.KindAdmissionCreate, state.AdmissionCreate{Record: rec}); err != nil {
		return rapi.AdmitResult{}, err
	}
	s, err := b.State()
	if err != nil {
		return rapi.AdmitResult{}, err
	}
	token, err := pki.NewToken(pki.TokenFields{
		Cluster: s.Cluster.UUID, Record: rec.ID, Name: rec.Name, MapPin: s.Head().Hash, Seed: seed,
		Candidates: []netip.AddrPort{netip.AddrPortFrom(statetest.Addr(1), 1812)},
	})
	return rapi.AdmitResult{Token: token, Record: rec}, err
}

// RevokeAdmission implements rapi.Backend.
func (b *Backend) RevokeAdmission(_ context.Context, id cluster.UUID, _, _ string) error {
	_, err := b.try(state.KindAdmissionRevoke, state.AdmissionRevoke{ID: id})
	return err
}

// Failover implements rapi.Backend. The office stays where it is: only the answer
// says otherwise.
func (b *Backend) Failover(_ context.Context, to string, by audit.Caller) (rpc.FailoverReply, error) {
	s, err := b.State()
	if err != nil {
		return rpc.FailoverReply{}, err
	}
	n := rapi.Find(s, to)
	if n == nil || by.Actor == "" || by.RequestID == "" {
		return rpc.FailoverReply{}, cluster.Errorf(cluster.CodeNotFound, "Node '%s' not known", to)
	}
	return rpc.FailoverReply{Master: n.Name, Previous: b.Self(), Version: s.Head().Version}, nil
}

// Audit implements rapi.Backend.
func (b *Backend) Audit(lines int, since time.Time) ([]json.RawMessage, bool, error) {
	return audit.Tail(b.AuditLog, lines, since)
}

// Nodes implements rapi.Backend.
func (b *Backend) Nodes() []rapi.NodeStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.confirmed
}

// Inspect implements rapi.Backend.
func (b *Backend) Inspect(_ context.Context, node cluster.NodeID) (rpc.NodeState, error) {
	s, ok := b.Inspected[node]
	if !ok {
		return s, cluster.Errorf(cluster.CodeUnavailable, "the node does not answer")
	}
	return s, nil
}

// Self implements rapi.Backend.
func (b *Backend) Self() cluster.Name { return statetest.Name(1) }

// Serve serves a handler on a listener to this user until the test ends.
func Serve(tb testing.TB, l net.Listener, h http.Handler) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rpc.ServeLocal(ctx, l, h) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
			tb.Errorf("serve: %v", err)
		}
	})
}

// ServeUnix serves a handler on a socket.
func ServeUnix(tb testing.TB, path string, h http.Handler) {
	tb.Helper()
	l, err := paths.ListenUnix(path, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	Serve(tb, l, h)
}
