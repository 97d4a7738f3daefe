package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
)

// Daemon is one of the two that serve calls on a node.
type Daemon uint8

// The daemons.
const (
	Noded Daemon = iota
	Masterd
)

// String returns the daemon's name.
func (d Daemon) String() string {
	if d == Masterd {
		return "masterd"
	}
	return "noded"
}

// Target is whom to call. With a Node, the map and roster tell where it is and
// by what certificate to know it. Without one, Addr and Expect do; such calls
// have a connection of their own each.
type Target struct {
	Node   cluster.NodeID
	Daemon Daemon

	Addr   netip.AddrPort
	Expect func(tls.ConnectionState) error
}

// ClientConfig is what a Client needs. The functions must not block.
type ClientConfig struct {
	Certificate func() (*tls.Certificate, error)                                                // nil, or a nil result: call without one
	Roots       func() *pki.Roots                                                               // needed to call nodes
	View        func() *candmap.View                                                            // in force now; needed to call nodes
	Hints       func(cluster.NodeID) []netip.Addr                                               // where local root says that a node is, tried first; they say nothing about who is there; nil: none
	Term        func() uint64                                                                   // stamps mutating calls; nil: only WithStamp does
	OnBehind    func(ctx context.Context, to Target) error                                      // delivers the map to a node that is behind; nil: no second try
	LocalAddr   netip.Addr                                                                      // to call from, where the family fits; zero: any
	Dial        func(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) // nil: TCP
	DialTimeout time.Duration                                                                   // of all addresses of a node together; zero: 5 s
	Log         *zap.Logger                                                                     // nil: none
	Now         func() time.Time                                                                // nil: time.Now
}

const defaultDialTimeout = 5 * time.Second

// Client calls other daemons, over one connection to each that is kept open.
type Client struct {
	cfg       ClientConfig
	transport *http.Transport
	ctx       context.Context // ends dials at Close
	cancel    context.CancelFunc

	mu     sync.Mutex
	closed bool
	peers  map[peerKey]*peer
	dials  sync.WaitGroup
}

type peerKey struct {
	node   cluster.NodeID
	daemon Daemon
}

// NewClient makes a client. Close ends it.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Roots == nil {
		cfg.Roots = func() *pki.Roots { return nil }
	}
	if cfg.View == nil {
		cfg.View = func() *candmap.View { return nil }
	}
	if cfg.Hints == nil {
		cfg.Hints = func(cluster.NodeID) []netip.Addr { return nil }
	}
	if cfg.LocalAddr.IsValid() && (cfg.LocalAddr.IsUnspecified() || cfg.LocalAddr.Is4In6()) {
		return nil, fmt.Errorf("make RPC client: local address %s is not a node's", cfg.LocalAddr)
	}
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = defaultDialTimeout
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{cfg: cfg, transport: newTransport(), peers: map[peerKey]*peer{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Close closes all connections; calls in flight fail.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.dials.Wait()
	for _, p := range c.all() {
		p.drop()
	}
	return nil
}

func (c *Client) all() []*peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*peer, 0, len(c.peers))
	for _, p := range c.peers {
		list = append(list, p)
	}
	return list
}

// Recheck closes the connections to servers that the view in force no longer
// vouches for. Calls make the same check; this one also ends what is idle.
func (c *Client) Recheck() {
	view := c.cfg.View()
	for _, p := range c.all() {
		p.recheck(view)
	}
}

// Forget closes the connections to a node.
func (c *Client) Forget(node cluster.NodeID) {
	c.mu.Lock()
	var gone []*peer
	for key, p := range c.peers {
		if key.node == node {
			gone = append(gone, p)
			delete(c.peers, key)
		}
	}
	c.mu.Unlock()
	for _, p := range gone {
		p.drop()
	}
}

func (c *Client) peer(key peerKey) *peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.peers[key]
	if p == nil {
		p = &peer{client: c, key: key, host: key.node.String()}
		c.peers[key] = p
	}
	return p
}

