package rapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/internal/paths"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/rapitest"
	"rolekey/masterd/rapi/wire"
)

// bench is a served API.
type bench struct {
	t testing.TB
	*rapitest.Backend
	http http.Client
}

func newBench(t *testing.T, nodes int) *bench {
	b := &bench{t: t, Backend: rapitest.New(t, nodes)}
	path := filepath.Join(t.TempDir(), "masterd.sock")
	rapitest.ServeUnix(t, path, rapi.New(b.Backend, b.Now))
	b.dial(func(ctx context.Context) (net.Conn, error) { return paths.DialUnix(ctx, path) })
	return b
}

func (b *bench) dial(dial func(ctx context.Context) (net.Conn, error)) {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	b.http.Transport = t
	b.t.Cleanup(t.CloseIdleConnections)
}

type answer struct {
	status int
	header http.Header
	text   string
}

func (b *bench) ask(verb, path, body string, header ...string) answer {
	b.t.Helper()
	var from io.Reader
	if body != "" {
		from = strings.NewReader(body)
	}
	r, err := http.NewRequest(verb, "http://masterd"+path, from)
	if err != nil {
		b.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		b.t.Fatal(err)
	}
	a := answer{resp.StatusCode, resp.Header, text.String()}
	described(b.t, r, body, a)
	return a
}

// want asks what must succeed, and decodes the answer.
func (b *bench) want(verb, path, body string, into any) {
	b.t.Helper()
	got := b.ask(verb, path, body)
	if got.status != http.StatusOK || !strings.HasSuffix(got.text, "\n") {
		b.t.Fatalf("%s %s: status %d: %q", verb, path, got.status, got.text)
	}
	if err := json.Unmarshal([]byte(got.text), into); err != nil {
		b.t.Fatalf("%s %s: %v: %s", verb, path, err, got.text)
	}
}

// refuse asks what must be refused, and returns the refusal.
func (b *bench) refuse(verb, path, body string, status int) wire.Error {
	b.t.Helper()
	got := b.ask(verb, path, body)
	var e wire.Error
	if err := json.Unmarshal([]byte(got.text), &e); err != nil || got.status != status || e.Code != status {
		b.t.Fatalf("%s %s: status %d, want %d: %s", verb, path, got.status, status, got.text)
	}
	return e
}
