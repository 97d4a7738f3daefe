package consensus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/masterd/state"
)

// Limits and times of the transport.
const (
	messageTimeout  = 2 * time.Second // one AppendEntries, vote or TimeoutNow
	snapshotTimeout = 60 * time.Second
	maxSnapshot     = state.MaxSnapshot // bytes of a snapshot, which travels in one message
)

// errClosed is what raft sees once the transport is closed for good.
var errClosed = errors.New("raft transport is closed")

// Sender carries one encoded message to a peer and returns the encoded
// answer. Package masterd implements it on the RPC gate, which proves who the
// peer is.
type Sender interface {
	Send(ctx context.Context, to raft.ServerID, message string, body []byte) ([]byte, error)
}

// Hooks let the candidate map have its say in raft. They must not block; nil
// ones do nothing.
type Hooks struct {
	// MayDepose reports whether a leader steps down when the server answers with
	// a higher term. Raft itself believes anybody whom it sends the log.
	MayDepose func(raft.ServerID) bool
	// Confirmed is told that a server holds the log up to an entry, on its disk,
	// and knows of the term.
	Confirmed func(id raft.ServerID, term, index uint64)
}

// Transport is a raft.Transport on the RPC gate. It does not pipeline, so that
// the gate sees every message and a revoked peer's next one is refused. All
// methods may be called concurrently.
type Transport struct {
	local  raft.ServerID
	sender Sender
	hooks  Hooks // set before raft starts
	inbox  chan raft.RPC

	heartbeatMu sync.RWMutex
	heartbeat   func(raft.RPC)

	matchMu sync.Mutex
	match   map[raft.ServerID]confirmed

	ctx   context.Context // ends when the transport closes
	close context.CancelFunc
}

// confirmed is the newest entry that a peer said it holds, and in which term.
// An answer that was asked for in an earlier life of the peer does not count.
type confirmed struct{ life, term, index uint64 }

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// NewTransport makes a transport for the server named local.
func NewTransport(local raft.ServerID, sender Sender) *Transport {
	ctx, cancel := context.WithCancel(context.Background())
	return &Transport{local: local, sender: sender, inbox: make(chan raft.RPC), match: map[raft.ServerID]confirmed{}, ctx: ctx, close: cancel}
}

// Close ends every call under way and refuses new ones, for ever. It touches
// no disk, so that a leader whose disk hangs can still be silenced.
func (t *Transport) Close() error {
	t.close()
	return nil
}

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.inbox }

// LocalAddr implements raft.Transport. An address is the server's id; the map
// says where that server is.
func (t *Transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.local) }

