package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"rolekey/cluster"
)

var own = Gauge("rolekey_test", "x", "kind")

func server(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Common = func() Common {
		return Common{
			Version: cluster.Version{Epoch: 2, Version: 7}, Fresh: true, Age: 1500 * time.Millisecond,
			Refusals: map[string]int64{"not_in_map": 3}, Certificates: map[string]time.Time{"server": time.Unix(1000, 0)}, AuditLost: 5,
		}
	}
	cfg.Descs, cfg.Collect = []Desc{own}, func(add Add) { add(own, 1, "a") }
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask makes a request from one address to another.
func ask(s *Server, path, from, to string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	at, err := net.ResolveTCPAddr("tcp", to)
	if err == nil {
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(at)))
	}
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func TestMetrics(t *testing.T) {
	s := server(t, Config{})
	for _, from := range []string{"127.0.0.1:5", "[::1]:5", "[::ffff:127.0.0.1]:5", "192.0.2.1:5"} {
		w := ask(s, "/metrics", from, "192.0.2.1:1814")
		for _, want := range []string{
			"rolekey_map_epoch 2\n", "rolekey_map_version 7\n", "rolekey_map_fresh 1\n", "rolekey_map_age_seconds 1.5\n",
			"rolekey_rpc_refusals_total{reason=\"not_in_map\"} 3\n", "rolekey_certificate_expiry_timestamp_seconds{kind=\"server\"} 1000\n",
			"rolekey_audit_lines_lost_total 5\n", "rolekey_test{kind=\"a\"} 1\n", "rolekey_build_info{version=", "process_resident_memory_bytes",
		} {
			if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
				t.Errorf("from %s: status %d, without %q:\n%s", from, w.Code, want, w.Body)
			}
		}
	}
}

// Strangers see what GET /v1/health tells them anyway.
func TestStrangersSeeLittle(t *testing.T) {
	s := server(t, Config{Ready: func() error { return errors.New("the reason") }})
	for _, from := range []string{"192.0.2.2:5", "[2001:db8::1]:5", "not an address"} {
		var names []string
		for l := range strings.Lines(ask(s, "/metrics", from, "192.0.2.1:1814").Body.String()) {
			if !strings.HasPrefix(l, "#") {
				names = append(names, l)
			}
		}
		if got := strings.Join(names, ""); got != "rolekey_map_epoch 2\nrolekey_map_fresh 1\nrolekey_map_version 7\n" {
			t.Errorf("from %s:\n%s", from, got)
		}
		if w := ask(s, "/readyz", from, "192.0.2.1:1814"); w.Code != 503 || w.Body.String() != "not ready\n" {
			t.Errorf("from %s: %d %s", from, w.Code, w.Body)
		}
	}
}

func TestHealth(t *testing.T) {
	var trouble error
	s := server(t, Config{Ready: func() error { return trouble }})
	for _, c := range []struct {
		path    string
		trouble error
		status  int
		text    string
	}{
		{"/healthz", nil, 200, "ok\n"},
		{"/healthz", errors.New("x"), 200, "ok\n"},
		{"/readyz", nil, 200, "ok\n"},
		{"/readyz", errors.New("map 1.2 is stale"), 503, "not ready: map 1.2 is stale\n"},
		{"/other", nil, 404, "404 page not found\n"},
	} {
		trouble = c.trouble
		if w := ask(s, c.path, "127.0.0.1:5", "127.0.0.1:1814"); w.Code != c.status || w.Body.String() != c.text {
			t.Errorf("%s with trouble %v: %d %q", c.path, c.trouble, w.Code, w.Body)
		}
	}
}

// run serves on a port that the system chooses; its address comes when it does.
func run(t *testing.T, cfg Config) (addr <-chan string) {
	at := make(chan string, 1)
	cfg.Addr = netip.MustParseAddrPort("127.0.0.1:1")
	cfg.Listen = func(ctx context.Context, _ string) (net.Listener, error) {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err == nil {
			at <- l.Addr().String()
		}
		return l, err
	}
	s := server(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
	return at
}

func TestConnectionsAreBounded(t *testing.T) {
	addr := <-run(t, Config{Ready: func() error { return nil }})
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range maxConns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		if n, err := c.Read(make([]byte, 100)); n == 0 {
			t.Fatalf("one of %d: %v", maxConns, err)
		}
	}
	over, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	if n, err := over.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("one over the limit was served: %d, %v", n, err)
	}
	_ = open[0].Close()
	for deadline := time.Now().Add(30 * time.Second); ; { // the server has to notice
		r, err := http.Get("http://" + addr + "/healthz")
		if err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no room was made: %v", err)
		}
	}
}

func TestTakenPortIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs, seen := observer.New(zap.WarnLevel)
		tries := 0
		s := server(t, Config{
			Addr: netip.MustParseAddrPort("127.0.0.1:1"), Log: zap.New(logs),
			Listen: func(context.Context, string) (net.Listener, error) {
				tries++
				return nil, errors.New("address already in use")
			},
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*retryPause-time.Second)
		defer cancel()
		if err := s.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a taken port ended the daemon: %v", err)
		}
		if tries != 5 || seen.Len() != 1 {
			t.Errorf("tried %d times, said %d times", tries, seen.Len())
		}
	})
}

func TestParseAddr(t *testing.T) {
	text := func(s string) *string { return &s }
	loop, real := netip.MustParseAddr("127.77.0.3"), netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		text  *string
		addrs []netip.Addr
		want  string
	}{
		{nil, nil, "127.0.0.1:1814"},
		{nil, []netip.Addr{real, loop}, "127.0.0.1:1814"},
		{nil, []netip.Addr{loop}, "127.77.0.3:1814"},
		{nil, []netip.Addr{netip.IPv6Loopback()}, "[::1]:1814"},
		{text(""), []netip.Addr{loop}, "invalid AddrPort"},
		{text("[2001:db8::1]:9"), nil, "[2001:db8::1]:9"},
	} {
		got, err := ParseAddr(c.text, c.addrs, NodedPort)
		if err != nil || got.String() != c.want {
			t.Errorf("%v, %v: %s, %v, want %s", c.text, c.addrs, got, err, c.want)
		}
	}
	for _, bad := range []string{"127.0.0.1", ":1814", "node1:1814", "127.0.0.1:0"} {
		if got, err := ParseAddr(&bad, nil, NodedPort); err == nil {
			t.Errorf("%q was read as %s", bad, got)
		}
	}
}
