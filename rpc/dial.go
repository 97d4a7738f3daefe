package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
)

// keepAlive is below the server's idle time, so that it is the client that
// ends a connection, and no call meets one that the server just closed.
const keepAlive = 2 * time.Minute

// newTransport makes the HTTP/2 engine. It keeps no connections itself: a peer
// has one, and must be able to close it.
func newTransport() *http.Transport {
	t := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ctx.Value(dialledKey{}).(net.Conn), nil
		},
		DisableCompression:     true,
		IdleConnTimeout:        keepAlive,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second, WriteByteTimeout: 30 * time.Second,
		},
	}
	t.Protocols.SetHTTP2(true)
	return t
}

type dialledKey struct{}

// http2 puts HTTP/2 on an established TLS connection.
func (c *Client) http2(ctx context.Context, conn *tls.Conn, host string) (*http.ClientConn, error) {
	cc, err := c.transport.NewClientConn(context.WithValue(ctx, dialledKey{}, conn), "https", net.JoinHostPort(host, "443"))
	if err != nil {
		return nil, fmt.Errorf("start HTTP/2: %w", err)
	}
	return cc, nil
}

func dialTCP(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return d.DialContext(ctx, "tcp", to.String())
}

func (c *Client) dialRaw(ctx context.Context, to netip.AddrPort) (*meter, error) {
	from := c.cfg.LocalAddr
	if from.Is4() != to.Addr().Is4() {
		from = netip.Addr{}
	}
	conn, err := c.cfg.Dial(ctx, from, to)
	if err != nil {
		return nil, err
	}
	return &meter{Conn: conn}, nil
}

func (c *Client) certificate() (*tls.Certificate, error) {
	if c.cfg.Certificate == nil {
		return nil, nil
	}
	cert, err := c.cfg.Certificate()
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	return cert, nil
}

func leafOf(cert *tls.Certificate) []byte {
	if cert == nil || len(cert.Certificate) == 0 {
		return nil
	}
	return cert.Certificate[0]
}

// handshake does TLS on a socket, and closes it if that fails. Check decides
// about the server; nothing else does.
func (c *Client) handshake(ctx context.Context, raw *meter, own *tls.Certificate, check func(tls.ConnectionState) error) (*tls.Conn, error) {
	if own == nil {
		own = &tls.Certificate{}
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		// Names in certificates decide nothing here: check knows which node,
		// which kind and which key it must be.
		InsecureSkipVerify:   true,
		VerifyConnection:     check,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil },
		Time:                 c.cfg.Now,
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.abort()
		return nil, err
	}
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		raw.abort()
		return nil, errors.New("server does not speak HTTP/2")
	}
	return conn, nil
}

