package rpc

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/pki"
)

// world is a cluster's certificates, and the map that everybody in it holds.
type world struct {
	t     testing.TB
	ca    *pki.CA
	roots *pki.Roots
	mu    sync.Mutex
	certs map[string]*tls.Certificate
	m     *candmap.Map // of the view
	view  atomic.Pointer[candmap.View]
	fresh atomic.Bool
	now   atomic.Pointer[time.Time]
}

const (
	testNodes    = 6 // in the roster; node 7 is a stranger with certificates
	former       = 7
	testMasterd  = 1812
	testDeadline = 20 * time.Second
)

// newWorld has a map of nodes 1 (master), 2 and 3; the rest of the nodes are
// normal ones.
func newWorld(t testing.TB) *world {
	w := &world{t: t, certs: map[string]*tls.Certificate{}}
	var err error
	if w.ca, err = pki.NewCA(ct.Cluster, "cluster.example", time.Now()); err != nil {
		t.Fatal(err)
	}
	if w.roots, err = pki.NewRoots(w.ca.Cert); err != nil {
		t.Fatal(err)
	}
	w.fresh.Store(true)
	w.m = ct.Map(1, 2, 3)
	w.set(w.m, w.roster())
	return w
}

// cert returns node n's certificate of a kind, always the same one.
func (w *world) cert(kind pki.Kind, n int) *tls.Certificate {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := fmt.Sprintf("%s/%d", kind, n)
	if w.certs[id] == nil {
		w.certs[id] = w.issue(w.ca, kind, n, time.Now())
	}
	return w.certs[id]
}

func (w *world) issue(ca *pki.CA, kind pki.Kind, n int, now time.Time) *tls.Certificate {
	key, err := pki.GenerateKey()
	if err != nil {
		w.t.Fatal(err)
	}
	return w.issueFor(ca, kind, n, key, now)
}

func (w *world) issueFor(ca *pki.CA, kind pki.Kind, n int, key crypto.Signer, now time.Time) *tls.Certificate {
	der, err := ca.Issue(pki.Request{Kind: kind, Node: ct.NodeID(n), Name: ct.Name(n), PublicKey: key.Public()}, now)
	if err != nil {
		w.t.Fatal(err)
	}
	leaf, err := pki.ParseCertDER(der)
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := pki.NewPair(leaf, key)
	if err != nil {
		w.t.Fatal(err)
	}
	c := pair.TLS()
	return &c
}

func (w *world) peer(kind pki.Kind, n int) *Peer {
	c := w.cert(kind, n)
	id, err := pki.Identify(c.Leaf)
	if err != nil {
		w.t.Fatal(err)
	}
	return &Peer{HasCert: true, Digest: id.Digest, Pin: id.Pin, Identity: id}
}

func (w *world) roster(without ...int) *candmap.Roster {
	var nodes []candmap.RosterNode
	for n := 1; n <= testNodes; n++ {
		if slices.Contains(without, n) {
			continue
		}
		node := ct.RosterNode(n)
		node.Addresses = []netip.Addr{ct.Addr(n)}
		node.Server = []cluster.Digest{pki.PinOf(w.cert(pki.KindServer, n).Leaf)}
		node.Identity = []cluster.Digest{pki.PinOf(w.cert(pki.KindIdentity, n).Leaf)}
		nodes = append(nodes, node)
	}
	r, err := candmap.NewRoster(nodes, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// viewOf signs a map whose candidates have their certificates' digests.
func (w *world) viewOf(m *candmap.Map, r *candmap.Roster) *candmap.View {
	var signers []int
	for i := range m.Candidates {
		c := &m.Candidates[i]
		n := w.numberOf(c.UUID)
		if len(c.Client) > 0 && c.Client[0] == ct.Pin("client", n) {
			c.Client = []cluster.Digest{pki.DigestOf(w.cert(pki.KindCandidate, n).Leaf)}
		}
		c.Addresses, c.MasterdPort = []netip.Addr{ct.Addr(n)}, testMasterd
		if c.Voter {
			signers = append(signers, n)
		}
	}
	m.Roster = r.Hash()
	env := ct.Seal(m, signers...)
	v, err := candmap.Genesis(env, env.Hash())
	if err != nil {
		w.t.Fatal(err)
	}
	return &candmap.View{Map: v, Roster: r}
}

func (w *world) numberOf(id cluster.NodeID) int {
	for n := 1; n <= former; n++ {
		if ct.NodeID(n) == id {
			return n
		}
	}
	w.t.Fatalf("no node %s", id)
	return 0
}

func (w *world) set(m *candmap.Map, r *candmap.Roster) (old, next *candmap.View) {
	old, next = w.view.Load(), w.viewOf(m, r)
	w.m = m
	w.view.Store(next)
	return old, next
}

// change makes the next version of the map, with these candidates, the first
// one being the master.
func (w *world) change(voters ...int) (old, next *candmap.View) {
	m := ct.Next(w.m)
	ct.SetVoters(m, voters...)
	m.Master = ct.NodeID(voters[0])
	return w.set(m, w.view.Load().Roster)
}

// terms is a TermStore in memory.
type terms struct {
	mu   sync.Mutex
	high Stamp
	fail error
}

func (s *terms) Highest() Stamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.high
}

func (s *terms) Raise(t Stamp) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	if t.Newer(s.high) {
		s.high = t
	}
	return nil
}

