package rpc

import (
	"context"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/internal/memnet"
	"rolekey/pki"
)

// The client refuses every server but the one that map and roster name.
func TestImpostorsAreNotCalled(t *testing.T) {
	w := newWorld(t)
	present := func(cert *tls.Certificate) func(*ServerConfig) {
		return func(c *ServerConfig) {
			c.Certificate = func() (*tls.Certificate, error) { return cert, nil }
		}
	}
	otherCA, err := pki.NewCA(ct.Cluster, "cluster.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	noded, masterd := Target{Node: ct.NodeID(2)}, Target{Node: ct.NodeID(2), Daemon: Masterd}
	keyOf := func(n int) crypto.Signer { return w.cert(pki.KindServer, n).PrivateKey.(crypto.Signer) }
	for name, tc := range map[string]struct {
		to   Target
		cert *tls.Certificate
		want cluster.Code
	}{
		"another node's key, its name": {noded, w.issueFor(w.ca, pki.KindServer, 2, keyOf(5), now), cluster.CodeIdentityMismatch},
		"its key, another node's name": {noded, w.issueFor(w.ca, pki.KindServer, 5, keyOf(2), now), cluster.CodeIdentityMismatch},
		"noded itself":                 {noded, w.cert(pki.KindServer, 2), ""},
		"masterd itself":               {masterd, w.cert(pki.KindCandidate, 2), ""},
		"another node":                 {noded, w.cert(pki.KindServer, 5), cluster.CodeIdentityMismatch},
		"its own new key, unpinned":    {noded, w.issue(w.ca, pki.KindServer, 2, now), cluster.CodeIdentityMismatch},
		"of another CA":                {noded, w.issue(otherCA, pki.KindServer, 2, now), cluster.CodeIdentityMismatch},
		"masterd as noded":             {noded, w.cert(pki.KindCandidate, 2), cluster.CodeIdentityMismatch},
		"noded as masterd":             {masterd, w.cert(pki.KindServer, 2), cluster.CodeIdentityMismatch},
		"another masterd":              {masterd, w.cert(pki.KindCandidate, 3), cluster.CodeIdentityMismatch},
		"masterd, not in the map":      {masterd, w.issue(w.ca, pki.KindCandidate, 2, now), cluster.CodeIdentityMismatch},
	} {
		srv := w.serve(4, nil, present(tc.cert))
		c := w.client(pki.KindCandidate, 1, srv)
		err := callAt(t, c, tc.to, MethodVersion)
		wantCode(t, name, err, tc.want)
		var e *cluster.Error
		if tc.want != "" && (!errors.As(err, &e) || e.Node != string(ct.Name(2)) || len(srv.ran) != 0) {
			t.Errorf("%s: %v does not name the node, or the call was made", name, err)
		}
	}
}

func TestUnknownTargets(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	c := w.client(pki.KindCandidate, 1, srv)
	wantCode(t, "a node that left", callAt(t, c, Target{Node: ct.NodeID(former)}, MethodVersion), cluster.CodeNotFound)
	wantCode(t, "masterd of a normal node", callAt(t, c, Target{Node: ct.NodeID(4), Daemon: Masterd}, MethodSeen), cluster.CodeNotFound)
	if err := callAt(t, c, Target{Addr: srv.addr}, MethodVersion); err == nil {
		t.Error("called an address without knowing whom to expect")
	}
	w.view.Store(nil)
	wantCode(t, "no map", call(t, c, MethodVersion), cluster.CodeNoMap)
}

func TestExplicitTarget(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	c := w.client("", 0, srv)
	good := func(cs tls.ConnectionState) error {
		if pki.DigestOf(cs.PeerCertificates[0]) != pki.DigestOf(w.cert(pki.KindServer, 4).Leaf) {
			return errors.New("wrong server")
		}
		return nil
	}
	if err := callAt(t, c, Target{Addr: srv.addr, Expect: good}, MethodVersion); err != nil {
		t.Error(err)
	}
	bad := func(tls.ConnectionState) error {
		return cluster.Errorf(cluster.CodeIdentityMismatch, "not the one")
	}
	wantCode(t, "unexpected server", callAt(t, c, Target{Addr: srv.addr, Expect: bad}, MethodVersion), cluster.CodeIdentityMismatch)
}

// counted counts the dials of a client.
func counted(n *atomic.Int64) func(*ClientConfig) {
	return func(c *ClientConfig) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
			n.Add(1)
			return dial(ctx, from, to)
		}
	}
}

