package webserver

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http2"

	"rolekey/internal/memnet"
)

var (
	home = netip.MustParseAddrPort("10.0.0.1:5080")
	away = netip.MustParseAddr("10.0.0.2")
)

// site is a server in a network of virtual time.
type site struct {
	t    *testing.T
	net  *memnet.Network
	cert *tls.Certificate
}

// within runs a test against a server that answers "ok", after it has read the
// body.
func within(t *testing.T, test func(s *site)) {
	cert := selfSigned(t)
	synctest.Test(t, func(t *testing.T) {
		s := &site{t, memnet.New(), cert}
		defer s.net.Close()
		l, err := s.net.Host(home.Addr()).Listen("tcp", home)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- Serve(ctx, Config{
				Listeners: []net.Listener{l}, Log: zap.NewNop(),
				Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if _, err := io.Copy(io.Discard, r.Body); err != nil {
						w.WriteHeader(http.StatusBadRequest)
						return
					}
					fmt.Fprint(w, "ok")
				}),
			})
		}()
		defer func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("it ends with %v", err)
			}
			time.Sleep(time.Minute) // the goroutines of connections, and of clients, end
		}()
		test(s)
	})
}

func selfSigned(t *testing.T) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// dial makes a connection from an address, without TLS.
func (s *site) dial(from netip.Addr) net.Conn {
	s.t.Helper()
	c, err := s.net.Host(from).Dial(s.t.Context(), home)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *site) secure(from netip.Addr, protos ...string) *tls.Conn {
	return tls.Client(s.dial(from), &tls.Config{InsecureSkipVerify: true, NextProtos: protos})
}

// served reports whether a new client of an address gets an answer.
func (s *site) served(from netip.Addr) bool {
	c := s.secure(from)
	defer c.Close()
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if err != nil {
		return false
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return false
	}
	defer r.Body.Close()
	return r.StatusCode == http.StatusOK
}

// endsAfter returns when the server ends a connection.
func endsAfter(c net.Conn) time.Duration {
	began := time.Now()
	_, _ = io.Copy(io.Discard, c)
	return time.Since(began)
}

// TestSlowClientsEnd: whoever sends nothing, or too slowly, or does not take the
// answer, is cut off.
func TestSlowClientsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		send  string // after the handshake
		limit time.Duration
	}{
		"half a header":      {"GET / HTTP/1.1\r\nHost: x\r\n", headerTime},
		"half a body":        {"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf", readTime},
		"half a chunk":       {"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf", readTime},
		"nothing any more":   {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", idleTime},
		"an endless request": {"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n" + strings.Repeat("x", 4096), readTime},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, func(s *site) {
				conn := s.secure(away)
				defer conn.Close()
				if _, err := io.WriteString(conn, c.send); err != nil {
					t.Fatal(err)
				}
				if d := endsAfter(conn); d > c.limit+time.Second {
					t.Errorf("it ends after %s", d)
				}
			})
		})
	}
	t.Run("no handshake", func(t *testing.T) {
		within(t, func(s *site) {
			conn := s.dial(away)
			defer conn.Close()
			if d := endsAfter(conn); d > readTime+time.Second {
				t.Errorf("it ends after %s", d)
			}
		})
	})
}

// TestConnectionsAreBounded: of one peer and in all; others are served while there
// is room, and all when the flood is over.
func TestConnectionsAreBounded(t *testing.T) {
	within(t, func(s *site) {
		var held []net.Conn
		flood := func(from netip.Addr) {
			for range connsPerPeer {
				held = append(held, s.dial(from))
			}
			synctest.Wait()
		}
		flood(away)
		if s.served(away) {
			t.Errorf("more than %d connections of one address", connsPerPeer)
		}
		other := away
		for range conns/connsPerPeer - 1 {
			other = other.Next()
			if !s.served(other) {
				t.Errorf("%s is not served beside the others", other)
			}
			time.Sleep(time.Second) // the server has closed its side, too
			flood(other)
		}
		if s.served(other.Next()) {
			t.Errorf("more than %d connections", conns)
		}
		for _, c := range held {
			_ = c.Close()
		}
		synctest.Wait()
		if !s.served(away) || !s.served(other.Next()) {
			t.Error("nobody is served after the flood")
		}
	})
}

func TestNetworkOfPeer(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1":          "192.0.2.7/32",
		"[::ffff:192.0.2.7]:1": "192.0.2.7/32",
		"[2001:db8::1:2]:1":    "2001:db8::/64",
		"[fe80::1%eth0]:1":     "fe80::/64",
		"nonsense":             "invalid Prefix",
	} {
		if got := Network(addr).String(); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

func TestLargeHeadersAreRefused(t *testing.T) {
	within(t, func(s *site) {
		c := s.secure(away)
		defer c.Close()
		go func() {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 4*headerBytes)+"\r\n\r\n")
		}()
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("status %d", r.StatusCode)
		}
	})
}

func TestOldTLSIsRefused(t *testing.T) {
	within(t, func(s *site) {
		for version, good := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
			c := tls.Client(s.dial(away), &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
			if err := c.Handshake(); (err == nil) != good {
				t.Errorf("%s: %v", tls.VersionName(version), err)
			}
			_ = c.Close()
		}
	})
}

// TestRapidReset: a client that opens streams and cancels them at once does not
// have more work begun than it may have open, and others are served.
func TestRapidReset(t *testing.T) {
	within(t, func(s *site) {
		c := s.secure(away, "h2")
		defer c.Close()
		if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		f := http2.NewFramer(c, c)
		if err := f.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, c) }()
		// HPACK: GET, https, /, and an authority.
		head := []byte{0x82, 0x87, 0x84, 0x41, 0x01, 'x'}
		var err error
		for id := uint32(1); id < 200_000 && err == nil; id += 2 {
			if err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndHeaders: true, EndStream: id%4 == 1}); err == nil {
				err = f.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		}
		if !s.served(away) {
			t.Error("others are not served")
		}
	})
}
