package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/pki"
)

// A certificate that does not hold ends the handshake, even for a call that
// needs none.
func TestBadCertificatesEndTheHandshake(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	chain := *w.cert(pki.KindCandidate, 1)
	chain.Certificate = append(chain.Certificate[:1:1], w.ca.Cert.Raw)
	for name, cert := range map[string]*tls.Certificate{
		"of the future":        w.issue(w.ca, pki.KindIdentity, 4, time.Now().Add(24*time.Hour)),
		"a server's":           w.cert(pki.KindServer, 4),
		"RAPI's":               w.cert(pki.KindRAPI, 1),
		"with a chain":         &chain,
		"the CA's own, no key": {Certificate: [][]byte{w.ca.Cert.Raw}, PrivateKey: w.cert(pki.KindCandidate, 1).PrivateKey},
	} {
		before := len(srv.logs.FilterMessage("rpc refused").All())
		c, err := w.raw(srv, cert, "http/1.1")
		if err == nil { // TLS 1.3: the client is done before the server has judged it
			_, _ = c.Write([]byte("GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"))
			_, err = c.Read(make([]byte, 1024))
		}
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: answered, or left open: %v", name, err)
		}
		if logs := srv.logs.FilterMessage("rpc refused").All(); name != "the CA's own, no key" && (len(logs) != before+1 || logs[before].ContextMap()["method"] != "handshake") {
			t.Errorf("%s: not audited", name)
		}
	}
	if len(srv.ran) != 0 {
		t.Error("a handler ran")
	}
}

func TestOnlyTLS13AndNoResumption(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	if c, err := tls.Dial("tcp", srv.addr.String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		_ = c.Close()
		t.Error("TLS 1.2 was accepted")
	}
	// A client that would resume if it could.
	cert, cache := w.cert(pki.KindCandidate, 2), tls.NewLRUClientSessionCache(8)
	for range 3 {
		c, err := tls.Dial("tcp", srv.addr.String(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*cert}, ClientSessionCache: cache})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"))
		if _, err := c.Read(make([]byte, 1024)); err != nil || c.ConnectionState().DidResume {
			t.Errorf("resumed %v, %v", c.ConnectionState().DidResume, err)
		}
		_ = c.Close()
	}
}

// W10: strangers cannot use up what members need. Slow ones are cut off, many
// push each other out, and a candidate gets through all the while.
func TestW10StrangersAreBounded(t *testing.T) {
	for name, limits := range map[string]Limits{
		"of one network": {StrangersPerIP: 4, Handshake: 3 * time.Second},
		"of all":         {Strangers: 4, Handshake: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			srv := w.serve(4, nil, func(c *ServerConfig) { c.Limits = limits })
			known := w.open(srv, w.cert(pki.KindCandidate, 2))
			var slow []net.Conn
			for range 6 {
				c, err := net.Dial("tcp", srv.addr.String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write([]byte{22}); err != nil { // the first byte of a handshake
					t.Fatal(err)
				}
				_ = c.SetReadDeadline(time.Now().Add(testDeadline))
				slow = append(slow, c)
			}
			// They are accepted in order, so the first ones make room.
			wantClosed(t, "oldest", slow[0])
			wantClosed(t, "next", slow[1])
			if n := srv.Refusals()["busy"]; n != 2 {
				t.Errorf("counted %d", n)
			}
			// A newcomer finds room although all places are taken.
			if err := call(t, w.client(pki.KindCandidate, 2, srv), MethodState); err != nil {
				t.Error(err)
			}
			if _, err := known.Write([]byte("GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			if _, err := known.Read(make([]byte, 1024)); err != nil {
				t.Errorf("a candidate is not served: %v", err)
			}
			for _, c := range slow {
				wantClosed(t, "slow handshake", c)
			}
		})
	}
}

// A stranger's call goes on while idle strangers come and go.
func TestStrangersWithCallsKeepTheirPlace(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	srv := w.serve(4, map[string]Handler{"map-put": func(context.Context, *Request) (any, error) { <-release; return nil, nil }},
		func(c *ServerConfig) { c.Limits.StrangersPerIP = 2 })
	var calls []chan error
	for range 2 {
		calls = append(calls, make(chan error, 1))
		c := w.client("", 0, srv)
		go func(done chan<- error) { done <- call(t, c, MethodMapPut) }(calls[len(calls)-1])
		<-srv.ran
		if idle, err := net.Dial("tcp", srv.addr.String()); err == nil {
			defer idle.Close()
		}
	}
	// Both places are taken by calls now, so this one is hung up on.
	if c, err := net.Dial("tcp", srv.addr.String()); err == nil {
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(testDeadline))
		wantClosed(t, "one too many", c)
	}
	close(release)
	for _, done := range calls {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A host has as many IPv6 addresses as it likes, of one /64.
func TestStrangersAreCountedByNetwork(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8::1", "2001:db8::ffff:0:0:1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"192.0.2.1", "192.0.2.2", false},
		{"::ffff:192.0.2.1", "192.0.2.1", true},
		{"::ffff:192.0.2.1", "192.0.2.2", false},
		{"fe80::1%eth0", "fe80::2%eth0", true},
	} {
		a, b := newConn(&Server{}, from(c.a)), newConn(&Server{}, from(c.b))
		if (a.net == b.net) != c.same {
			t.Errorf("%s counts as %s, %s as %s", c.a, a.net, c.b, b.net)
		}
	}
	w := newWorld(t)
	srv := w.serve(4, nil, func(c *ServerConfig) { c.Limits.StrangersPerIP = 2 })
	var conns []*conn
	for i := range 5 {
		c := newConn(srv.Server, from(fmt.Sprintf("2001:db8::%d", i+1)))
		if !srv.conns.take(c) {
			t.Errorf("no room for %s", c.ip)
		}
		conns = append(conns, c)
	}
	for i, c := range conns {
		if c.closed != (i < 3) {
			t.Errorf("%s: closed %v", c.ip, c.closed)
		}
		c.abort()
	}
	if n := len(srv.conns.all()); n != 0 || srv.conns.strangers.Len() != 0 || len(srv.conns.networks) != 0 {
		t.Errorf("%d connections leak", n)
	}
}

