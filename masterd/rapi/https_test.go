package rapi_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/webserver"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
)

// web is the API as a client of Ganeti sees it: over HTTPS, with Ganeti's users
// of the samples.
type web struct {
	*remote
	addr string
}

func newWeb(t *testing.T, b *bench) *web {
	rapi.FastHashes(t)
	r := &remote{bench: b}
	r.clock = r.Now()
	r.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelRAPI})
	r.serveRemote()
	for _, u := range []string{"admin:" + rapi.Realm + ":secretpw", "reader:" + rapi.Realm + ":readpw"} {
		sum := md5.Sum([]byte(u))
		hash, err := rapi.HashHA1(hex.EncodeToString(sum[:]))
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(u, ":")
		r.Do(state.KindRAPIUser, state.RAPIUserChange{
			Name: name, Hash: hash, Permission: map[string]cluster.Permission{"admin": cluster.PermissionWrite, "reader": cluster.PermissionRead}[name],
		})
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{selfSignedWith(t, key, b.Now())}, PrivateKey: key}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- webserver.Serve(ctx, webserver.Config{
			Listeners: []net.Listener{l}, Handler: r.h, Log: zap.NewNop(),
			Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return &web{r, l.Addr().String()}
}

func (w *web) dial() *tls.Conn {
	w.t.Helper()
	c, err := tls.Dial("tcp", w.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// login is the header of a user.
func login(user string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user)) + "\r\n"
}

// on sends a request, given as it goes over the wire, and reads the answer.
func (w *web) on(c net.Conn, in *bufio.Reader, head, body string) answer {
	w.t.Helper()
	if _, err := io.WriteString(c, head+"\r\n"+body); err != nil {
		w.t.Fatal(err)
	}
	verb, _, _ := strings.Cut(head, " ")
	resp, err := http.ReadResponse(in, &http.Request{Method: verb})
	if err != nil {
		w.t.Fatalf("%q: %v", head, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// TestGanetiSamplesOverHTTPS sends the recorded requests as they were sent, by the
// users who sent them. Where nothing but spaces may differ, nothing does.
func TestGanetiSamplesOverHTTPS(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			w := newWeb(t, sampleCluster(t))
			path := s.path
			if other, ok := samplePaths[path]; ok {
				path = other
			}
			head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n", s.verb, path, len(s.body))
			if s.user != "" {
				head += login(s.user)
			}
			switch {
			case s.json:
				head += "Content-Type: application/json\r\n"
			case s.body != "":
				head += "Content-Type: application/x-www-form-urlencoded\r\n"
			}
			c := w.dial()
			defer c.Close()
			got := w.on(c, bufio.NewReader(c), head, s.body)
			if got.status != s.status || got.header.Get("Content-Type") != "application/json" {
				t.Fatalf("status %d (%s), want %d: %s", got.status, got.header.Get("Content-Type"), s.status, got.text)
			}
			if got.header.Get("WWW-Authenticate") != map[bool]string{true: `Basic realm="Ganeti Remote API"`}[s.status == 401] {
				t.Errorf("WWW-Authenticate: %q", got.header.Get("WWW-Authenticate"))
			}
			var theirs, ours any
			if json.Unmarshal([]byte(s.text), &theirs) != nil || json.Unmarshal([]byte(got.text), &ours) != nil {
				t.Fatalf("%s", got.text)
			}
			exact := s.status != 200 || slices.Contains(same, s.name)
			for _, d := range differences("", theirs, ours, exact) {
				t.Error(d)
			}
		})
	}
}

// TestAsGanetiOverTheWire is about what a client could notice in requests that
// were not recorded, on one connection that is kept.
func TestAsGanetiOverTheWire(t *testing.T) {
	w := newWeb(t, newBench(t, 3))
	c := w.dial()
	defer c.Close()
	in := bufio.NewReader(c)
	const role = "/2/nodes/node2.lab.test/role"
	const asJSON = "Content-Type: application/json\r\n"
	for _, x := range []struct {
		verb, path, header, body string
		status                   int
		text                     string // a part of the answer
	}{
		{"GET", "/version", "Content-Length: 0\r\nAccept: application/json\r\nUser-Agent: Ganeti RAPI Client\r\n", "", 200, "2\n"},
		{"GET", "/version", "Content-Length: 0\r\nContent-Type: text/plain\r\n", "", 200, "2\n"},
		{"GET", "/2/info", asJSON, "{}", 200, "lab.test"},
		{"GET", "/2/info", "Content-Type: text/plain\r\n", "{}", 415, "Unsupported Media Type"},
		{"GET", "/2/info", asJSON, "{", 200, "lab.test"}, // Ganeti reads it, and answers 400
		{"PUT", role, "Content-Type: APPLICATION/JSON\r\n", `"drained"`, 200, ""},
		{"PUT", role, "Content-Type: application/json; charset=utf-8\r\n", `"drained"`, 415, "Entity body in unsupported format"},
		{"PUT", role, "", `"drained"`, 415, ""},
		{"PUT", role, asJSON, "", 400, ""},
		{"PUT", role, asJSON, `"<script>"`, 400, "&lt;script&gt;"},
		{"PUT", role, asJSON, "\"drained\"\r\n", 200, ""},
		{"HEAD", "/2/nodes", "", "", 501, ""},
		{"OPTIONS", "/2/nodes", "", "", 501, "Method OPTIONS is unsupported for path /2/nodes"},
		{"PATCH", role, asJSON, `"drained"`, 501, "Method PATCH is unsupported for path " + role},
		{"POST", "/2/jobs/7", "", "", 501, "Method POST is unsupported"},
		{"GET", "/2/nodes/", "", "", 404, "Nothing matches the given URI"},
		{"GET", "/2//nodes", "", "", 404, ""},
		{"GET", "/2/nodes/../info", "", "", 404, ""},
		{"GET", "/2/nodes/a%2Fb", "", "", 404, ""},
		{"GET", "/3", "", "", 404, ""},
		{"GET", "/2/jobs/999999", "", "", 200, `{"id":999999,"ops":null,"status":null,"summary":null,"opstatus":null,"received_ts":null,"start_ts":null,"end_ts":null,"oplog":null,"opresult":null}`},
		{"GET", "/2/instances?bulk=1", "", "", 501, `"explain":"Server does not support this operation"`},
		{"PUT", "/2/tags?tag=a%3Ab&tag=c%2Bd&tag=e+f", "", "", 200, ""},
		{"PUT", "/2/tags?tag=%zz", "", "", 400, ""},
	} {
		head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%s%s", x.verb, x.path, login("admin:secretpw"), x.header)
		if x.body != "" {
			head += fmt.Sprintf("Content-Length: %d\r\n", len(x.body))
		}
		got := w.on(c, in, head, x.body)
		if got.status != x.status || !strings.Contains(got.text, x.text) || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %q %q: %d %s, want %d and %s", x.verb, x.path, x.header, x.body, got.status, got.text, x.status, x.text)
		}
		if x.status >= 400 && x.verb != "HEAD" {
			var e wire.Error
			if err := json.Unmarshal([]byte(got.text), &e); err != nil || e.Code != x.status || e.Explain == "" {
				t.Errorf("%s %s: %v: %s", x.verb, x.path, err, got.text)
			}
		}
	}
	s, _ := w.State()
	tags := ""
	for _, j := range s.SortedJobs() {
		if strings.HasPrefix(j.Summary[0], "TAGS_SET") {
			tags += string(j.Ops[0])
		}
	}
	if !strings.Contains(tags, `"tags":["a:b","c+d","e f"]`) {
		t.Errorf("tags: %s", tags)
	}
}
