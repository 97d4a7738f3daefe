package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/pki"
)

// open makes a connection that has answered a call.
func (w *world) open(srv *node, cert *tls.Certificate) *tls.Conn {
	w.t.Helper()
	c, err := w.raw(srv, cert, "http/1.1")
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := c.Write([]byte("GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		w.t.Fatal(err)
	}
	buf := make([]byte, 1024)
	n, err := c.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") {
		w.t.Fatalf("answer %q, %v", buf[:n], err)
	}
	return c
}

// G4, W2: on a change of the map, the open connections of every peer whose
// tier changed end, whatever they are doing, and no other.
func TestG4OpenConnectionsEnd(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	demoted := w.cert(pki.KindCandidate, 3)
	idle := w.open(srv, demoted)
	headers := w.open(srv, demoted) // in the middle of a header
	if _, err := headers.Write([]byte("GET /v1/version HT")); err != nil {
		t.Fatal(err)
	}
	body := w.open(srv, demoted) // in the middle of a body
	if _, err := body.Write([]byte("PUT /v1/map HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")); err != nil {
		t.Fatal(err)
	}
	deposed := w.open(srv, w.cert(pki.KindCandidate, 1))
	elected := w.open(srv, w.cert(pki.KindCandidate, 2))
	promoted := w.open(srv, w.cert(pki.KindCandidate, 5))
	member := w.open(srv, w.cert(pki.KindIdentity, 4))
	stranger := w.open(srv, nil)

	if err := srv.Revoke(w.change(2, 1, 5)); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, "idle", idle)
	wantClosed(t, "dripping a header", headers)
	wantClosed(t, "dripping a body", body)
	wantClosed(t, "deposed master", deposed)
	wantClosed(t, "elected master", elected)
	wantClosed(t, "promoted", promoted)
	for name, c := range map[string]*tls.Conn{"member": member, "stranger": stranger} {
		if _, err := c.Write([]byte("GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.Read(make([]byte, 1024)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A member that leaves the roster loses its connections too.
func TestRevokeFollowsTheRoster(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	gone, stays := w.open(srv, w.cert(pki.KindIdentity, 5)), w.open(srv, w.cert(pki.KindIdentity, 6))
	if err := srv.Revoke(w.set(ct.Next(w.m), w.roster(5))); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, "removed", gone)
	if _, err := stays.Write([]byte("GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Error(err)
	}
	if _, err := stays.Read(make([]byte, 1024)); err != nil {
		t.Error(err)
	}
}

// A connection whose handshake is under way when the map changes is judged by
// the new map.
func TestConnectionsAreRegisteredBeforeTheyAreJudged(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	conn, err := net.Dial("tcp", srv.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cert, revoked := *w.cert(pki.KindCandidate, 3), make(chan error, 1)
	c := tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"http/1.1"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			revoked <- srv.Revoke(w.change(1, 2)) // between the server's flight and ours
			return &cert, nil
		},
	})
	if _, err := c.Write([]byte("GET /v1/state HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := <-revoked; err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1024)
	n, err := c.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 403") {
		t.Errorf("answer %q, %v", buf[:n], err)
	}
}

// G4: calls in flight end before Revoke returns, and their contexts before.
func TestG4CallsInFlightEnd(t *testing.T) {
	for _, proto := range []string{"h2", "http/1.1"} {
		t.Run(strings.ReplaceAll(proto, "/", ""), func(t *testing.T) {
			w := newWorld(t)
			began, ended := make(chan struct{}), atomic.Bool{}
			srv := w.serve(4, map[string]Handler{"state": func(ctx context.Context, _ *Request) (any, error) {
				close(began)
				<-ctx.Done()
				ended.Store(true)
				return nil, ctx.Err()
			}})
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*w.cert(pki.KindCandidate, 3)}}, ForceAttemptHTTP2: proto == "h2"}
			failed := make(chan error, 1)
			go func() {
				resp, err := (&http.Client{Transport: tr}).Get("https://" + srv.addr.String() + "/v1/state")
				if err == nil {
					_ = resp.Body.Close()
					err = fmt.Errorf("answered %s", resp.Status)
				} else {
					err = nil
				}
				failed <- err
			}()
			<-began
			if err := srv.Revoke(w.change(1, 2)); err != nil {
				t.Error(err)
			}
			if !ended.Load() {
				t.Error("Revoke returned before the handler")
			}
			if err := <-failed; err != nil {
				t.Error(err)
			}
		})
	}
}