// EncodePeer implements raft.Transport.
func (t *Transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// DecodePeer implements raft.Transport.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// AppendEntriesPipeline implements raft.Transport by declining.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// SetHeartbeatHandler implements raft.Transport.
func (t *Transport) SetHeartbeatHandler(cb func(raft.RPC)) {
	t.heartbeatMu.Lock()
	defer t.heartbeatMu.Unlock()
	t.heartbeat = cb
}

// AppendEntries implements raft.Transport.
func (t *Transport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	before := t.confirmedBy(id)
	err := t.call(id, MessageAppendEntries, messageTimeout, wire{Message: args}, resp)
	if err == nil {
		err = t.checkTerm(id, args.Term, resp.Term)
	}
	if err == nil && resp.Success && !isHeartbeat(args) {
		t.confirm(id, confirmed{before.life, args.Term, args.PrevLogEntry + uint64(len(args.Entries))})
	}
	return err
}

// checkTerm makes an answer that would depose this leader an error, unless it
// comes from a server that may say so. Without it one hostile server that only
// receives the log could keep the cluster without a master. An honest one learns
// of terms from elected leaders, and the voters, whose word counts, know of
// these too. It can be ahead only if it lost its vote in the middle of an
// election that failed; then it follows after the next one. Answers to votes
// need no such check: raft asks voters only.
func (t *Transport) checkTerm(id raft.ServerID, own, said uint64) error {
	if said <= own || t.hooks.MayDepose == nil || t.hooks.MayDepose(id) {
		return nil
	}
	return fmt.Errorf("%s, which does not vote, claims term %d, this is %d", id, said, own)
}

func (t *Transport) confirmedBy(id raft.ServerID) confirmed {
	t.matchMu.Lock()
	defer t.matchMu.Unlock()
	return t.match[id]
}

func (t *Transport) confirm(id raft.ServerID, c confirmed) {
	t.matchMu.Lock()
	defer t.matchMu.Unlock()
	if t.match[id].life != c.life {
		return
	}
	t.match[id] = c
	if t.hooks.Confirmed != nil {
		t.hooks.Confirmed(id, c.term, c.index)
	}
}

// matched returns the newest entry that a peer confirmed to this node in the
// term. What it held in an earlier one may have been destroyed since.
func (t *Transport) matched(id raft.ServerID, term uint64) (index uint64, ok bool) {
	c := t.confirmedBy(id)
	return c.index, c.term == term
}

// forget drops what a peer confirmed: it begins anew, with an empty log.
func (t *Transport) forget(id raft.ServerID) {
	t.matchMu.Lock()
	defer t.matchMu.Unlock()
	t.match[id] = confirmed{life: t.match[id].life + 1}
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.call(id, MessageRequestVote, messageTimeout, wire{Message: args}, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.call(id, MessageRequestPreVote, messageTimeout, wire{Message: args}, resp)
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.call(id, MessageTimeoutNow, messageTimeout, wire{Message: args}, resp)
}

// InstallSnapshot implements raft.Transport. The replicated state is small, so
// a snapshot travels in one message.
func (t *Transport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if args.Size > maxSnapshot {
		return fmt.Errorf("send snapshot: %d bytes, the limit is %d", args.Size, maxSnapshot)
	}
	b, err := io.ReadAll(io.LimitReader(data, args.Size))
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if err := t.call(id, MessageInstallSnapshot, snapshotTimeout, wire{Message: args, Snapshot: b}, resp); err != nil {
		return err
	}
	return t.checkTerm(id, args.Term, resp.Term)
}

func (t *Transport) call(to raft.ServerID, message string, limit time.Duration, w wire, resp any) error {
	if t.ctx.Err() != nil {
		return errClosed
	}
	body, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode %s: %w", message, err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, limit)
	defer cancel()
	answer, err := t.sender.Send(ctx, to, message, body)
	if err != nil {
		return fmt.Errorf("send %s to %s: %w", message, to, err)
	}
	if err := json.Unmarshal(answer, resp); err != nil {
		return fmt.Errorf("decode answer to %s from %s: %w", message, to, err)
	}
	return nil
}

// Handle hands a message to raft and returns the encoded answer.
func (t *Transport) Handle(ctx context.Context, m *Message) ([]byte, error) {
	answer := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: m.cmd, RespChan: answer}
	if m.snapshot != nil {
		rpc.Reader = bytes.NewReader(m.snapshot)
	}
	if err := t.deliver(ctx, rpc); err != nil {
		return nil, err
	}
	select {
	case r := <-answer:
		if r.Error != nil {
			return nil, fmt.Errorf("%s: %w", m.name, r.Error)
		}
		return json.Marshal(r.Response)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.ctx.Done():
		return nil, errClosed
	}
}

// deliver gives heartbeats to raft's own fast path, which does not wait for
// the disk, and everything else to the inbox.
func (t *Transport) deliver(ctx context.Context, rpc raft.RPC) error {
	if t.ctx.Err() != nil {
		return errClosed
	}
	if a, ok := rpc.Command.(*raft.AppendEntriesRequest); ok && isHeartbeat(a) {
		t.heartbeatMu.RLock()
		fast := t.heartbeat
		t.heartbeatMu.RUnlock()
		if fast != nil {
			fast(rpc)
			return nil
		}
	}
	select {
	case t.inbox <- rpc:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.ctx.Done():
		return errClosed
	}
}

func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

func clip(b []byte) []byte {
	if len(b) > 80 {
		return b[:80]
	}
	return b
}
