package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/mux"

	"rolekey/pki"
)

// What the gate costs, against a bare net/http server with mutual TLS 1.3, the
// same router and the same handler. The pairs are interleaved, so that both
// sides see the same machine; "ratio" is the median of bare/gate, 1 meaning
// that the gate is free.

// bare is a server without a gate: any certificate of the CA will do.
func bare(b *testing.B, w *world) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(w.ca.Cert)
	router := mux.NewRouter()
	for _, m := range NodedMethods() {
		router.HandleFunc(m.Path, func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, emptyJSON)
		}).Methods(m.Verb)
	}
	s := &http.Server{Handler: router, TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*w.cert(pki.KindServer, 4)},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, SessionTicketsDisabled: true,
	}}
	done := make(chan error, 1)
	go func() { done <- s.ServeTLS(l, "", "") }()
	b.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return "https://" + l.Addr().String()
}

func gated(b *testing.B, w *world) string {
	b.Helper()
	srv := w.serve(4, map[string]Handler{}, func(c *ServerConfig) { c.Limits.ConnsPerPeer = 1 << 20 })
	return "https://" + srv.addr.String()
}

func benchTransport(w *world, keep bool) *http.Transport {
	return &http.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*w.cert(pki.KindCandidate, 1)}},
		ForceAttemptHTTP2:  true,
		DisableCompression: true,
		DisableKeepAlives:  !keep,
	}
}

func get(b *testing.B, tr *http.Transport, url string) time.Duration {
	start := time.Now()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url+"/v1/state", nil)
	if err != nil {
		b.Fatal(err)
	}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	_ = resp.Body.Close()
	return time.Since(start)
}

func benchPairs(b *testing.B, keep bool) {
	w := newWorld(b)
	urls := [2]string{bare(b, w), gated(b, w)}
	trs := [2]*http.Transport{benchTransport(w, keep), benchTransport(w, keep)}
	defer trs[0].CloseIdleConnections()
	defer trs[1].CloseIdleConnections()
	for i := range urls {
		get(b, trs[i], urls[i])
	}
	var took [2][]time.Duration
	for n := 0; b.Loop(); n++ {
		for i := range urls {
			side := (i + n) % 2 // neither always comes second
			took[side] = append(took[side], get(b, trs[side], urls[side]))
		}
	}
	slices.Sort(took[0])
	slices.Sort(took[1])
	mid := len(took[0]) / 2
	b.ReportMetric(float64(took[0][mid].Microseconds()), "bare-µs")
	b.ReportMetric(float64(took[1][mid].Microseconds()), "gate-µs")
	b.ReportMetric(float64(took[0][mid])/float64(took[1][mid]), "ratio")
}

func BenchmarkKeptAlive(b *testing.B)      { benchPairs(b, true) }
func BenchmarkNewConnections(b *testing.B) { benchPairs(b, false) }

// What Client adds on the other side.
func BenchmarkClient(b *testing.B) {
	w := newWorld(b)
	srv := w.serve(4, nil)
	c := w.client(pki.KindCandidate, 1, srv)
	if err := call(b, c, MethodState); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := call(b, c, MethodState); err != nil {
			b.Fatal(err)
		}
	}
}

// The decision itself.
func BenchmarkClassify(b *testing.B) {
	w := newWorld(b)
	view, peer := w.view.Load(), w.peer(pki.KindCandidate, 1)
	for b.Loop() {
		g := Classify(view, peer)
		if g.Allow(&MethodState, view, true) != nil {
			b.Fatal("refused")
		}
	}
}