// A handler that does not end does not hold Revoke for ever, nor is it passed
// over in silence; and it keeps nobody else's socket open.
func TestRevokeSaysWhatItDidNotSee(t *testing.T) {
	w := newWorld(t)
	began, release := make(chan struct{}), make(chan struct{})
	srv := w.serve(4, map[string]Handler{"state": func(context.Context, *Request) (any, error) {
		close(began)
		<-release
		return nil, nil
	}}, func(c *ServerConfig) { c.Limits.Drain = 20 * time.Millisecond })
	failed := make(chan error, 1)
	c := w.client(pki.KindCandidate, 3, srv)
	go func() { failed <- call(t, c, MethodState) }()
	<-began
	other := w.open(srv, w.cert(pki.KindCandidate, 3))
	old, next := w.change(1, 2)
	if err := srv.Revoke(old, next); !errors.Is(err, errDrain) {
		t.Errorf("Revoke: %v", err)
	}
	wantClosed(t, "another connection", other)
	if err := srv.Revoke(old, next); !errors.Is(err, errDrain) {
		t.Errorf("Revoke again: %v", err) // the call still runs, though its socket is gone
	}
	close(release)
	<-failed
	deadline := time.Now().Add(testDeadline)
	for srv.Revoke(old, next) != nil && time.Now().Before(deadline) {
		continue // each Revoke waits for 20 ms
	}
	if err := srv.Revoke(old, next); err != nil {
		t.Errorf("Revoke at last: %v", err)
	}
}

// An effect whose caller hung up is still waited for: a call outlives its
// socket.
func TestRevokeWaitsForCallsWithoutSocket(t *testing.T) {
	w := newWorld(t)
	began, release, done := make(chan struct{}), make(chan struct{}), atomic.Bool{}
	srv := w.serve(4, map[string]Handler{"key-create": func(ctx context.Context, _ *Request) (any, error) {
		return nil, Effect(ctx, func() error {
			close(began)
			<-release
			done.Store(true)
			return nil
		})
	}})
	c := w.client(pki.KindCandidate, 1, srv)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { failed <- c.Call(ctx, Target{Node: ct.NodeID(4)}, MethodKeyCreate, "", struct{}{}, nil) }()
	<-began
	cancel()
	<-failed
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	old, next := w.change(2, 1)
	go close(release)
	if err := srv.Revoke(old, next); err != nil {
		t.Error(err)
	}
	if !done.Load() {
		t.Error("Revoke returned while an effect of the deposed master ran")
	}
}

// The delivery that changes the map may be revoked by it: its answer still
// arrives, Revoke does not wait for it, and the connection is of no more use.
func TestDeliveryThatRevokesItself(t *testing.T) {
	for _, proto := range []string{"h2", "http/1.1"} {
		t.Run(strings.ReplaceAll(proto, "/", ""), func(t *testing.T) {
			w := newWorld(t)
			var srv *node
			srv = w.serve(4, map[string]Handler{"map-put": func(ctx context.Context, q *Request) (any, error) {
				if err := q.Decode(&struct{}{}); err != nil {
					return nil, err
				}
				if err := srv.Revoke(w.change(2, 1)); err != nil {
					return nil, err
				}
				return MapAck{Durable: true}, ctx.Err()
			}})
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*w.cert(pki.KindCandidate, 2)}}, ForceAttemptHTTP2: proto == "h2"}
			hc := &http.Client{Transport: tr, Timeout: testDeadline}
			defer tr.CloseIdleConnections()
			r, err := http.NewRequest("PUT", "https://"+srv.addr.String()+"/v1/map", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := hc.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			for _, c := range srv.conns.all() {
				if !c.isRevoked() || c.begin(&Request{}) {
					t.Error("the connection goes on")
				}
			}
		})
	}
}

// A call that comes between Revoke's judgement of a connection and the end of
// its socket sees the connection end, as one does that comes later: a failed
// stream would look like a fault of the server.
func TestCallOnARevokedConnection(t *testing.T) {
	for _, proto := range []string{"h2", "http/1.1"} {
		t.Run(strings.ReplaceAll(proto, "/", ""), func(t *testing.T) {
			w := newWorld(t)
			srv := w.serve(4, map[string]Handler{"map-put": func(context.Context, *Request) (any, error) { return MapAck{}, nil }})
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*w.cert(pki.KindCandidate, 2)}}, ForceAttemptHTTP2: proto == "h2"}
			hc := &http.Client{Transport: tr, Timeout: testDeadline}
			defer tr.CloseIdleConnections()
			put := func() error { // the transport repeats a GET by itself
				r, err := http.NewRequest("PUT", "https://"+srv.addr.String()+"/v1/map", strings.NewReader("{}"))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := hc.Do(r)
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, resp.Body)
				return errors.Join(err, resp.Body.Close())
			}
			if err := put(); err != nil {
				t.Fatal(err)
			}
			_, next := w.change(2, 1)
			for _, c := range srv.conns.all() {
				if !c.regrade(next) {
					t.Fatal("the connection is not revoked")
				}
			}
			err := put()
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the call ended with: %v", err)
			}
		})
	}
}

