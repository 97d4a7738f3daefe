package rpc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"math"
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

// both serves noded and masterd of node 1, and returns how to call each
// method of a daemon as somebody.
func both(w *world) map[Daemon]*node {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	return map[Daemon]*node{Noded: w.serve(1, nil), Masterd: w.serveOn(l, 1, pki.KindCandidate, nil)}
}

func methodsOf(d Daemon) []Method {
	if d == Masterd {
		return MasterdMethods()
	}
	return NodedMethods()
}

// G1: whoever is not in the candidate map makes no privileged call, whatever
// the cluster's CA signed for it. Every method is tried, with every
// certificate that such a node can have, and no handler may run.
func TestG1OutsideTheMap(t *testing.T) {
	w := newWorld(t)
	for d, srv := range both(w) {
		for _, who := range []struct {
			kind pki.Kind
			n    int
			tier Tier
		}{
			{"", 0, TierOpen},
			{pki.KindCandidate, 4, TierOpen},      // a normal node with a candidate's certificate
			{pki.KindCandidate, former, TierOpen}, // a former candidate
			{pki.KindIdentity, former, TierOpen},  // a former member
			{pki.KindIdentity, 4, TierMember},     // a normal node
			{pki.KindIdentity, 1, TierMember},     // the master's node, by its weak certificate
		} {
			c := w.client(who.kind, who.n, srv)
			for _, m := range methodsOf(d) {
				err := callAt(t, c, Target{Node: ct.NodeID(1), Daemon: d}, m)
				ran := len(srv.ran)
				for range ran {
					<-srv.ran
				}
				if m.Tier <= who.tier {
					if err != nil || ran != 1 {
						t.Errorf("%s of node %d calls %s: %v", who.kind, who.n, m.Name, err)
					}
					continue
				}
				want := cluster.CodeNotInMap
				switch {
				case who.kind == "":
					want = cluster.CodeNoCertificate
				case m.Tier == TierMember:
					want = cluster.CodeNotInRoster
				}
				wantCode(t, m.Name, err, want)
				if ran != 0 {
					t.Errorf("%s of node %d calls %s: the handler ran", who.kind, who.n, m.Name)
				}
			}
		}
	}
}

// G2, W5: a candidate that is not the master calls no method of the master.
func TestG2CandidateIsNotMaster(t *testing.T) {
	w := newWorld(t)
	for d, srv := range both(w) {
		c := w.client(pki.KindCandidate, 2, srv)
		for _, m := range methodsOf(d) {
			var want cluster.Code
			if m.Tier == TierMaster {
				want = cluster.CodeNotMaster
			}
			wantCode(t, m.Name, callAt(t, c, Target{Node: ct.NodeID(1), Daemon: d}, m), want)
		}
		master := w.client(pki.KindCandidate, 1, srv)
		for _, m := range methodsOf(d) {
			wantCode(t, m.Name, callAt(t, master, Target{Node: ct.NodeID(1), Daemon: d}, m), "")
		}
	}
}

func TestStaleMapServesOnlyWhatHeals(t *testing.T) {
	w := newWorld(t)
	w.fresh.Store(false)
	for d, srv := range both(w) {
		c := w.client(pki.KindCandidate, 1, srv)
		for _, m := range methodsOf(d) {
			var want cluster.Code
			if m.Tier >= TierCandidate && !m.Stale {
				want = cluster.CodeMapStale
			}
			wantCode(t, m.Name, callAt(t, c, Target{Node: ct.NodeID(1), Daemon: d}, m), want)
		}
	}
}

// A digest that reached another node's entry proves nothing.
func TestIdentityMismatchOnTheWire(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	m := ct.Next(w.m)
	for i := range m.Candidates {
		if m.Candidates[i].UUID == ct.NodeID(2) {
			m.Candidates[i].Client = []cluster.Digest{pki.DigestOf(w.cert(pki.KindCandidate, 5).Leaf)}
		}
	}
	w.set(m, w.view.Load().Roster)
	wantCode(t, "state", call(t, w.client(pki.KindCandidate, 5, srv), MethodState), cluster.CodeIdentityMismatch)
	wantCode(t, "state", call(t, w.client(pki.KindCandidate, 2, srv), MethodState), cluster.CodeNotInMap)
}

