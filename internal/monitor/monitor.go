package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// Default ports.
const (
	NodedPort   = 1814
	MasterdPort = 1815
)

// Bounds.
const (
	maxConns    = 16
	maxScrapes  = 4 // at once
	headerBytes = 8 << 10
	readLimit   = 5 * time.Second
	writeLimit  = 30 * time.Second
	idleLimit   = 2 * time.Minute
	retryPause  = 10 * time.Second
)

// Config says what a daemon tells. The functions are called at each request,
// must not block, and may be called concurrently.
type Config struct {
	Addr    netip.AddrPort // zero: nothing is served
	Common  func() Common
	Descs   []Desc // what Collect may add
	Collect func(Add)
	Ready   func() error                                                 // nil: the daemon can do its work
	Listen  func(ctx context.Context, addr string) (net.Listener, error) // nil: TCP
	Log     *zap.Logger
}

// Server is the monitoring endpoint of a daemon.
type Server struct {
	cfg           Config
	local, public http.Handler
}

// New makes a server; it fails only if descriptions contradict one another.
func New(cfg Config) (*Server, error) {
	if cfg.Listen == nil {
		cfg.Listen = func(ctx context.Context, addr string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", addr)
		}
	}
	s := &Server{cfg: cfg}
	public := &collector{publicDescs, func(add Add) { c := cfg.Common(); c.public(add) }}
	own := &collector{append(commonDescs[:len(commonDescs):len(commonDescs)], cfg.Descs...), func(add Add) {
		c := cfg.Common()
		c.local(add)
		cfg.Collect(add)
	}}
	var err error
	if s.public, err = handler(public); err != nil {
		return nil, err
	}
	s.local, err = handler(public, own, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s, err
}

func handler(list ...prometheus.Collector) (http.Handler, error) {
	r := prometheus.NewRegistry()
	for _, c := range list {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{DisableCompression: true, MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.HTTPErrorOnError}), nil
}

// DefaultAddr is where a daemon is watched that is not told otherwise: the
// first of its addresses if that is of the loopback network, as where several
// nodes share a machine, else the usual loopback address.
func DefaultAddr(addrs []netip.Addr, port uint16) netip.AddrPort {
	if len(addrs) > 0 && addrs[0].IsLoopback() {
		return netip.AddrPortFrom(addrs[0], port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// ParseAddr reads metrics_address of a configuration: nil means the default,
// the empty string that nothing is served.
func ParseAddr(text *string, addrs []netip.Addr, port uint16) (netip.AddrPort, error) {
	switch {
	case text == nil:
		return DefaultAddr(addrs, port), nil
	case *text == "":
		return netip.AddrPort{}, nil
	}
	a, err := netip.ParseAddrPort(*text)
	if err != nil || a.Port() == 0 {
		return a, fmt.Errorf("metrics_address: %q is not ADDRESS:PORT, such as \"127.0.0.1:%d\"", *text, port)
	}
	return a, nil
}

// Run serves until ctx ends. While the port cannot be had it tries again.
func (s *Server) Run(ctx context.Context) error {
	if !s.cfg.Addr.IsValid() {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	for said := false; ; said = true {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !said {
			s.cfg.Log.Warn("monitoring is not served; trying again", zap.Stringer("address", s.cfg.Addr), zap.Error(err))
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Server) serve(ctx context.Context) error {
	l, err := s.cfg.Listen(ctx, s.cfg.Addr.String())
	if err != nil {
		return err
	}
	quiet, _ := zap.NewStdLogAt(s.cfg.Log, zap.DebugLevel) // fails only for unknown levels
	server := &http.Server{
		Handler: s.Handler(), MaxHeaderBytes: headerBytes, ErrorLog: quiet,
		ReadHeaderTimeout: readLimit, ReadTimeout: readLimit, WriteTimeout: writeLimit, IdleTimeout: idleLimit,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(newBounded(l, maxConns)) }()
	select {
	case err = <-served:
		return errors.Join(err, server.Close())
	case <-ctx.Done():
		err = server.Close()
		<-served
		return err
	}
}

// Handler answers requests; it is apart for tests.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if fromHere(r) {
			s.local.ServeHTTP(w, r)
			return
		}
		s.public.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		switch err := s.cfg.Ready(); {
		case err == nil:
			say(w, http.StatusOK, "ok")
		case fromHere(r):
			say(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
		default:
			say(w, http.StatusServiceUnavailable, "not ready")
		}
	})
	return mux
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // whoever left needs no answer
}

// fromHere reports whether a request comes from this machine.
func fromHere(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	if from.Addr().Unmap().IsLoopback() {
		return true
	}
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	to, err := netip.ParseAddrPort(at.String())
	return err == nil && from.Addr().Unmap() == to.Addr().Unmap()
}