// Hammer: orders of two masters race with changes of the master. A deposed
// one's effect must neither run nor begin once Revoke has returned.
func TestG2EffectsRaceWithRevoke(t *testing.T) {
	w := newWorld(t)
	var running [3]atomic.Int64 // effects in progress, by master
	var allowed [3]atomic.Bool
	allowed[1].Store(true)
	var wrong, ran atomic.Int64
	srv := w.serve(4, map[string]Handler{"key-create": func(ctx context.Context, q *Request) (any, error) {
		n := w.numberOf(q.Grant.Node)
		return nil, Effect(ctx, func() error {
			running[n].Add(1)
			defer running[n].Add(-1)
			for range 20 {
				if !allowed[n].Load() {
					wrong.Add(1)
				}
			}
			ran.Add(1)
			return nil
		})
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, n := range []int{1, 2, 1, 2} {
		c := w.client(pki.KindCandidate, n, srv)
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = c.Call(ctx, Target{Node: ct.NodeID(4)}, MethodKeyCreate, "", struct{}{}, nil)
			}
		})
	}
	for i := range 100 {
		from, to := 1+i%2, 2-i%2
		for before := ran.Load(); ran.Load() == before && !t.Failed(); {
			if err := call(t, w.client(pki.KindCandidate, from, srv), MethodKeyCreate); err != nil {
				t.Errorf("the master's order: %v", err)
			}
		}
		allowed[to].Store(true)
		if err := srv.Revoke(w.change(to, from)); err != nil {
			t.Error(err)
		}
		if n := running[from].Load(); n != 0 {
			t.Errorf("%d effects of the deposed master run", n)
		}
		allowed[from].Store(false)
	}
	cancel()
	wg.Wait()
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d effects of deposed masters", n)
	}
}

// Effect judges again: what was true when the call came need not be true now.
func TestEffectJudgesAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		meanwhile func(w *world, srv *node)
		want      cluster.Code
	}{
		"nothing":   {func(*world, *node) {}, ""},
		"demoted":   {func(w *world, _ *node) { w.change(2) }, cluster.CodeNotInMap},
		"deposed":   {func(w *world, _ *node) { w.change(2, 1) }, cluster.CodeNotMaster},
		"map lost":  {func(w *world, _ *node) { w.view.Store(&candmap.View{}) }, cluster.CodeNoMap},
		"newer map": {func(w *world, _ *node) { w.change(1, 2, 3, 4) }, cluster.CodeMapOlder},
		"expired": {func(w *world, _ *node) {
			end := w.peer(pki.KindCandidate, 1).Identity.NotAfter.Add(time.Second)
			w.now.Store(&end)
		}, cluster.CodeNoCertificate},
		"stale":       {func(w *world, _ *node) { w.fresh.Store(false) }, cluster.CodeMapStale},
		"higher term": {func(w *world, srv *node) { _ = srv.terms.Raise(Stamp{w.view.Load().At(), 2}) }, cluster.CodeTermOlder},
	} {
		w := newWorld(t)
		var srv *node
		done := make(chan bool, 1)
		srv = w.serve(4, map[string]Handler{"key-create": func(ctx context.Context, _ *Request) (any, error) {
			tc.meanwhile(w, srv)
			var ran bool
			err := Effect(ctx, func() error { ran = true; return nil })
			done <- ran
			return nil, err
		}})
		wantCode(t, name, call(t, w.client(pki.KindCandidate, 1, srv), MethodKeyCreate), tc.want)
		if ran := <-done; ran != (tc.want == "") {
			t.Errorf("%s: effect ran: %v", name, ran)
		}
	}
	if err := Effect(t.Context(), func() error { panic("ran") }); err == nil {
		t.Error("an effect outside of a call")
	}
}

// An effect of a lower term ends before a higher term is obeyed.
func TestTermsDoNotOverlap(t *testing.T) {
	w := newWorld(t)
	began, release := make(chan struct{}), make(chan struct{})
	var order []uint64
	var mu sync.Mutex
	srv := w.serve(4, map[string]Handler{"key-create": func(ctx context.Context, q *Request) (any, error) {
		return nil, Effect(ctx, func() error {
			if q.Stamp.Term == 1 {
				close(began)
				<-release
			}
			mu.Lock()
			defer mu.Unlock()
			order = append(order, q.Stamp.Term)
			return nil
		})
	}})
	c := w.client(pki.KindCandidate, 1, srv)
	at := w.view.Load().At()
	srv.terms.high = Stamp{at, 1}
	errs := make(chan error, 2)
	order1 := func(term uint64) {
		errs <- c.Call(WithStamp(t.Context(), Stamp{at, term}), Target{Node: ct.NodeID(4)}, MethodKeyCreate, "", struct{}{}, nil)
	}
	go order1(1)
	<-began
	go order1(2)
	<-srv.ran
	<-srv.ran // both are in their handlers
	close(release)
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(order, []uint64{1, 2}) {
		t.Errorf("order of terms %v", order)
	}
}
