// Package webserver serves HTTPS to strangers within bounds: of connections in
// all and from one address, of headers, and of time. A connection over a bound
// is closed at once, so that others are served as before.
//
// Client certificates are asked for and not verified here: the handler decides
// what one is worth.
package webserver

import (
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
)

// Bounds. A client that waits for a job holds its connection for seconds.
const (
	conns        = 2048
	connsPerPeer = 256 // of one IPv4 address, or of a /64 of IPv6
	headerBytes  = 16 << 10
	headerTime   = 10 * time.Second
	readTime     = 30 * time.Second
	writeTime    = 90 * time.Second
	idleTime     = 2 * time.Minute
	streams      = 64
)

// Config says what to serve.
type Config struct {
	Listeners   []net.Listener // closed at the end
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Handler     http.Handler
	Log         *zap.Logger
}

// Serve serves until ctx ends, and returns when the calls in flight, whose
// contexts end too, have returned; or when a listener fails.
func Serve(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet, _ := zap.NewStdLogAt(cfg.Log, zap.DebugLevel) // fails only for unknown levels
	calls := &calls{next: cfg.Handler}
	server := &http.Server{
		Handler: calls, ErrorLog: quiet, MaxHeaderBytes: headerBytes,
		ReadHeaderTimeout: headerTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime,
		BaseContext: func(net.Listener) context.Context { return ctx },
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: streams},
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: cfg.Certificate, ClientAuth: tls.RequestClientCert,
			SessionTicketsDisabled: true,
		},
	}
	bound := &bound{peers: map[netip.Prefix]int{}}
	served := make(chan error, len(cfg.Listeners))
	for _, l := range cfg.Listeners {
		go func() { served <- server.ServeTLS(&listener{l, bound}, "", "") }() // waited for below
	}
	err := ctx.Err()
	left := len(cfg.Listeners)
	select {
	case err = <-served:
		left--
	case <-ctx.Done():
	}
	cancel()
	err = errors.Join(ignoreClosed(err), ignoreClosed(server.Close()))
	for range left {
		err = errors.Join(err, ignoreClosed(<-served))
	}
	calls.wait()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve HTTPS: %w", err)
	}
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// calls counts the calls in flight.
type calls struct {
	next http.Handler

	mu    sync.Mutex
	ended bool
	wg    sync.WaitGroup
}

// ServeHTTP implements http.Handler.
func (c *calls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.wg.Add(1)
	c.mu.Unlock()
	defer c.wg.Done()
	c.next.ServeHTTP(w, r)
}

// wait lets no more begin, and waits for those that have.
func (c *calls) wait() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.wg.Wait()
}

// bound counts connections.
type bound struct {
	mu    sync.Mutex
	all   int
	peers map[netip.Prefix]int
}

func (b *bound) take(p netip.Prefix) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all >= conns || b.peers[p] >= connsPerPeer {
		return false
	}
	b.all++
	b.peers[p]++
	return true
}

func (b *bound) give(p netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all--
	if b.peers[p]--; b.peers[p] == 0 {
		delete(b.peers, p)
	}
}

// Network is what counts as one peer: an IPv4 address, or a /64 of IPv6.
func Network(addr string) netip.Prefix {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.Prefix{}
	}
	a := ap.Addr().Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

type listener struct {
	net.Listener
	bound *bound
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := Network(c.RemoteAddr().String())
		if l.bound.take(p) {
			return &conn{Conn: c, end: sync.OnceFunc(func() { l.bound.give(p) })}, nil
		}
		_ = c.Close() // whoever floods need not be told
	}
}

type conn struct {
	net.Conn
	end func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.end()
	return c.Conn.Close()
}
