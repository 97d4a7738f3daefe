package rpc

import (
	"container/list"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
)

// conn is an accepted connection below its TLS. It is registered before
// anything is known of it, and until its socket is closed and its last call
// has ended: a call outlives the socket that brought it.
type conn struct {
	net.Conn
	srv    *Server
	ip     netip.Addr
	net    netip.Addr // what ip is counted under
	once   sync.Once
	cancel atomic.Pointer[context.CancelFunc] // ends the contexts of its calls

	stranger *list.Element  // in registry.strangers, nil: not there; guarded by registry.mu
	counted  cluster.Digest // guarded by registry.mu
	busy     atomic.Bool    // calls > 0, for the registry: mu is locked before its own

	// peer is written once, in the handshake, under mu. Calls read it without:
	// they begin after the handshake, on the goroutines that made it.
	peer Peer
	// strange says that the peer showed a certificate of an authority that is not
	// trusted; written with peer.
	strange bool

	mu        sync.Mutex
	proven    bool     // peer is set
	grant     Grant    // by the newest view that the connection was judged by
	revoked   bool     // by a newer view; the socket is closed, or will be in a moment
	closed    bool     // the socket is closed
	calls     int      // in flight; none begins once it is revoked or closed
	first     *Request // list of them
	idleSince int64    // round of the warden in which the last one ended
	spared    int      // of them, those that Revoke does not wait for
	drained   chan struct{}
}

func newConn(srv *Server, raw net.Conn) *conn {
	ip := remoteIP(raw)
	return &conn{Conn: raw, srv: srv, ip: ip, net: network(ip), idleSince: srv.round.Load()}
}

// network returns what stands for an address in counts: itself, or its /64 in
// IPv6, of which every host has as many addresses as it likes.
func network(ip netip.Addr) netip.Addr {
	if !ip.Is6() {
		return ip
	}
	p, err := ip.Prefix(64)
	if err != nil { // cannot happen: 64 bits fit
		return ip
	}
	return p.Addr()
}

func remoteIP(raw net.Conn) netip.Addr {
	if a, ok := raw.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	ap, _ := netip.ParseAddrPort(raw.RemoteAddr().String())
	if !ap.IsValid() {
		return netip.IPv6Unspecified() // all such peers share one count
	}
	return ap.Addr().Unmap()
}

// Close closes the socket, ends the contexts of the calls in flight, and
// forgets the connection if there are none.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		c.endCalls()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.closed = true
		c.forget()
	})
	return err
}

// forget ends the registration of what can have no effect any more; under mu.
func (c *conn) forget() {
	if c.closed && c.calls == 0 {
		c.srv.conns.remove(c)
	}
}

// abort closes the socket at once: no TLS alert, and nothing left in the
// kernel's buffers.
func (c *conn) abort() {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // fails only on a socket that is closed already
	}
	_ = c.Close()
}

func (c *conn) endCalls() {
	if cancel := c.cancel.Load(); cancel != nil {
		(*cancel)()
	}
}

type connKey struct{}

// connContext is http.Server's hook: it ties the calls of a connection to it.
func connContext(ctx context.Context, nc net.Conn) context.Context {
	c := nc.(*tls.Conn).NetConn().(*conn)
	ctx, cancel := context.WithCancel(ctx)
	c.cancel.Store(&cancel)
	return context.WithValue(ctx, connKey{}, c)
}

// verify is TLS's VerifyConnection: a certificate that was never good here ends
// the handshake. One that has ended does not: its holder may do what a stranger
// may, and so deliver the map.
func (c *conn) verify(cs tls.ConnectionState) error {
	peer, err := c.identify(cs)
	if err == nil && c.srv.counts(&peer) && !c.srv.conns.know(c, peer.Digest) {
		err = cluster.Errorf(cluster.CodeBusy, "too many connections with one certificate")
	}
	if err != nil {
		c.srv.audit(c, Refusal{Reason: cluster.CodeOf(err), PeerDigest: peer.Digest, Method: "handshake"})
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer, c.proven = peer, true
	// The view is read after registration and under mu. Whoever changes the
	// map afterwards therefore finds this connection, with this grant; whoever
	// changed it before is what is read here.
	c.grant = c.srv.grant(c.srv.cfg.View(), &c.peer)
	return nil
}

func (c *conn) identify(cs tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, nil
	}
	leaf := cs.PeerCertificates[0]
	peer := Peer{Digest: pki.DigestOf(leaf), Pin: pki.PinOf(leaf)}
	roots := c.srv.cfg.Roots()
	if roots == nil {
		return peer, cluster.Errorf(cluster.CodeNoMap, "this node belongs to no cluster yet")
	}
	// That it has ended is judged with each call, as if it had ended since.
	id, err := pki.VerifyPast(roots, cs.PeerCertificates, c.srv.cfg.Now(), pki.KindCandidate, pki.KindIdentity)
	if strange := (x509.UnknownAuthorityError{}); errors.As(err, &strange) {
		// Nobody vouches for it, and so it says nothing: its holder is a stranger
		// like one without. A node that was away while the authority was changed
		// gets from such strangers the map that names the new one.
		c.strange = true
		return Peer{}, nil
	}
	if err != nil {
		return peer, err
	}
	peer.HasCert, peer.Identity = true, id
	return peer, nil
}

// counts reports whether a connection is counted under its certificate. One that
// has ended and is good for nothing leaves its holder among the strangers.
func (s *Server) counts(p *Peer) bool {
	now := s.cfg.Now()
	return p.HasCert && (!p.Identity.Ended(now) || p.Identity.Kind == pki.KindIdentity && !p.Identity.Lapsed(now))
}

// regrade judges the connection by a newer view, and marks it revoked if that
// changes its tier in any way.
func (c *conn) regrade(view *candmap.View) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.proven || c.revoked {
		return c.revoked // one revoked before may still have calls to wait for
	}
	g := c.srv.grant(view, &c.peer)
	c.revoked = g.Tier != c.grant.Tier || g.Node != c.grant.Node
	c.grant = g
	return c.revoked
}

// dismiss marks the connection of a stranger who showed a certificate.
func (c *conn) dismiss() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.proven || !c.strange || c.revoked {
		return false
	}
	c.revoked = true
	return true
}

// begin counts a call in, unless the connection is at its end.
func (c *conn) begin(q *Request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revoked || c.closed {
		return false
	}
	c.link(q)
	return true
}

// end counts a call out.
func (c *conn) end(q *Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unlink(q)
	if q.spared {
		c.spared--
	}
	c.signal()
	c.forget()
}

// spare lets Revoke not wait for one of the calls in flight: the one that
// delivers the map, and thereby itself waits for Revoke.
func (c *conn) spare() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spared++
	c.signal()
}

func (c *conn) signal() {
	if c.drained != nil && c.calls == c.spared {
		close(c.drained)
		c.drained = nil
	}
}

var errDrain = errors.New("calls that began under the old map still run")

// wait returns when no call is in flight, but for the spared ones.
func (c *conn) wait(limit <-chan struct{}) error {
	c.mu.Lock()
	if c.calls == c.spared {
		c.mu.Unlock()
		return nil
	}
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	drained := c.drained
	c.mu.Unlock()
	select {
	case <-drained:
		return nil
	case <-limit:
		return errDrain
	}
}

// sparing reports whether a call in flight is spared.
func (c *conn) sparing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spared > 0
}

// isRevoked reports whether a newer view ended the connection.
func (c *conn) isRevoked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revoked
}
