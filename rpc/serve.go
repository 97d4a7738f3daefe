package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/gorilla/mux"
	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
)

// Handler serves a method. Its result is the answer: nil for {}, []byte for
// raw bytes, anything else as JSON. An error that is a *cluster.Error reaches
// the caller as it is.
type Handler func(ctx context.Context, q *Request) (any, error)

// Request is a call that passed the gate. It belongs to its handler.
type Request struct {
	Grant Grant         // what the caller was when the call came; Effect asks again
	Stamp Stamp         // of a mutating call
	ID    string        // for logs
	HTTP  *http.Request // its body is bounded

	method *Method
	srv    *Server
	conn   *conn
	spared bool

	deadline   time.Time
	body       *timedBody              // nil: none; guarded by conn.mu
	cancel     context.CancelCauseFunc // guarded by conn.mu
	prev, next *Request                // guarded by conn.mu
}

// Arg returns the call's argument: the path's variable, or the query parameter
// that the method names.
func (q *Request) Arg() string { return argOf(q.method, q.HTTP) }

func argOf(m *Method, r *http.Request) string {
	if name := m.variable(); name != "" {
		return mux.Vars(r)[name]
	}
	if m.Query == "" {
		return ""
	}
	return r.URL.Query().Get(m.Query)
}

// TLS returns the state of the caller's connection: admission binds its proof
// to the exporter.
func (q *Request) TLS() *tls.ConnectionState { return q.HTTP.TLS }

// Peer returns what TLS proved of the caller.
func (q *Request) Peer() Peer { return q.conn.peer }

// Decode reads the body, one JSON document without unknown fields, into v.
func (q *Request) Decode(v any) error {
	if err := decodeBody(q.HTTP, v); err != nil {
		return err
	}
	if q.method.Delivers && !q.spared {
		q.spared = true
		q.conn.spare()
	}
	return nil
}

func decodeBody(r *http.Request, v any) error {
	text, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return errTooLarge(tooLarge.Limit)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", cluster.Errorf(cluster.CodeBadFormat, "the body broke off"), err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return cluster.Errorf(cluster.CodeBadFormat, "body: %v", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return cluster.Errorf(cluster.CodeBadFormat, "body: something follows the JSON document")
	}
	return nil
}

func errTooLarge(limit int64) *cluster.Error {
	return cluster.Errorf(cluster.CodeTooLarge, "the body is larger than %d bytes", limit)
}

// Handle registers a method. It panics for what is wrong with the program: a
// daemon passes its whole table before Run.
func (s *Server) Handle(m Method, h Handler) {
	if s.served.Load() || m.Timeout <= 0 || m.Mutating && (s.cfg.Terms == nil || m.Tier != TierMaster) {
		panic("rpc: method " + m.Name + " cannot be served")
	}
	s.router.HandleFunc(m.Path, func(w http.ResponseWriter, r *http.Request) {
		s.serve(&m, h, w, r)
	}).Methods(m.Verb).Name(m.Name)
}

// serve is the gate: nothing of the body is read before the caller is judged.
func (s *Server) serve(m *Method, h Handler, w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(*conn)
	q := &Request{ID: requestID(r.Header), HTTP: r, method: m, srv: s, conn: c, deadline: time.Now().Add(m.Timeout)}
	if !c.begin(q) {
		if !c.sparing() {
			c.abort() // as Revoke will: the caller sees its connection end, not this call alone
		}
		panic(http.ErrAbortHandler) // nobody waits for words
	}
	defer c.end(q)
	view := s.cfg.View()
	q.Grant = s.classify(view, c)
	if e := q.Grant.Allow(m, view, s.fresh(m)); e != nil {
		s.refuse(w, q, e)
		return
	}
	if m.holds(q.Grant.Tier) {
		key, ok := s.slots.take(c, &q.Grant)
		if !ok {
			s.refuse(w, q, errManyCalls)
			return
		}
		defer s.slots.give(key) // not before the answer has left
	}
	out, err := s.admit(q, h, w)
	if err != nil {
		s.refuse(w, q, err)
		return
	}
	if m.Mutating && s.cfg.Served != nil {
		s.cfg.Served(Served{q.Caller(), m.Name, q.Stamp})
	}
	s.answer(w, q, out)
}

// classify judges a caller by the view and by the time of this moment: the
// handshake knew only whether the certificate held then.
func (s *Server) classify(view *candmap.View, c *conn) Grant {
	g := s.grant(view, &c.peer)
	g.until(&c.peer.Identity, s.cfg.Now())
	return g
}

// grant is Classify, but for whom local root has evicted.
func (s *Server) grant(view *candmap.View, peer *Peer) Grant {
	g := Classify(view, peer)
	if g.Tier >= TierCandidate && s.cfg.Evicted != nil && s.cfg.Evicted(g.Node) {
		g.Tier, g.Lack = TierOpen, cluster.CodeEvicted
	}
	return g
}

