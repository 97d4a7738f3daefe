package rpc

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"rolekey/cluster"
	"rolekey/internal/audit"
)

// A peer may cause this many audit lines, so that none can fill the disk or
// push the others' lines out of it. The rest is counted.
const (
	auditRate  = rate.Limit(5)
	auditBurst = 100
	auditPeers = 4096 // remembered at once
)

// auditKey is whom audit lines are counted for: the certificate that was
// proven, or else the address.
type auditKey struct {
	ip     netip.Addr
	digest cluster.Digest
}

type auditState struct {
	limiter    *rate.Limiter
	suppressed int64
}

// auditor counts refusals by reason, of which there are only as many as there
// are codes, and decides which are written down.
type auditor struct {
	mu    sync.Mutex
	count map[string]int64
	peers map[auditKey]*auditState
}

func newAuditor() *auditor {
	return &auditor{count: map[string]int64{}, peers: map[auditKey]*auditState{}}
}

func (a *auditor) add(reason cluster.Code) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count[string(reason)]++
}

// admit counts a refusal. It reports whether to write it down, and how many of
// the same peer were not since the last one that was.
func (a *auditor) admit(reason cluster.Code, key auditKey, now time.Time) (suppressed int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count[string(reason)]++
	s := a.peers[key]
	if s == nil {
		if len(a.peers) >= auditPeers {
			clear(a.peers)
		}
		s = &auditState{limiter: rate.NewLimiter(auditRate, auditBurst)}
		a.peers[key] = s
	}
	if !s.limiter.AllowN(now, 1) {
		s.suppressed++
		return 0, false
	}
	suppressed, s.suppressed = s.suppressed, 0
	return suppressed, true
}

// AuditTo returns what writes refusals into an audit log.
func AuditTo(log *audit.Log) func(Refusal) {
	return func(r Refusal) {
		log.Write(audit.Event{
			Act: audit.RPCRefused, Op: r.Method, Count: r.Suppressed,
			Caller: audit.Caller{PeerNode: r.PeerNode, PeerDigest: r.PeerDigest, Remote: r.Remote, RequestID: r.RequestID},
		}.Of(&cluster.Error{Code: r.Reason}))
	}
}

// Served is the audit record of a call that changed this node.
type Served struct {
	audit.Caller
	Method string
	Stamp  Stamp
}

// Caller says who made a call, for the audit.
func (q *Request) Caller() audit.Caller {
	return audit.Caller{PeerNode: q.Grant.Node, PeerDigest: q.Grant.Digest, Remote: q.conn.RemoteAddr().String(), RequestID: q.ID}
}

// LocalCaller says who made a local call, for the audit.
func LocalCaller(r *http.Request, request string) audit.Caller {
	c := audit.Caller{RequestID: request}
	if uid, ok := LocalUID(r.Context()); ok {
		c.UID, c.Actor = &uid, LocalActor(uid)
	}
	return c
}

// LocalActor names who made a local call, for jobs and the audit.
func LocalActor(uid uint32) string {
	if uid != 0 {
		return fmt.Sprintf("uid %d (local socket)", uid)
	}
	return "root (local socket)"
}

// Refusals returns the number of refusals by reason since the start.
func (s *Server) Refusals() map[string]int64 {
	s.auditor.mu.Lock()
	defer s.auditor.mu.Unlock()
	return maps.Clone(s.auditor.count)
}

// audit leaves a trace of a refusal.
func (s *Server) audit(c *conn, r Refusal) {
	key := auditKey{ip: c.ip}
	if c.peer.HasCert {
		key = auditKey{digest: c.peer.Digest}
	}
	var ok bool
	if r.Suppressed, ok = s.auditor.admit(r.Reason, key, s.cfg.Now()); !ok {
		return
	}
	r.Remote = c.RemoteAddr().String()
	fields := []zap.Field{
		zap.String("reason", string(r.Reason)), zap.String("peer_digest", orNone(r.PeerDigest)), zap.String("peer_node", orNone(r.PeerNode)),
		zap.String("method", r.Method), zap.String("remote", r.Remote), zap.String("request_id", r.RequestID),
	}
	if r.Suppressed > 0 {
		fields = append(fields, zap.Int64("suppressed", r.Suppressed))
	}
	s.log.Warn("rpc refused", fields...)
	if s.cfg.Audit != nil {
		s.cfg.Audit(r)
	}
}

// orNone returns "" for what is not known.
func orNone(v interface {
	IsZero() bool
	String() string
},
) string {
	if v.IsZero() {
		return ""
	}
	return v.String()
}