// open connects to the peer, trying its addresses in order, the one that
// answered last first.
func (p *peer) open(ctx context.Context, own *tls.Certificate) (*link, error) {
	addrs, err := addressesOf(p.client.cfg.View(), p.key, p.client.cfg.Hints(p.key.node))
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	first := p.good
	p.mu.Unlock()
	var errs []error
	for i := range addrs {
		at := (first + i) % len(addrs)
		l, err := p.openAt(ctx, addrs[at], len(addrs)-i, own)
		if err == nil {
			p.mu.Lock()
			p.good = at
			p.mu.Unlock()
			return l, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// openAt gives one address its share of the time that is left.
func (p *peer) openAt(ctx context.Context, to netip.AddrPort, left int, own *tls.Certificate) (*link, error) {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
		defer cancel()
	}
	l, err := p.connect(ctx, to, own)
	if err != nil {
		return nil, fmt.Errorf("connect to %s at %s: %w", p.key.daemon, to, err)
	}
	return l, nil
}

func (p *peer) connect(ctx context.Context, to netip.AddrPort, own *tls.Certificate) (*link, error) {
	c := p.client
	raw, err := c.dialRaw(ctx, to)
	if err != nil {
		return nil, err
	}
	l := &link{raw: raw, own: leafOf(own)}
	conn, err := c.handshake(ctx, raw, own, func(cs tls.ConnectionState) (err error) {
		if l.server, err = c.serverOf(cs, p.key.daemon); err != nil {
			return err
		}
		return p.vouch(l, c.cfg.View())
	})
	if err != nil {
		return nil, err
	}
	if l.cc, err = c.http2(ctx, conn, p.host); err != nil {
		raw.abort()
		return nil, err
	}
	return l, nil
}

// serverOf verifies a server's certificate for a daemon.
func (c *Client) serverOf(cs tls.ConnectionState, daemon Daemon) (Peer, error) {
	roots := c.cfg.Roots()
	if roots == nil {
		return Peer{}, cluster.Errorf(cluster.CodeNoMap, "this node belongs to no cluster yet")
	}
	kind, verify := pki.KindServer, pki.VerifyPast // what it is asked then is judged with each call
	if daemon == Masterd {
		kind, verify = pki.KindCandidate, pki.VerifyAny
	}
	id, err := verify(roots, cs.PeerCertificates, c.cfg.Now(), kind)
	if err != nil {
		return Peer{}, cluster.Errorf(cluster.CodeIdentityMismatch, "server: %v", err)
	}
	if id.Lapsed(c.cfg.Now()) {
		return Peer{}, cluster.Errorf(cluster.CodeIdentityMismatch, "server: its certificate ended %s, more than %d days ago",
			id.NotAfter.UTC().Format(time.RFC3339), pki.Grace/(24*time.Hour)).WithHint(Readd)
	}
	return Peer{HasCert: true, Digest: id.Digest, Pin: id.Pin, Identity: id}, nil
}

// vouch decides whether a view says that this server is the daemon of that
// node: by the pinned key of noded, by the exact certificate of masterd.
func vouch(view *candmap.View, key peerKey, server *Peer) error {
	if view == nil || view.Map == nil {
		return cluster.Errorf(cluster.CodeNoMap, "no candidate map tells who the server is")
	}
	if server.Identity.Node != key.node {
		return cluster.Errorf(cluster.CodeIdentityMismatch, "the server is node %s, not %s", server.Identity.Node, key.node)
	}
	if key.daemon == Masterd {
		if entry := view.Map.ByClient(server.Digest); entry != nil && entry.UUID == key.node {
			return nil
		}
		return cluster.Errorf(cluster.CodeIdentityMismatch, "the server's certificate is not in the candidate map")
	}
	if view.Roster != nil {
		if n := view.Roster.ByServer(server.Pin); n != nil && n.UUID == key.node {
			return nil
		}
	}
	return cluster.Errorf(cluster.CodeIdentityMismatch, "the server's key is not the one in the roster")
}

// addressesOf looks up where a daemon listens: where the hints say, which do not
// make a node of one that is none, and where map and roster say.
func addressesOf(view *candmap.View, key peerKey, hints []netip.Addr) ([]netip.AddrPort, error) {
	var ips []netip.Addr
	var port uint16
	switch {
	case view == nil || view.Map == nil:
		return nil, cluster.Errorf(cluster.CodeNoMap, "no candidate map tells where node %s is", key.node)
	case key.daemon == Masterd:
		if c := view.Map.Candidate(key.node); c != nil {
			ips, port = c.Addresses, c.MasterdPort
		}
	case view.Roster != nil:
		if n := view.Roster.Node(key.node); n != nil {
			ips, port = n.Addresses, n.Ports.Noded
		}
	}
	if len(ips) == 0 {
		return nil, cluster.Errorf(cluster.CodeNotFound, "node %s has no %s in this cluster", key.node, key.daemon)
	}
	var list []netip.AddrPort
	for _, ip := range slices.Concat(hints, ips) {
		if at := netip.AddrPortFrom(ip, port); !slices.Contains(list, at) {
			list = append(list, at)
		}
	}
	return list, nil
}