func TestOneConnectionIsKept(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	srv := w.serve(4, map[string]Handler{"state": func(context.Context, *Request) (any, error) { <-release; return nil, nil }})
	var dials atomic.Int64
	c := w.client(pki.KindCandidate, 1, srv, counted(&dials))
	errs := make(chan error, 50)
	for range cap(errs) {
		go func() { errs <- call(t, c, MethodState) }()
	}
	for range cap(errs) {
		<-srv.ran
	}
	close(release)
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d dials for %d calls", n, cap(errs))
	}
}

// A call that its caller gives up leaves the connection to the others.
func TestGivenUpCallsKeepTheConnection(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, map[string]Handler{"state": func(ctx context.Context, _ *Request) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	var dials atomic.Int64
	c := w.client(pki.KindCandidate, 1, srv, counted(&dials))
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() { failed <- c.Call(ctx, Target{Node: ct.NodeID(4)}, MethodState, "", nil, nil) }()
		<-srv.ran
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("call given up: %v", err)
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d dials", n)
	}
}

// What ends a connection between two calls does not fail the second one.
func TestDeadConnectionsAreReplaced(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	var dials atomic.Int64
	certs := []*tls.Certificate{w.cert(pki.KindCandidate, 1), w.issue(w.ca, pki.KindCandidate, 1, time.Now())}
	var current atomic.Int64
	c := w.client(pki.KindCandidate, 1, srv, counted(&dials), func(cfg *ClientConfig) {
		cfg.Certificate = func() (*tls.Certificate, error) { return certs[current.Load()], nil }
	})
	for i, end := range []func(){
		func() {},
		func() {
			for _, conn := range srv.conns.all() {
				conn.abort()
			}
		},
		func() { c.Forget(ct.NodeID(4)) },
		func() { current.Store(1) }, // renewed; the old connection must not be used
	} {
		end()
		if err := call(t, c, MethodVersion); err != nil || dials.Load() != int64(i+1) {
			t.Errorf("step %d: %v, %d dials", i, err, dials.Load())
		}
	}
	if err := call(t, c, MethodVersion); err != nil || dials.Load() != 4 {
		t.Errorf("connection is not kept: %v, %d dials", err, dials.Load())
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wantCode(t, "closed client", call(t, c, MethodVersion), cluster.CodeUnavailable)
}

// TestOwnCertificateIsReplaced: a call that showed a certificate which was retired
// meanwhile is made again with the next one, and no other refusal is.
func TestOwnCertificateIsReplaced(t *testing.T) {
	w := newWorld(t)
	var ran atomic.Int64
	srv := w.serve(4, map[string]Handler{"state": func(context.Context, *Request) (any, error) {
		if ran.Add(1); ran.Load() > 1 {
			return nil, cluster.Errorf(cluster.CodeBusy, "busy")
		}
		return nil, nil
	}})
	listed, retired := w.cert(pki.KindCandidate, 1), w.issue(w.ca, pki.KindCandidate, 1, time.Now())
	var cert atomic.Pointer[tls.Certificate]
	cert.Store(retired)
	c := w.client(pki.KindCandidate, 1, srv, func(cfg *ClientConfig) {
		cfg.Certificate = func() (*tls.Certificate, error) { return cert.Load(), nil }
	})
	wantCode(t, "a certificate that the map does not list", call(t, c, MethodState), cluster.CodeNotInMap)
	again := w.client(pki.KindCandidate, 1, srv, func(cfg *ClientConfig) {
		dial := cfg.Dial
		cfg.Certificate = func() (*tls.Certificate, error) { return cert.Load(), nil }
		cfg.Dial = func(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
			cert.Store(listed) // installed while the connection is made
			return dial(ctx, from, to)
		}
	})
	wantCode(t, "replaced meanwhile", call(t, again, MethodState), "")
	cert.Store(retired)
	wantCode(t, "refused for another reason", call(t, c, MethodState), cluster.CodeNotInMap)
	cert.Store(listed)
	wantCode(t, "refused for another reason", call(t, again, MethodState), cluster.CodeBusy)
	if n := ran.Load(); n != 2 {
		t.Errorf("the handler ran %d times", n)
	}
}

// The client too ends what the map no longer vouches for: at the next call,
// and, with Recheck, without one.
func TestServersThatLostTheirPins(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	c := w.client(pki.KindCandidate, 1, srv)
	if err := call(t, c, MethodVersion); err != nil {
		t.Fatal(err)
	}
	w.certs["server/4"] = w.issue(w.ca, pki.KindServer, 4, time.Now()) // the roster now pins another key
	w.set(ct.Next(w.m), w.roster())
	p := c.peer(peerKey{ct.NodeID(4), Noded})
	old := p.cur
	c.Recheck()
	if old.cc.Err() == nil || p.cur != nil {
		t.Error("Recheck left the connection open")
	}
	if err := call(t, c, MethodVersion); err != nil { // the server presents the new key
		t.Error(err)
	}
	w.set(ct.Next(w.m), w.roster(4))
	wantCode(t, "a node that left the roster", call(t, c, MethodVersion), cluster.CodeNotFound)
}

func TestNodeThatIsBehindGetsTheMapFirst(t *testing.T) {
	w := newWorld(t)
	held := atomic.Pointer[candmap.View]{}
	held.Store(w.view.Load())
	srv := w.serve(4, nil, func(c *ServerConfig) { c.View = held.Load })
	w.change(1, 2, 3, 5)
	var pushed atomic.Int64
	var fail error
	c := w.client(pki.KindCandidate, 1, srv, func(cfg *ClientConfig) {
		cfg.OnBehind = func(context.Context, Target) error {
			pushed.Add(1)
			if fail == nil && pushed.Load() > 2 {
				held.Store(w.view.Load())
			}
			return fail
		}
	})
	fail = errors.New("no route")
	if err := call(t, c, MethodKeyCreate); !errors.Is(err, fail) || cluster.CodeOf(err) != cluster.CodeConflict {
		t.Errorf("delivery failed: %v", err)
	}
	fail = nil
	wantCode(t, "delivery that did not help", call(t, c, MethodKeyCreate), cluster.CodeConflict)
	if err := call(t, c, MethodKeyCreate); err != nil || pushed.Load() != 3 {
		t.Errorf("after the delivery: %v, %d deliveries", err, pushed.Load())
	}
	if err := srv.terms.Raise(Stamp{w.view.Load().At(), 5}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "refused for another reason", call(t, c, MethodKeyCreate), cluster.CodeTermOlder)
	if pushed.Load() != 3 {
		t.Error("the map was delivered to a node that has it")
	}
}

func TestSeveralAddresses(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	nodes := w.view.Load().Roster.Nodes()
	changed := append([]candmap.RosterNode(nil), nodes...)
	live := netip.MustParseAddr("2001:db8::4")
	for i := range changed {
		if changed[i].UUID == ct.NodeID(4) {
			changed[i].Addresses = []netip.Addr{ct.Addr(4), live}
		}
	}
	r, err := candmap.NewRoster(changed, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.set(ct.Next(w.m), r)
	var dead atomic.Int64
	local := netip.MustParseAddr("10.9.9.9")
	c := w.client(pki.KindCandidate, 1, srv, func(cfg *ClientConfig) {
		dial := cfg.Dial
		cfg.LocalAddr = local
		cfg.Dial = func(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
			if want := to.Addr().Is4(); want != (from == local) {
				t.Errorf("dial from %v to %v", from, to)
			}
			if to.Addr() != live {
				dead.Add(1)
				return nil, errors.New("no route")
			}
			return dial(ctx, from, to)
		}
	})
	for range 2 {
		if err := call(t, c, MethodVersion); err != nil {
			t.Error(err)
		}
		c.peer(peerKey{ct.NodeID(4), Noded}).drop()
	}
	if n := dead.Load(); n != 1 {
		t.Errorf("tried the dead address %d times", n)
	}
}

func TestUnreachableNodeIsNamed(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	refused := errors.New("connection refused")
	c := w.client(pki.KindCandidate, 1, srv, func(cfg *ClientConfig) {
		cfg.Dial = func(context.Context, netip.Addr, netip.AddrPort) (net.Conn, error) { return nil, refused }
	})
	err := call(t, c, MethodVersion)
	var e *cluster.Error
	if !errors.Is(err, refused) || !errors.As(err, &e) || e.Code != cluster.CodeUnavailable || e.Node != string(ct.Name(4)) {
		t.Errorf("error %v", err)
	}
}

// A whole exchange in virtual time: a call, a partition in which a call times
// out before HTTP/2's pings do, a map that revokes, and an end without anything left behind.
func TestInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		network := memnet.New()
		defer network.Close()
		network.SetLatency(10 * time.Millisecond)
		one, four := network.Host(ct.Addr(1)), network.Host(ct.Addr(4))
		port := w.view.Load().Roster.Node(ct.NodeID(4)).Ports.Noded
		l, err := four.Listen("tcp", netip.AddrPortFrom(ct.Addr(4), port))
		if err != nil {
			t.Fatal(err)
		}
		cfg := w.config(4, pki.KindServer, l, nil, &terms{})
		srv, err := NewServer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		srv.Handle(MethodSeen, func(context.Context, *Request) (any, error) { return Seen{Term: 7}, nil })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- srv.Run(ctx) }()
		var dials atomic.Int64
		c := w.client(pki.KindCandidate, 3, nil, func(cfg *ClientConfig) {
			cfg.Dial = func(ctx context.Context, _ netip.Addr, to netip.AddrPort) (net.Conn, error) {
				dials.Add(1)
				return one.Dial(ctx, to)
			}
		})
		ask := func() (s Seen, err error) {
			err = c.Call(t.Context(), Target{Node: ct.NodeID(4)}, MethodSeen, "", nil, &s)
			return s, err
		}
		if s, err := ask(); err != nil || s.Term != 7 {
			t.Fatalf("state %+v, %v", s, err)
		}
		network.Partition([]netip.Addr{ct.Addr(1)}, []netip.Addr{ct.Addr(4)})
		start := time.Now()
		_, err = ask()
		wantCode(t, "partitioned", err, cluster.CodeUnavailable)
		if took := time.Since(start); took > MethodSeen.Timeout {
			t.Errorf("gave up after %v", took)
		}
		network.Heal()
		if _, err := ask(); err != nil {
			t.Errorf("after the partition: %v", err)
		}
		if n := dials.Load(); n < 2 {
			t.Errorf("%d dials: a connection survived a partition that nobody heard through", n)
		}
		if err := srv.Revoke(w.change(1, 2)); err != nil {
			t.Error(err)
		}
		_, err = ask()
		wantCode(t, "demoted", err, cluster.CodeNotInMap)
		_ = c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A peer that does not take its answer, or leaves its connection idle, is hung
// up on in the end.
func TestSlowReadersInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		network := memnet.New()
		defer network.Close()
		one, four := network.Host(ct.Addr(1)), network.Host(ct.Addr(4))
		at := netip.AddrPortFrom(ct.Addr(4), 1811)
		l, err := four.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		srv, err := NewServer(w.config(4, pki.KindServer, l, nil, nil))
		if err != nil {
			t.Fatal(err)
		}
		srv.Handle(MethodVersion, func(context.Context, *Request) (any, error) { return make([]byte, 64<<20), nil })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- srv.Run(ctx) }()
		open := func() *tls.Conn {
			raw, err := one.Dial(ctx, at)
			if err != nil {
				t.Fatal(err)
			}
			c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			return c
		}
		idle, slow := open(), open()
		if _, err := slow.Write([]byte("GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(MethodVersion.Timeout + writeSlack - 2*time.Second)
		synctest.Wait()
		if len(srv.conns.all()) == 0 {
			t.Error("no time is left to read the answer")
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		for _, c := range srv.conns.all() {
			if c.calls > 0 {
				t.Error("an answer is held for a peer that does not take it")
			}
		}
		time.Sleep(DefaultLimits.Idle)
		synctest.Wait()
		if n := len(srv.conns.all()); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		_, _ = idle.Close(), slow.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Replies that have nothing to say yet can be read all the same.
func TestZeroRepliesSurvive(t *testing.T) {
	for _, v := range []any{&NodeState{}, &LocalStatusReply{}, &InitRequest{Cluster: "c.example"}, &MapAck{}, &HealthReply{}, &SSHProbeReply{}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, v); err != nil {
			t.Errorf("%T: %v", v, err)
		}
	}
}
