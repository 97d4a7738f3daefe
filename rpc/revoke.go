package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
)

// Why nothing done under an old map outlives Revoke
//
// Let S be the moment when the caller's pointer to the new view was stored,
// and R the moment when Revoke, called after S, returned nil. Claim: no call
// of a peer whose tier differs between the two views runs after R on the
// judgement of the old one, and no such effect begins or still runs after R.
//
//  1. A connection is registered before it is judged, and stays so until its
//     socket is closed and its last call has ended. So at the moment when
//     Revoke lists the registry, which is after S, every connection is either
//     listed, or registered later; the latter reads the view later still, and
//     is judged by the new one.
//  2. A listed connection whose handshake had not come to verify is judged
//     after conn.mu was released by regrade, hence after S, by the new view.
//     Every other one is regraded under the same lock; if its tier changed, it
//     is marked, and conn.begin refuses every later call.
//  3. A call that began before the mark is counted in conn.calls, and Revoke
//     waits until it has ended. An effect runs within its call. So whatever
//     Effect decided by the old view has ended at R, and whatever it decides
//     later is by the new view.
//
// No lock is shared between peers, so a call that hangs (say on a dead disk)
// delays only those who wait for it, for at most Limits.Drain, and then Revoke
// says so: it never reports what it did not see. A connection with an
// unchanged tier needs no wait, because its calls were and are allowed.
//
// One call is spared: the delivery that brought the new view, whose handler is
// what called Revoke. It changes nothing but the map, by the map's own
// signatures, and is spared only after its body was read, so no peer can draw
// it out. Its connection is marked like the others, and closed when the answer
// has left, or after a second.

// Revoke brings the open connections in line with next, which must already be
// what ServerConfig.View returns, and with ServerConfig.Evicted. It closes the sockets of all whose tier
// changed in any way, gained or lost, and waits for their calls in flight. Its
// error means that some still run.
func (s *Server) Revoke(_, next *candmap.View) error {
	var hit []*conn
	for _, c := range s.conns.all() {
		if c.regrade(next) {
			hit = append(hit, c)
		}
	}
	// All sockets before any wait: the first must not delay the last.
	var wg sync.WaitGroup
	for _, c := range hit {
		wg.Go(c.cut)
	}
	wg.Wait()
	return s.drain(hit)
}

// Reintroduce is to be called when ServerConfig.Roots has changed. It closes the
// connections whose peers showed a certificate of an authority that was not
// trusted: on their next ones it may be worth something.
func (s *Server) Reintroduce() {
	for _, c := range s.conns.all() {
		if c.dismiss() {
			c.cut()
		}
	}
}

// cut closes a revoked connection, unless it still has to carry the answer to
// the delivery that revoked it.
func (c *conn) cut() {
	if !c.sparing() {
		c.abort()
		return
	}
	c.endCalls()
	time.AfterFunc(farewell, c.abort)
}

func (s *Server) drain(conns []*conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.limits.Drain)
	defer cancel()
	var failed int
	for _, c := range conns {
		if c.wait(ctx.Done()) != nil {
			failed++
			s.log.Error("calls of a revoked peer still run", zap.Stringer("peer_node", c.peer.Identity.Node), zap.Stringer("remote", c.RemoteAddr()))
		}
	}
	if failed > 0 {
		return fmt.Errorf("revoke connections: of %d connections: %w", failed, errDrain)
	}
	return nil
}

// farewell is how long a connection that carried the map that revokes it may
// stay for the answer to leave.
const farewell = time.Second

type requestKey struct{}

// Effect runs fn, the change that a mutating call makes. Right before it, the
// caller is judged again by the map of that moment, and its stamp is compared
// again with map and term; a newer stamp is remembered, durably, first. The
// context is the handler's. While fn runs, no order of a newer stamp is
// obeyed; effects of one stamp do not exclude one another.
func Effect(ctx context.Context, fn func() error) error {
	q, ok := ctx.Value(requestKey{}).(*Request)
	if !ok || !q.method.Mutating {
		return errors.New("make effect: not in a mutating call")
	}
	return q.srv.effect(ctx, q, fn)
}

func (s *Server) effect(ctx context.Context, q *Request, fn func() error) error {
	if err := s.raise(q); err != nil {
		return err
	}
	s.terms.RLock()
	defer s.terms.RUnlock()
	if err := s.judge(q); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("make effect: %w", err)
	}
	return fn()
}

// raise remembers a newer stamp, after the last effect of an older one.
func (s *Server) raise(q *Request) error {
	if !q.Stamp.Newer(s.cfg.Terms.Highest()) {
		return nil
	}
	s.terms.Lock()
	defer s.terms.Unlock()
	if err := s.judge(q); err != nil {
		return err // a peer that is no longer the master raises nothing
	}
	if !q.Stamp.Newer(s.cfg.Terms.Highest()) {
		return nil
	}
	if err := s.cfg.Terms.Raise(q.Stamp); err != nil {
		return fmt.Errorf("remember stamp %s: %w", q.Stamp, err)
	}
	return nil
}

// judge decides by the view of this moment whether the call may go on.
func (s *Server) judge(q *Request) error {
	view := s.cfg.View()
	grant := s.classify(view, q.conn)
	if e := grant.Allow(q.method, view, s.fresh(q.method)); e != nil {
		return e
	}
	if q.conn.isRevoked() {
		return cluster.Errorf(cluster.CodeNotMaster, "the caller's role changed during the call")
	}
	if !q.method.Mutating {
		return nil
	}
	return q.Stamp.check(view.Map.At(), s.cfg.Terms.Highest())
}