// from is a connection from an address.
func from(ip string) net.Conn {
	one, other := net.Pipe()
	_ = other.Close()
	return remote{one, &net.TCPAddr{IP: netip.MustParseAddr(ip).WithZone("").AsSlice(), Port: 4711, Zone: netip.MustParseAddr(ip).Zone()}}
}

type remote struct {
	net.Conn
	addr net.Addr
}

func (r remote) RemoteAddr() net.Addr { return r.addr }

func TestSlowHeadersAreCutOff(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil, func(c *ServerConfig) { c.Limits.Handshake, c.Limits.Idle = 300*time.Millisecond, 300*time.Millisecond })
	for _, proto := range []string{"http/1.1", "h2"} {
		c, err := w.raw(srv, w.cert(pki.KindIdentity, 4), proto)
		if err != nil {
			t.Fatal(err)
		}
		start := "GET /v1/version HTTP/1.1\r\nX"
		if proto == "h2" { // preface, empty SETTINGS, and a HEADERS frame that never ends
			start = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\xff\x01\x00\x00\x00\x00\x01\x82"
		}
		if _, err := c.Write([]byte(start)); err != nil {
			t.Fatal(err)
		}
		wantClosed(t, proto, c)
	}
}

func TestSlowBodyIsCutOff(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, map[string]Handler{"beacon-put": func(_ context.Context, q *Request) (any, error) { return nil, q.Decode(&struct{}{}) }},
		func(c *ServerConfig) { c.Limits.Body = 200 * time.Millisecond })
	c := w.client("", 0, srv)
	r, pw := io.Pipe()
	defer pw.Close()
	wantCode(t, "a body that never comes", c.Call(t.Context(), Target{Node: ct.NodeID(4)}, MethodBeaconPut, "", r, nil), cluster.CodeUnavailable)
}

func TestConnectionsPerPeerAreBounded(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil, func(c *ServerConfig) { c.Limits.ConnsPerPeer = 2 })
	one, two := w.open(srv, w.cert(pki.KindIdentity, 4)), w.open(srv, w.cert(pki.KindIdentity, 4))
	c, err := w.raw(srv, w.cert(pki.KindIdentity, 4), "http/1.1")
	if err == nil {
		wantClosed(t, "third", c)
	}
	w.open(srv, w.cert(pki.KindIdentity, 5)) // somebody else has room
	_, _ = one.Close(), two.Close()
	for { // until the server has seen the end of them
		c, err := w.raw(srv, w.cert(pki.KindIdentity, 4), "http/1.1")
		if err != nil {
			continue
		}
		_, _ = c.Write([]byte("GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"))
		if n, err := c.Read(make([]byte, 100)); n > 0 && err == nil {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("no room again")
		}
	}
}

func TestHeadersAreBounded(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	r, err := http.NewRequest("GET", "https://"+srv.addr.String()+"/v1/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X", strings.Repeat("x", 64<<10))
	if resp, err := (&http.Client{Transport: tr, Timeout: testDeadline}).Do(r); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode == 200 {
			t.Error("64 KiB of headers were taken")
		}
	}
}

// No peer can fill the disk with audit lines; all is counted.
func TestAuditLinesAreBounded(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil, func(c *ServerConfig) {
		now := time.Now()
		c.Now = func() time.Time { return now }
	})
	c := w.client(pki.KindIdentity, 4, srv)
	for range auditBurst + 50 {
		_ = call(t, c, MethodState)
	}
	wantCode(t, "another peer", call(t, w.client(pki.KindIdentity, 5, srv), MethodState), cluster.CodeNotInMap)
	if n, lines := srv.Refusals()["not_in_map"], srv.logs.FilterMessage("rpc refused").Len(); n != auditBurst+51 || lines != auditBurst+1 {
		t.Errorf("counted %d, wrote %d", n, lines)
	}
}

func TestListenTakesAllOrNone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := netip.MustParseAddrPort("127.0.0.1:0")
	if _, err := Listen(t.Context(), []netip.AddrPort{free, taken.Addr().(*net.TCPAddr).AddrPort()}); err == nil {
		t.Error("listened on a port that is taken")
	}
	l, err := Listen(t.Context(), []netip.AddrPort{free, free})
	if err != nil || len(l) != 2 {
		t.Fatalf("%v, %v", l, err)
	}
	s, err := NewServer(newWorld(t).config(4, pki.KindServer, l[0], nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close(), l[1].Close()); err != nil {
		t.Error(err)
	}
}