func TestStampIsCompared(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	held := w.view.Load().At()
	srv.terms.high = Stamp{held, 5}
	c := w.client(pki.KindCandidate, 1, srv)
	for name, tc := range map[string]struct {
		stamp Stamp
		want  cluster.Code
	}{
		"right":        {Stamp{held, 5}, ""},
		"older term":   {Stamp{held, 4}, cluster.CodeTermOlder},
		"older map":    {Stamp{cluster.Version{Epoch: held.Epoch}, 5}, cluster.CodeMapOlder},
		"newer map":    {Stamp{cluster.Version{Epoch: held.Epoch, Version: held.Version + 1}, 5}, cluster.CodeConflict},
		"newer epoch":  {Stamp{cluster.Version{Epoch: held.Epoch + 1, Version: 1}, 5}, cluster.CodeConflict},
		"both are old": {Stamp{cluster.Version{}, 0}, cluster.CodeMapOlder},
	} {
		err := c.Call(WithStamp(t.Context(), tc.stamp), Target{Node: ct.NodeID(4)}, MethodKeyCreate, "", struct{}{}, nil)
		wantCode(t, name, err, tc.want)
		var se *StampError
		if about := tc.want == cluster.CodeMapOlder || tc.want == cluster.CodeConflict; errors.As(err, &se) != about || about && se.Held != held {
			t.Errorf("%s: the refusal does not tell the version held: %v", name, err)
		}
	}
	if srv.terms.high != (Stamp{held, 5}) {
		t.Errorf("remembered %s", srv.terms.high)
	}
	if err := c.Call(WithStamp(t.Context(), Stamp{held, 9}), Target{Node: ct.NodeID(4)}, MethodKeyCreate, "", struct{}{}, nil); err != nil || srv.terms.high != (Stamp{held, 9}) {
		t.Errorf("a higher term: %v, remembered %s", err, srv.terms.high)
	}
	srv.terms.fail = errors.New("disk full")
	if err := c.Call(WithStamp(t.Context(), Stamp{held, 10}), Target{Node: ct.NodeID(4)}, MethodKeyCreate, "", struct{}{}, nil); cluster.CodeOf(err) != cluster.CodeInternal {
		t.Errorf("a term that cannot be remembered: %v", err)
	}
}

// A hostile master names the highest term there is: the next map ends that.
func TestHostileTermEndsWithItsMap(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	order := func(n int, s Stamp) error {
		c := w.client(pki.KindCandidate, n, srv)
		return c.Call(WithStamp(t.Context(), s), Target{Node: ct.NodeID(4)}, MethodKeyCreate, "", struct{}{}, nil)
	}
	first := w.view.Load().At()
	if err := order(1, Stamp{first, math.MaxUint64}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "lower term, same map", order(1, Stamp{first, 7}), cluster.CodeTermOlder)
	_, next := w.change(2, 1)
	now := Stamp{next.At(), 7}
	wantCode(t, "the next master", order(2, now), "")
	if srv.terms.high != now {
		t.Errorf("remembered %s, want %s", srv.terms.high, now)
	}
	wantCode(t, "its lower term", order(2, Stamp{next.At(), 6}), cluster.CodeTermOlder)
	wantCode(t, "highest term, older map", order(2, Stamp{first, math.MaxUint64}), cluster.CodeMapOlder)
	// A node that lost its newest map does not obey by the one before.
	srv.terms.high = Stamp{cluster.Version{Epoch: now.Version.Epoch, Version: now.Version.Version + 1}, 1}
	wantCode(t, "map older than the one obeyed", order(2, Stamp{now.Version, 8}), cluster.CodeMapOlder)
}

