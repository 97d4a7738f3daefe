package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
)

// ServerConfig is what a Server needs. The functions are called concurrently
// and often, and must not block.
type ServerConfig struct {
	Listeners   []net.Listener                   // raw, without TLS; the server closes them
	Certificate func() (*tls.Certificate, error) // the one to present now
	Roots       func() *pki.Roots                // nil result: no client certificate is accepted
	View        func() *candmap.View             // in force now
	Fresh       func() bool                      // whether that is fresh
	Evicted     func(cluster.NodeID) bool        // local root wants this candidate refused; nil: none
	Terms       TermStore                        // needed if a method is mutating
	Audit       func(Refusal)                    // nil: only the log
	Served      func(Served)                     // told of each mutating call that succeeded; nil: nobody
	Log         *zap.Logger                      // nil: none
	Node        func() cluster.Name              // this node's name, for refusals; nil: ""
	Now         func() time.Time                 // nil: time.Now
	Limits      Limits                           // zero fields: DefaultLimits
}

// Listen opens TCP listeners for a ServerConfig, on all addresses or on none.
func Listen(ctx context.Context, addrs []netip.AddrPort) ([]net.Listener, error) {
	var lc net.ListenConfig
	var list []net.Listener
	for _, a := range addrs {
		l, err := lc.Listen(ctx, "tcp", a.String())
		if err != nil {
			for _, open := range list {
				err = errors.Join(err, open.Close())
			}
			return nil, fmt.Errorf("listen for calls: %w", err)
		}
		list = append(list, l)
	}
	return list, nil
}

// Server serves the methods of one daemon behind the gate.
type Server struct {
	cfg     ServerConfig
	limits  Limits
	log     *zap.Logger
	router  *mux.Router
	conns   *registry
	slots   *slots
	auditor *auditor
	terms   sync.RWMutex // shared: an effect runs; exclusive: the stamp is raised

	round  atomic.Int64 // of the warden
	served atomic.Bool
}

// NewServer makes a server that owns the listeners; Run serves, and Close ends
// a server that never ran.
func NewServer(cfg ServerConfig) (*Server, error) {
	if len(cfg.Listeners) == 0 || cfg.Certificate == nil || cfg.Roots == nil || cfg.View == nil || cfg.Fresh == nil {
		return nil, errors.New("make RPC server: listeners, certificate, roots, view and freshness are required")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Node == nil {
		cfg.Node = func() cluster.Name { return "" }
	}
	s := &Server{cfg: cfg, limits: cfg.Limits.withDefaults(), log: cfg.Log, router: mux.NewRouter()}
	s.conns, s.slots, s.auditor = newRegistry(&s.limits), newSlots(&s.limits), newAuditor()
	s.router.NotFoundHandler = http.HandlerFunc(s.notFound)
	s.router.MethodNotAllowedHandler = http.HandlerFunc(s.wrongVerb)
	return s, nil
}

// Addrs returns where the server listens.
func (s *Server) Addrs() []net.Addr {
	var list []net.Addr
	for _, l := range s.cfg.Listeners {
		list = append(list, l.Addr())
	}
	return list
}

// Close closes the listeners and all connections, and waits for the calls in
// flight. Run returns.
func (s *Server) Close() error {
	var errs []error
	for _, l := range s.cfg.Listeners {
		if err := ignoreClosed(l.Close()); err != nil {
			errs = append(errs, err)
		}
	}
	s.conns.end()
	return errors.Join(errs...)
}

// Run serves until ctx ends, then closes everything and returns when the last
// call has ended. It runs once.
func (s *Server) Run(ctx context.Context) error {
	if !s.served.CompareAndSwap(false, true) {
		return errors.New("serve RPC: already served")
	}
	server := s.httpServer(ctx)
	errs := make(chan error, len(s.cfg.Listeners))
	var tasks sync.WaitGroup
	for _, l := range s.cfg.Listeners {
		tasks.Go(func() { errs <- server.Serve(&gateListener{l, s}) })
	}
	patrol, stop := context.WithCancel(ctx)
	tasks.Go(func() { s.patrol(patrol) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	stop()
	// Sockets first: http would say farewell to each peer, and wait for it.
	err = errors.Join(ignoreClosed(err), s.Close(), ignoreClosed(server.Close()))
	tasks.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// httpServer sets no times but the one before the first call: the others are
// the warden's.
func (s *Server) httpServer(ctx context.Context) *http.Server {
	quiet, _ := zap.NewStdLogAt(s.log, zap.DebugLevel) // fails only for unknown levels
	return &http.Server{
		Handler:           s.router,
		TLSConfig:         &tls.Config{NextProtos: protocols}, // tells http to speak HTTP/2; see gateListener
		ReadHeaderTimeout: s.limits.Handshake,
		MaxHeaderBytes:    s.limits.HeaderBytes,
		ErrorLog:          quiet,
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnContext:       connContext,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          s.limits.Streams,
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     256 << 10,
		},
	}
}

var protocols = []string{"h2", "http/1.1"}

// gateListener registers what it accepts, and wraps it in TLS.
type gateListener struct {
	net.Listener
	srv *Server
}

// Accept returns the next connection that there is room for. A peer over its
// limit is hung up on before any cryptography.
func (l *gateListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := newConn(l.srv, raw)
		if l.srv.conns.take(c) {
			return tls.Server(c, l.srv.tlsConfig(c)), nil
		}
		l.srv.auditor.add(cluster.CodeBusy)
		c.abort()
	}
}

// tlsConfig returns the TLS of one connection. Without tickets there is no
// resumption, so every connection comes to VerifyConnection with the
// certificate that its peer holds now.
func (s *Server) tlsConfig(c *conn) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protocols,
		GetCertificate:         s.certificate,
		ClientAuth:             tls.RequestClientCert,
		VerifyConnection:       c.verify,
		SessionTicketsDisabled: true,
		Time:                   s.cfg.Now,
	}
}

func (s *Server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.cfg.Certificate()
}

// fresh asks for the lease only where it matters.
func (s *Server) fresh(m *Method) bool {
	return m.Stale || m.Tier < TierCandidate || s.cfg.Fresh()
}