var errManyCalls = cluster.Errorf(cluster.CodeBusy, "too many large calls in flight, of this peer or of all that are like it").
	WithHint("repeat the call when others have ended")

// admit bounds the call and runs its handler.
func (s *Server) admit(q *Request, h Handler, w http.ResponseWriter) (out any, err error) {
	m := q.method
	if m.Mutating {
		if q.Stamp, err = ParseStamp(q.HTTP.Header.Get(StampHeader)); err != nil {
			return nil, err
		}
		if err := s.judge(q); err != nil {
			return nil, err
		}
	}
	if err := s.boundBody(q, w); err != nil {
		return nil, err
	}
	ctx := q.HTTP.Context()
	if m.Delivers {
		ctx = context.WithoutCancel(ctx) // it may be what ends its own connection
	}
	if m.Delivers || m.Mutating {
		ctx = audit.WithCaller(ctx, q.Caller())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q.conn.supervise(q, cancel)
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("rpc handler panicked", zap.String("method", m.Name), zap.Any("value", v), zap.ByteString("stack", debug.Stack()))
			err = fmt.Errorf("serve %s: panic", m.Name)
		}
	}()
	return h(&callContext{ctx, q}, q)
}

func (s *Server) boundBody(q *Request, w http.ResponseWriter) error {
	r, m := q.HTTP, q.method
	if r.ContentLength == 0 || r.Body == http.NoBody {
		return nil
	}
	limit := m.MaxBody
	if q.Grant.Tier < TierCandidate {
		limit = min(limit, s.limits.LargeBody)
	}
	if r.ContentLength > limit {
		return errTooLarge(limit)
	}
	by := time.Now().Add(s.limits.Body)
	if q.Grant.Tier >= TierCandidate && q.deadline.After(by) {
		by = q.deadline
	}
	body := &timedBody{ReadCloser: http.MaxBytesReader(w, r.Body, limit), by: by}
	r.Body = body
	q.conn.mu.Lock()
	defer q.conn.mu.Unlock()
	q.body = body
	return nil
}

func (s *Server) answer(w http.ResponseWriter, q *Request, out any) {
	s.partingHeader(w, q)
	switch v := out.(type) {
	case nil:
		writeJSON(w, http.StatusOK, emptyJSON)
	case []byte:
		w.Header()["Content-Type"] = contentRaw
		_, _ = w.Write(v) // a peer that left needs no answer
	default:
		text, err := json.Marshal(v)
		if err != nil {
			s.refuse(w, q, fmt.Errorf("encode answer: %w", err))
			return
		}
		writeJSON(w, http.StatusOK, text)
	}
}

var emptyJSON = []byte("{}")

// partingHeader makes http close a connection that outlived its revocation
// only to carry this answer, after the answer has left.
func (s *Server) partingHeader(w http.ResponseWriter, q *Request) {
	if q.spared && q.conn.isRevoked() {
		w.Header().Set("Connection", "close")
	}
}

// refuse tells the peer why, counts it, and leaves a trace.
func (s *Server) refuse(w http.ResponseWriter, q *Request, err error) {
	body := refusalOf(err, q.Grant.Tier >= TierCandidate)
	body.Node, body.RequestID = string(s.cfg.Node()), q.ID
	if body.Code == cluster.CodeInternal {
		s.log.Error("rpc failed", zap.String("method", q.method.Name), zap.String("request_id", q.ID), zap.Error(err))
	}
	s.audit(q.conn, Refusal{
		Reason: body.Code, PeerDigest: q.conn.peer.Digest, PeerNode: q.conn.peer.Identity.Node,
		Method: q.method.Name, RequestID: q.ID,
	})
	s.partingHeader(w, q)
	writeRefusal(w, body.Code.HTTPStatus(), body)
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.stray(w, r, http.StatusNotFound)
}

// wrongVerb names the verbs that the path has, as RFC 9110 §15.5.6 wants.
func (s *Server) wrongVerb(w http.ResponseWriter, r *http.Request) {
	for _, verb := range [...]string{http.MethodGet, http.MethodPost, http.MethodPut} {
		other := *r
		other.Method = verb
		var match mux.RouteMatch
		if s.router.Match(&other, &match) && match.MatchErr == nil {
			w.Header().Add("Allow", verb)
		}
	}
	s.stray(w, r, http.StatusMethodNotAllowed)
}

func (s *Server) stray(w http.ResponseWriter, r *http.Request, status int) {
	c := r.Context().Value(connKey{}).(*conn)
	e := *cluster.Errorf(cluster.CodeNotFound, "there is no such call here")
	e.Node, e.RequestID = string(s.cfg.Node()), requestID(r.Header)
	s.audit(c, Refusal{
		Reason: e.Code, PeerDigest: c.peer.Digest, PeerNode: c.peer.Identity.Node,
		Method: "unknown", RequestID: e.RequestID,
	})
	writeRefusal(w, status, refusalBody{Error: e})
}