// ask sends one request over a connection of its own and returns the answer.
func ask(t *testing.T, w *world, srv *node, cert *tls.Certificate, verb, path, body string, header ...string) (int, http.Header, string) {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	r, err := http.NewRequest(verb, "https://"+srv.addr.String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Client{Transport: tr, Timeout: testDeadline}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func TestRefusalIsToldCountedAndAudited(t *testing.T) {
	w := newWorld(t)
	records := make(chan Refusal, 10)
	srv := w.serve(4, nil, func(c *ServerConfig) { c.Audit = func(r Refusal) { records <- r } })
	cert := w.cert(pki.KindCandidate, former)
	status, _, text := ask(t, w, srv, cert, "POST", "/v1/key/create", "{}", RequestIDHeader, "0123456789abcdef")
	var body map[string]any
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		t.Fatal(err)
	}
	if status != 403 || body["code"] != "not_in_map" || body["node"] != string(ct.Name(4)) || body["request_id"] != "0123456789abcdef" || len(body) != 5 {
		t.Errorf("status %d, body %s", status, text)
	}
	if n := srv.Refusals()["not_in_map"]; n != 1 {
		t.Errorf("counted %d", n)
	}
	logs := srv.logs.FilterMessage("rpc refused").All()
	if len(logs) != 1 || len(records) != 1 {
		t.Fatalf("%d log lines, %d audit records", len(logs), len(records))
	}
	f := logs[0].ContextMap()
	if f["reason"] != "not_in_map" || f["peer_digest"] != pki.DigestOf(cert.Leaf).String() || f["peer_node"] != ct.NodeID(former).String() ||
		f["method"] != "key-create" || f["request_id"] != "0123456789abcdef" || f["remote"] == "" || len(f) != 6 {
		t.Errorf("log fields %v", f)
	}
	if a := <-records; a.Reason != cluster.CodeNotInMap || a.PeerNode != ct.NodeID(former) {
		t.Errorf("audit record %+v", a)
	}
}

func TestRequestIDFromOutsideIsChecked(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	for _, id := range []string{"", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "0123456789abcde\""} {
		_, _, text := ask(t, w, srv, nil, "GET", "/v1/state", "", RequestIDHeader, id)
		var body cluster.Error
		if err := json.Unmarshal([]byte(text), &body); err != nil || len(body.RequestID) != requestIDLen || body.RequestID == id {
			t.Errorf("id %q: answered %s", id, text)
		}
	}
}

func TestStrayCallsAreRefusals(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	for _, tc := range []struct {
		verb, path string
		status     int
		allow      string
	}{{"GET", "/", 404, ""}, {"GET", "/v2/version", 404, ""}, {"POST", "/v1/map", 405, "GET,PUT"}, {"DELETE", "/v1/state", 405, "GET"}} {
		status, header, text := ask(t, w, srv, nil, tc.verb, tc.path, "")
		var body cluster.Error
		if err := json.Unmarshal([]byte(text), &body); err != nil || status != tc.status || body.Code != cluster.CodeNotFound || body.RequestID == "" {
			t.Errorf("%s %s: %d %s", tc.verb, tc.path, status, text)
		}
		if allow := strings.Join(header.Values("Allow"), ","); allow != tc.allow {
			t.Errorf("%s %s: Allow %q, want %q", tc.verb, tc.path, allow, tc.allow)
		}
	}
	if n := srv.Refusals()["not_found"]; n != 4 {
		t.Errorf("counted %d", n)
	}
}

func TestBodiesAreStrictAndBounded(t *testing.T) {
	w := newWorld(t)
	read := func(_ context.Context, q *Request) (any, error) {
		var v struct{ A int }
		return nil, q.Decode(&v)
	}
	srv := w.serve(4, map[string]Handler{"key-create": read, "map-put": read})
	stamp := Stamp{w.view.Load().At(), 1}.String()
	master := w.cert(pki.KindCandidate, 1)
	big := `{"A":1}` + strings.Repeat(" ", smallBody)
	for body, want := range map[string]cluster.Code{
		`{"A":1}`: "", `{"A":1,"B":2}`: cluster.CodeBadFormat, `{"A":1}{}`: cluster.CodeBadFormat, `{"A":`: cluster.CodeBadFormat,
		``: cluster.CodeBadFormat, `{"A":"x"}`: cluster.CodeBadFormat, big: cluster.CodeTooLarge,
	} {
		status, _, text := ask(t, w, srv, master, "POST", "/v1/key/create", body, StampHeader, stamp)
		var e cluster.Error
		if err := json.Unmarshal([]byte(text), &e); err != nil || e.Code != want || want != "" && status != want.HTTPStatus() {
			t.Errorf("body of %d bytes %.20q: %d %s", len(body), body, status, text)
		}
	}
	// A stranger's delivery may be smaller than a master's.
	delivery := `{"A":1}` + strings.Repeat(" ", int(DefaultLimits.LargeBody))
	if status, _, text := ask(t, w, srv, nil, "PUT", "/v1/map", delivery); status != 413 {
		t.Errorf("large delivery of a stranger: %d %s", status, text)
	}
	if status, _, text := ask(t, w, srv, master, "PUT", "/v1/map", delivery); status != 200 {
		t.Errorf("large delivery of the master: %d %s", status, text)
	}
}

// An endless body without a length is cut off at the limit.
func TestBodyWithoutLengthIsBounded(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, map[string]Handler{"key-create": func(_ context.Context, q *Request) (any, error) {
		return nil, q.Decode(&struct{}{})
	}})
	c := w.client(pki.KindCandidate, 1, srv)
	err := c.Call(t.Context(), Target{Node: ct.NodeID(4)}, MethodKeyCreate, "", io.LimitReader(spaces{}, 1<<30), nil)
	wantCode(t, "endless body", err, cluster.CodeTooLarge)
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestHandlerFailures(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, map[string]Handler{
		"version": func(context.Context, *Request) (any, error) { panic("boom") },
		"health":  func(context.Context, *Request) (any, error) { return nil, errors.New("inner detail") },
		"state":   func(context.Context, *Request) (any, error) { return nil, errors.New("inner detail") },
		"map-get": func(context.Context, *Request) (any, error) { return func() {}, nil },
	})
	c := w.client(pki.KindCandidate, 2, srv)
	for _, m := range []Method{MethodVersion, MethodHealth, MethodState, MethodMapGet} {
		wantCode(t, m.Name, call(t, c, m), cluster.CodeInternal)
	}
	// A stranger learns nothing, a candidate does.
	if err := call(t, w.client("", 0, srv), MethodHealth); strings.Contains(err.Error(), "inner") {
		t.Errorf("a stranger is told %q", err)
	}
	if err := call(t, c, MethodState); !strings.Contains(err.Error(), "inner detail") {
		t.Errorf("a candidate is told %q", err)
	}
	if n := srv.logs.FilterMessage("rpc handler panicked").Len(); n != 1 {
		t.Errorf("%d panics logged", n)
	}
}