// node is a server of the world: noded or masterd of one node.
type node struct {
	*Server
	w     *world
	addr  netip.AddrPort
	terms *terms
	logs  *observer.ObservedLogs
	ran   chan struct{} // gets a value for each handler that ran
}

// config is the one of a noded, on a listener.
func (w *world) config(n int, kind pki.Kind, l net.Listener, logs *zap.Logger, store TermStore) ServerConfig {
	return ServerConfig{
		Listeners:   []net.Listener{l},
		Certificate: func() (*tls.Certificate, error) { return w.cert(kind, n), nil },
		Roots:       func() *pki.Roots { return w.roots },
		View:        w.view.Load, Fresh: w.fresh.Load, Terms: store, Log: logs,
		Node: func() cluster.Name { return ct.Name(n) },
		Now: func() time.Time {
			if now := w.now.Load(); now != nil {
				return *now
			}
			return time.Now()
		},
	}
}

// serve starts node n on loopback. Methods without a handler of their own
// answer {} at once; mutating ones through Effect.
func (w *world) serve(n int, handlers map[string]Handler, edit ...func(*ServerConfig)) *node {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	return w.serveOn(l, n, pki.KindServer, handlers, edit...)
}

func (w *world) serveOn(l net.Listener, n int, kind pki.Kind, handlers map[string]Handler, edit ...func(*ServerConfig)) *node {
	w.t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	s := &node{w: w, terms: &terms{}, logs: logs, ran: make(chan struct{}, 10000)}
	cfg := w.config(n, kind, l, zap.New(core), s.terms)
	for _, e := range edit {
		e(&cfg)
	}
	var err error
	if s.Server, err = NewServer(cfg); err != nil {
		w.t.Fatal(err)
	}
	methods := NodedMethods()
	if kind == pki.KindCandidate {
		methods = MasterdMethods()
	}
	for _, m := range methods {
		s.Handle(m, s.handler(m, handlers[m.Name]))
	}
	s.addr = l.Addr().(*net.TCPAddr).AddrPort()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	return s
}

func (s *node) handler(m Method, h Handler) Handler {
	if h == nil {
		h = func(ctx context.Context, _ *Request) (any, error) {
			if m.Mutating {
				return nil, Effect(ctx, func() error { return nil })
			}
			return nil, nil
		}
	}
	return func(ctx context.Context, q *Request) (any, error) {
		select {
		case s.ran <- struct{}{}:
		default: // a benchmark
		}
		return h(ctx, q)
	}
}

// client calls as node n with a certificate of a kind; kind "" means none.
// Every address of the cluster leads to the node given.
func (w *world) client(kind pki.Kind, n int, to *node, edit ...func(*ClientConfig)) *Client {
	w.t.Helper()
	cfg := ClientConfig{
		Roots: func() *pki.Roots { return w.roots }, View: w.view.Load, Term: func() uint64 { return 1 },
		Dial: func(ctx context.Context, _ netip.Addr, _ netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", to.addr.String())
		},
	}
	if kind != "" {
		cert := w.cert(kind, n)
		cfg.Certificate = func() (*tls.Certificate, error) { return cert, nil }
	}
	for _, e := range edit {
		e(&cfg)
	}
	c, err := NewClient(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// call calls node 4's noded with some valid argument.
func call(t testing.TB, c *Client, m Method) error {
	t.Helper()
	return callAt(t, c, Target{Node: ct.NodeID(4)}, m)
}

func callAt(t testing.TB, c *Client, to Target, m Method) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
	defer cancel()
	arg := ""
	if m.variable() != "" {
		arg = "aa"
	}
	var req any
	if m.MaxBody > 0 {
		req = struct{}{}
	}
	return c.Call(ctx, to, m, arg, req, nil)
}

func wantCode(t testing.TB, what string, err error, want cluster.Code) {
	t.Helper()
	if got := cluster.CodeOf(err); got != want {
		t.Errorf("%s: code %q (%v), want %q", what, got, err, want)
	}
}

// raw opens a TLS connection to a node as node n, outside of any Client.
func (w *world) raw(to *node, cert *tls.Certificate, protos ...string) (*tls.Conn, error) {
	w.t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: protos}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	d := tls.Dialer{Config: cfg, NetDialer: &net.Dialer{Timeout: testDeadline}}
	c, err := d.Dial("tcp", to.addr.String())
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c.(*tls.Conn), c.SetDeadline(time.Now().Add(testDeadline))
}

// wantClosed reads until the connection ends, and fails if it does not.
func wantClosed(t testing.TB, what string, c net.Conn) {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		_, err := c.Read(buf)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: connection still open", what)
		}
		if err != nil {
			return
		}
	}
}