// Call makes a call and decodes its answer into resp. Req is nil, []byte or
// io.Reader for raw bodies, or anything else for JSON; resp is nil, *[]byte or
// io.Writer for raw answers, or a pointer for JSON. Arg is the path's variable
// or the method's query parameter.
//
// An error from the node carries its code and name; a node that cannot be
// reached is CodeUnavailable. A call over a connection that turns out to be
// dead is made once more: methods bear repetition.
func (c *Client) Call(ctx context.Context, to Target, m Method, arg string, req, resp any) error {
	if m.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.Timeout)
		defer cancel()
	}
	out, err := newOutgoing(ctx, &m, arg, req, resp)
	if err != nil {
		return fmt.Errorf("call %s: %w", m.Name, err)
	}
	if m.Mutating {
		out.stamp = c.stamp(ctx)
	}
	err = c.send(ctx, to, out)
	if c.cfg.OnBehind == nil || !behind(err, out.stamp) || !out.repeatable() {
		return err
	}
	if berr := c.cfg.OnBehind(ctx, to); berr != nil {
		return fmt.Errorf("%w; delivering the map failed too: %w", err, berr)
	}
	return c.send(ctx, to, out)
}

// stamp returns the order's stamp: the context's, or what is known now.
func (c *Client) stamp(ctx context.Context) Stamp {
	if s, ok := ctx.Value(stampKey{}).(Stamp); ok {
		return s
	}
	var s Stamp
	if v := c.cfg.View(); v != nil {
		s.Version = v.At()
	}
	if c.cfg.Term != nil {
		s.Term = c.cfg.Term()
	}
	return s
}

func (c *Client) send(ctx context.Context, to Target, out *outgoing) error {
	if to.Node.IsZero() {
		return c.sendOnce(ctx, to, out)
	}
	p := c.peer(peerKey{to.Node, to.Daemon})
	for again := false; ; again = true {
		l, reused, err := p.acquire(ctx)
		if err != nil {
			return unavailable(p.name(), err)
		}
		if err := l.mayAsk(p.key.daemon, out.method, c.cfg.Now()); err != nil {
			p.release(l, reused) // the server may have another certificate by now
			if reused && !again {
				continue
			}
			return unavailable(p.name(), err)
		}
		failed, err := l.send(ctx, p, out)
		p.release(l, failed)
		var coded *cluster.Error
		if err != nil && !again && ctx.Err() == nil && out.repeatable() && c.outdated(l, err) {
			continue
		}
		if err == nil || errors.As(err, &coded) {
			return err
		}
		if again || !failed || !reused || ctx.Err() != nil || !out.repeatable() {
			return unavailable(p.name(), err)
		}
	}
}

// outdated reports whether a call failed as that of a stranger, or with its
// connection, and this side's certificate was replaced after it had been shown: a
// renewal retires one as soon as the next is in use.
func (c *Client) outdated(l *link, err error) bool {
	var coded *cluster.Error
	if errors.As(err, &coded) {
		switch coded.Code {
		case cluster.CodeNoCertificate, cluster.CodeNotInMap, cluster.CodeNotInRoster, cluster.CodeNotMaster:
		default:
			return false
		}
	}
	own, cerr := c.certificate()
	return cerr == nil && !bytes.Equal(l.own, leafOf(own))
}

// sendOnce calls an explicit address over a connection of its own.
func (c *Client) sendOnce(ctx context.Context, to Target, out *outgoing) error {
	if to.Expect == nil {
		return errors.New("call by address: nothing tells how to know the server")
	}
	conn, err := c.DialAdmission(ctx, to.Addr, to.Expect)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.send(ctx, out)
}

// callError says that no answer came. It is the coded error, and what happened.
type callError struct {
	coded *cluster.Error
	cause error
}

// Error implements error.
func (e *callError) Error() string { return e.coded.Error() }

// Unwrap gives both.
func (e *callError) Unwrap() []error { return []error{e.coded, e.cause} }

// unavailable names the node that could not be called. A code that is there
// already, such as that of an impostor, stays.
func unavailable(node string, err error) error {
	e := cluster.Errorf(cluster.CodeUnavailable, "%v", err)
	var coded *cluster.Error
	if errors.As(err, &coded) {
		c := *coded
		e = &c
	}
	if e.Node == "" {
		e.Node = node
	}
	return &callError{e, err}
}
