package masterd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"

	"github.com/hashicorp/raft"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/buildinfo"
	"rolekey/masterd/consensus"
	"rolekey/masterd/keyserver"
	"rolekey/pki"
	"rolekey/rpc"
)

// routes registers all methods of masterd.
func (m *member) routes() {
	m.server.Handle(rpc.MethodAdmit, m.serveAdmit)
	m.server.Handle(rpc.MethodCertificate, m.serveCertificate)
	m.server.Handle(rpc.MethodHostKeys, m.serveHostKeys)
	m.server.Handle(rpc.MethodSign, m.serveSign)
	m.server.Handle(rpc.MethodRaft, m.serveRaft)
	m.server.Handle(rpc.MethodSeen, m.serveSeen)
	m.server.Handle(rpc.MethodVersion, m.serveVersion)
}

func (m *member) serveVersion(context.Context, *rpc.Request) (any, error) {
	return rpc.VersionReply{Software: buildinfo.Version(), Features: cluster.FeatureLevel, Daemon: "masterd"}, nil
}

func (m *member) serveAdmit(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.AdmitRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	call, err := callOf(q)
	if err != nil {
		return nil, err
	}
	reply, err := m.keys.Admit(ctx, call, req)
	if err != nil {
		m.auditAdmission(q, req.Request, err)
	}
	return reply, err
}

// auditAdmission writes down that a machine was not admitted. What it calls
// itself is only its own word.
func (m *member) auditAdmission(q *rpc.Request, request json.RawMessage, err error) {
	var body struct {
		Name   string `json:"name"`
		Record string `json:"record"`
	}
	_ = json.Unmarshal(request, &body) // that may be what was refused
	m.d.audit.Write(audit.Event{
		Act: audit.AdmissionRefused, Caller: q.Caller(), Target: body.Name, Before: audit.Values{"record": body.Record},
	}.Of(err))
}

func (m *member) serveCertificate(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.CertificateRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	call, err := callOf(q)
	if err != nil {
		return nil, err
	}
	reply, err := m.keys.Certificate(ctx, call, req)
	if call.Ended {
		m.d.audit.Write(audit.Event{Act: audit.ExpiredRenewed, Caller: q.Caller(), Op: req.Kind, Target: nodeName(m.node.State(), call.Node)}.Of(err))
	}
	return reply, err
}

func callOf(q *rpc.Request) (keyserver.Call, error) {
	exporter, err := pki.Exporter(q.TLS())
	if err != nil {
		return keyserver.Call{}, err
	}
	remote, err := netip.ParseAddrPort(q.HTTP.RemoteAddr)
	if err != nil {
		return keyserver.Call{}, err
	}
	return keyserver.Call{
		Remote: remote.Addr().Unmap(), Request: q.ID, Exporter: exporter, Node: q.Grant.Node, Pin: q.Peer().Pin, Ended: q.Grant.Ended,
	}, nil
}

func (m *member) serveSign(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.SignRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	sigs, err := m.signer.sign(ctx, q.Grant.Node, req)
	if errors.Is(err, errClockOnly) {
		return rpc.SignReply{ClockOnly: true}, nil
	}
	if err != nil {
		m.d.audit.Write(audit.Event{Act: audit.SignRefused, Caller: q.Caller(), Op: req.PayloadType, Target: req.Version.String()}.Of(err))
	}
	var reply rpc.SignReply
	if err == nil {
		reply.Signature, reply.Also = sigs[0], sigs[1:]
	}
	return reply, err
}

// serveRaft passes a message on. Raft itself believes any peer, so what only a
// leader or somebody who wants to become one says is taken from voters alone.
func (m *member) serveRaft(ctx context.Context, q *rpc.Request) (any, error) {
	c := m.keeper.View().Map.Candidate(q.Grant.Node)
	if !m.votes(c) {
		return nil, cluster.Errorf(cluster.CodeNotMaster, "raft messages are taken from voters only")
	}
	message, err := readMessage(consensus.ServerID(c.UUID, c.Incarnation), q.Arg(), q.HTTP.Body)
	if err != nil {
		return nil, err
	}
	if term, index, ok := message.Position(); ok {
		m.seen.note(lifeOf(c), rpc.Seen{Term: term, Index: index})
	}
	answer, err := m.node.Handle(ctx, message)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = cluster.Errorf(cluster.CodeUnavailable, "raft did not answer in time")
	}
	return answer, err
}

// mayDepose reports whether a leader steps down on the word of a server: of
// voters only, as for messages.
func (m *member) mayDepose(id raft.ServerID) bool { return m.votes(m.candidate(id)) }

// votes reports whether an entry of the map is that of a voter, in the map or in
// raft. The map goes ahead when voters leave, and until raft has followed it is
// raft's voters that elect: one of them may hold what was committed last. Raft
// goes ahead when voters come; to a node that has not heard of it yet, such a
// leader proves itself by the map that names it master.
func (m *member) votes(c *candmap.Candidate) bool {
	if c != nil && m.d.evicts(c.UUID) {
		return false
	}
	if c == nil || c.Voter || c.UUID == m.keeper.View().Map.Master {
		return c != nil
	}
	n := m.started.Load() // raft asks before New has returned
	return n != nil && n.Votes(consensus.ServerID(c.UUID, c.Incarnation))
}

// confirmed notes what a follower says that it holds: one that answers only
// would otherwise leave no trace, and a restored copy of it pass for the
// original.
func (m *member) confirmed(id raft.ServerID, term, index uint64) {
	if c := m.candidate(id); c != nil {
		m.seen.note(lifeOf(c), rpc.Seen{Term: term, Index: index})
	}
}

// candidate returns the map's entry of a raft server, or nil.
func (m *member) candidate(id raft.ServerID) *candmap.Candidate {
	node, incarnation, err := consensus.ParseServerID(id)
	if err != nil {
		return nil
	}
	if c := m.keeper.View().Map.Candidate(node); c != nil && c.Incarnation == incarnation {
		return c
	}
	return nil
}

// readMessage bounds what is read by what the message may need: only a snapshot
// is large.
func readMessage(from raft.ServerID, name string, body io.Reader) (*consensus.Message, error) {
	limit := consensus.MaxBody(name)
	b, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, cluster.Errorf(cluster.CodeTooLarge, "raft message %.40q is over %d bytes", name, limit)
	}
	return consensus.Decode(from, name, b)
}

func (m *member) serveSeen(_ context.Context, q *rpc.Request) (any, error) {
	node, err := cluster.ParseUUID(q.Arg())
	if err != nil || node != q.Grant.Node {
		return nil, cluster.Errorf(cluster.CodeIdentityMismatch, "a candidate may ask about itself only")
	}
	reply := rpc.SeenReply{Last: m.node.LastIndex(), Evicted: m.d.evictedNodes()}
	if c := m.keeper.View().Map.Candidate(node); c != nil {
		reply.Seen = m.seen.of(lifeOf(c))
	}
	return reply, nil
}
