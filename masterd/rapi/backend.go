package rapi

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// Backend is the candidate that the API speaks for. All methods may be called
// concurrently.
type Backend interface {
	// State returns the newest applied state, or an error when this node has
	// none.
	State() (*state.State, error)
	// Watch returns a channel that closes at the next change of State.
	Watch() <-chan struct{}
	// Ready returns nil when this node is the master in office, else a
	// *cluster.Error: not_master, whose Node is the master's name, or no_quorum.
	Ready() error
	// Submit queues a job of opcodes, with a summary for each.
	Submit(ctx context.Context, ops []json.RawMessage, summary []string, actor, request string) (jobID int64, err error)
	// Cancel asks for the end of a job; a conflict is reported for one that has
	// changed something, or has ended. What became of it the state tells later.
	Cancel(ctx context.Context, jobID int64, actor, request string) error
	// Archive forgets those of the jobs that have ended.
	Archive(ctx context.Context, jobIDs []int64, actor, request string) error
	// DrainQueue makes the queue refuse, or take, new jobs.
	DrainQueue(ctx context.Context, drained bool, actor, request string) error
	// Change commits a change that is no job.
	Change(ctx context.Context, kind string, body any, actor, request string) error
	// Admit makes an admission string.
	Admit(ctx context.Context, spec AdmitSpec) (AdmitResult, error)
	// RevokeAdmission makes an admission string worthless.
	RevokeAdmission(ctx context.Context, id cluster.UUID, actor, request string) error
	// Failover makes another candidate the master, and returns when that is in
	// office.
	Failover(ctx context.Context, to string, by audit.Caller) (rpc.FailoverReply, error)
	// Audit returns the end of this node's audit log, as audit.Tail does.
	Audit(lines int, since time.Time) (list []json.RawMessage, more bool, err error)
	// Nodes tells what each node last confirmed to this master.
	Nodes() []NodeStatus
	// Inspect asks a node now.
	Inspect(ctx context.Context, node cluster.NodeID) (rpc.NodeState, error)
	// Self is this node's name.
	Self() cluster.Name
}

// AdmitSpec says which node may join.
type AdmitSpec struct {
	Name      cluster.Name
	Addresses []netip.Addr // where it may come from; none: anywhere
	TTL       time.Duration
	Node      cluster.NodeID // of a node that is added again; zero: a new one
	Actor     string
	Request   string
	pki.Wishes
}

// Record says which admission record is wanted.
func (s AdmitSpec) Record() pki.RecordSpec {
	return pki.RecordSpec{Name: s.Name, Addresses: s.Addresses, Node: s.Node, TTL: s.TTL, Actor: s.Actor, Wishes: s.Wishes}
}

// AdmitResult is an admission string and its record.
type AdmitResult struct {
	Token  pki.Token
	Record pki.Record
}

// NodeStatus is what a node last confirmed. The zero Version means nothing.
type NodeStatus struct {
	Node       cluster.NodeID
	Version    cluster.Version
	Hash       cluster.Digest
	Age        time.Duration // since it was confirmed
	Fresh      bool
	Reachable  bool
	Problem    string    // why the last call failed
	LeaseUntil time.Time // zero: unknown
	SSHUntil   time.Time
}