func TestHandlerTimeIsBounded(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	m := MethodState
	m.Name, m.Path, m.Timeout = "slow", "/v1/slow", time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(w.config(4, pki.KindServer, l, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	s.Handle(m, func(ctx context.Context, _ *Request) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	srv.addr = l.Addr().(*net.TCPAddr).AddrPort()
	m.Timeout = testDeadline
	wantCode(t, "slow handler", call(t, w.client(pki.KindCandidate, 1, srv), m), cluster.CodeUnavailable)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestArguments(t *testing.T) {
	w := newWorld(t)
	echo := func(_ context.Context, q *Request) (any, error) { return q.Arg(), nil }
	srv := w.serve(4, map[string]Handler{"map-get": echo, "roster-get": echo, "version": echo})
	c := w.client(pki.KindIdentity, 4, srv)
	to := Target{Node: ct.NodeID(4)}
	for _, tc := range []struct {
		m   Method
		arg string
	}{{MethodMapGet, "1.42"}, {MethodMapGet, "a&b=c d"}, {MethodMapGet, ""}, {MethodRosterGet, "00ff"}, {MethodVersion, ""}} {
		var got string
		if err := c.Call(t.Context(), to, tc.m, tc.arg, nil, &got); err != nil || got != tc.arg {
			t.Errorf("%s(%q): %q, %v", tc.m.Name, tc.arg, got, err)
		}
	}
	for _, bad := range []string{"", "a/b", "..", "a?b", "a b"} {
		if err := c.Call(t.Context(), to, MethodRosterGet, bad, nil, nil); err == nil {
			t.Errorf("argument %q was sent", bad)
		}
	}
	if err := c.Call(t.Context(), to, MethodVersion, "x", nil, nil); err == nil {
		t.Error("an argument that nobody asked for was sent")
	}
}

func TestRawBodies(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := w.serveOn(l, 1, pki.KindCandidate, map[string]Handler{"raft": func(_ context.Context, q *Request) (any, error) {
		b, err := io.ReadAll(q.HTTP.Body)
		return append(b, q.Arg()...), err
	}})
	c := w.client(pki.KindCandidate, 2, srv)
	to := Target{Node: ct.NodeID(1), Daemon: Masterd}
	var got []byte
	if err := c.Call(t.Context(), to, MethodRaft, "vote", []byte{0, 1, 0xff}, &got); err != nil || string(got) != "\x00\x01\xffvote" {
		t.Errorf("bytes: %q, %v", got, err)
	}
	var sb strings.Builder
	if err := c.Call(t.Context(), to, MethodRaft, "snapshot", io.LimitReader(spaces{}, 100000), &sb); err != nil || sb.Len() != 100008 {
		t.Errorf("stream: %d bytes, %v", sb.Len(), err)
	}
	m := MethodRaft
	m.MaxReply = 1
	if err := c.Call(t.Context(), to, m, "snapshot", io.LimitReader(spaces{}, 100000), &sb); cluster.CodeOf(err) != cluster.CodeTooLarge {
		t.Errorf("an answer over the limit: %v", err)
	}
}

// The exporter is the same at both ends, and of this connection only.
func TestAdmissionExporter(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := w.serveOn(l, 1, pki.KindCandidate, map[string]Handler{"admit": func(_ context.Context, q *Request) (any, error) {
		e, err := pki.Exporter(q.TLS())
		return e[:], err
	}})
	c := w.client("", 0, srv)
	seen := map[string]bool{}
	for range 2 {
		a, err := c.DialAdmission(t.Context(), netip.MustParseAddrPort("192.0.2.1:1812"), nil)
		if err != nil {
			t.Fatal(err)
		}
		state := a.State()
		mine, err := pki.Exporter(&state)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			var theirs []byte
			if err := a.Call(t.Context(), MethodAdmit, "", struct{}{}, &theirs); err != nil || string(theirs) != string(mine[:]) {
				t.Errorf("exporters differ: %v", err)
			}
		}
		if seen[string(mine[:])] {
			t.Error("two connections have one exporter")
		}
		seen[string(mine[:])] = true
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}
