package rapi_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/masterd/rapi"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// remote is the API as the network sees it.
type remote struct {
	*bench
	h     http.Handler
	clock time.Time

	mu   sync.Mutex
	told []audit.Event
}

func newRemote(t *testing.T, nodes int) *remote {
	r := &remote{bench: newBench(t, nodes)}
	r.clock = r.Now()
	r.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelRAPI})
	r.serveRemote()
	return r
}

// serveRemote makes the handler for the network.
func (r *remote) serveRemote() {
	logins := rapi.NewLogins(r.State, func() time.Time { return r.clock })
	r.h = rapi.NewRemote(r.Backend, r.Now, logins.Identify, func(e audit.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told = append(r.told, e)
	})
}

func (r *remote) user(name, password string, p cluster.Permission) {
	r.t.Helper()
	hash, err := rapi.HashPassword([]byte(password))
	if err != nil {
		r.t.Fatal(err)
	}
	r.Do(state.KindRAPIUser, state.RAPIUserChange{Name: name, Permission: p, Hash: hash})
}

// call asks as a user, "" for nobody, from an address.
func (r *remote) call(verb, path, body, user, password string, also ...func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest(verb, path, strings.NewReader(body))
	if body == "" {
		req = httptest.NewRequest(verb, path, nil)
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	for _, f := range also {
		f(req)
	}
	w := httptest.NewRecorder()
	r.h.ServeHTTP(w, req)
	described(r.t, req, body, answer{w.Code, w.Header(), w.Body.String()})
	return w
}

// TestRAPIPermissions walks every path as each kind of caller: nobody learns
// anything, and no one does more than he may.
func TestRAPIPermissions(t *testing.T) {
	rapi.FastHashes(t)
	r := newRemote(t, 4)
	users := map[string]cluster.Permission{"": "", "reader": cluster.PermissionRead, "writer": cluster.PermissionWrite, "admin": cluster.PermissionAdmin}
	for name, p := range users {
		if name != "" {
			r.user(name, "password of "+name, p)
		}
	}
	for _, route := range rapi.Routes(r.Backend) {
		path := strings.NewReplacer("{node}", "node2.lab.test", "{job:[0-9]{1,18}}", "77", "{id}", "6ba7b810-9dad-11d1-80b4-00c04fd430c8").Replace(route.Path)
		for name, p := range users {
			w := r.call(route.Verb, path, "[", name, "password of "+name) // never a body that does anything
			switch {
			case name == "" && w.Code != http.StatusUnauthorized:
				t.Errorf("%s %s as nobody: %d", route.Verb, path, w.Code)
			case name != "" && !p.Allows(route.Needs) && w.Code != http.StatusForbidden:
				t.Errorf("%s %s as %s: %d", route.Verb, path, name, w.Code)
			case name != "" && p.Allows(route.Needs) && (w.Code == http.StatusUnauthorized || strings.Contains(w.Body.String(), `"Forbidden"`)):
				t.Errorf("%s %s as %s: %d", route.Verb, path, name, w.Code)
			}
		}
	}
	for _, path := range []string{"/2/nosuch", "/2/nodes/x/y"} {
		if w := r.call("GET", path, "", "", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("%s as nobody: %d", path, w.Code)
		}
	}
}

// TestRAPICertificatePermissions walks every path as an administrator of each
// permission, by certificate.
func TestRAPICertificatePermissions(t *testing.T) {
	rapi.FastHashes(t)
	r := newRemote(t, 4)
	for _, p := range []cluster.Permission{cluster.PermissionRead, cluster.PermissionWrite, cluster.PermissionAdmin} {
		cert := selfSigned(t, r.clock)
		r.Do(state.KindRAPIAdmin, state.RAPIAdminChange{Name: string(p), Permission: p, Digest: cluster.DigestOf(cert.Raw), NotAfter: cert.NotAfter})
		show := func(req *http.Request) { req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}} }
		for _, route := range rapi.Routes(r.Backend) {
			path := strings.NewReplacer("{node}", "node2.lab.test", "{job:[0-9]{1,18}}", "77", "{id}", "6ba7b810-9dad-11d1-80b4-00c04fd430c8").Replace(route.Path)
			w := r.call(route.Verb, path, "[", "", "", show)
			if refused := strings.Contains(w.Body.String(), `"Forbidden"`); refused == p.Allows(route.Needs) || w.Code == http.StatusUnauthorized {
				t.Errorf("%s %s with %s: %d", route.Verb, path, p, w.Code)
			}
		}
	}
}

// TestRAPIAddresses: who may write may not say where a node is, or what its name
// is: root's known_hosts follows both.
func TestRAPIAddresses(t *testing.T) {
	rapi.FastHashes(t)
	r := newRemote(t, 2)
	r.user("amy", "the password", cluster.PermissionWrite)
	r.user("root", "the password", cluster.PermissionAdmin)
	for _, c := range [][2]string{
		{"/modify", `{"addresses":["192.0.2.9"]}`}, {"/modify", `{"secondary_ip":"192.0.2.9"}`}, {"/rename", `{"new_name":"backup.example"}`},
	} {
		amy := r.call("POST", "/2/nodes/node2"+c[0], c[1], "amy", "the password").Code
		if root := r.call("POST", "/2/nodes/node2"+c[0], c[1], "root", "the password").Code; amy != 403 || root != 200 {
			t.Errorf("%s: %d with write, %d with admin", c[1], amy, root)
		}
	}
}

// TestRAPIForeignPages: what a page of another site makes an administrator's browser
// ask is refused; programs, which are no browsers, are not concerned.
func TestRAPIForeignPages(t *testing.T) {
	rapi.FastHashes(t)
	r := newRemote(t, 4)
	r.user("root", "the password", cluster.PermissionAdmin)
	header := func(k, v string) func(*http.Request) { return func(req *http.Request) { req.Header.Set(k, v) } }
	for name, c := range map[string]struct {
		verb, path string
		also       func(*http.Request)
		status     int
	}{
		"a program":            {"POST", "/2/nodes/node2/readd", func(*http.Request) {}, 200},
		"a form of a page":     {"POST", "/2/nodes/node2/readd", header("Sec-Fetch-Site", "cross-site"), 403},
		"of an old browser":    {"POST", "/2/verify", header("Origin", "https://evil.example"), 403},
		"of the same site":     {"POST", "/2/verify", header("Sec-Fetch-Site", "same-origin"), 200},
		"a link":               {"GET", "/2/info", header("Sec-Fetch-Site", "cross-site"), 200},
		"a script that writes": {"PUT", "/2/tags?tag=x", header("Origin", "null"), 403},
	} {
		w := r.call(c.verb, c.path, "", "root", "the password", c.also)
		if w.Code != c.status || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, c.status, w.Body)
		}
	}
}

// TestRAPIUserChanges: a password that was checked a moment ago is refused as
// soon as it is changed, and a user as soon as he is removed.
func TestRAPIUserChanges(t *testing.T) {
	rapi.FastHashes(t)
	r := newRemote(t, 2)
	r.user("amy", "the first password", cluster.PermissionWrite)
	get := func(password string) int { return r.call("GET", "/2/info", "", "amy", password).Code }
	for range 2 {
		if get("the first password") != 200 {
			t.Error("the password")
		}
	}
	if get("another password") != 401 {
		t.Error("another password")
	}
	r.user("amy", "the second password", cluster.PermissionWrite)
	if get("the first password") != 401 || get("the second password") != 200 {
		t.Error("after the change")
	}
	r.user("amy", "the second password", cluster.PermissionRead)
	if w := r.call("PUT", "/2/nodes/node2.lab.test/role", `"drained"`, "amy", "the second password"); w.Code != 403 {
		t.Errorf("after the loss of a right: %d", w.Code)
	}
	r.Do(state.KindRAPIUser, state.RAPIUserChange{Name: "amy"})
	if get("the second password") != 401 {
		t.Error("after the removal")
	}
}

// TestRAPIHA1: users of Ganeti whose passwords are known by hash alone.
func TestRAPIHA1(t *testing.T) {
	rapi.FastHashes(t)
	r := newRemote(t, 2)
	sum := md5.Sum([]byte("zoe:" + rapi.Realm + ":secretpw"))
	hash, err := rapi.HashHA1(strings.ToUpper(hex.EncodeToString(sum[:])))
	if err != nil {
		t.Fatal(err)
	}
	r.Do(state.KindRAPIUser, state.RAPIUserChange{Name: "zoe", Permission: cluster.PermissionRead, Hash: hash})
	if a, b := r.call("GET", "/2/info", "", "zoe", "secretpw").Code, r.call("GET", "/2/info", "", "zoe", "secretpx").Code; a != 200 || b != 401 {
		t.Errorf("%d, %d", a, b)
	}
	if _, err := rapi.HashHA1("00"); err == nil {
		t.Error("a short hash")
	}
}

// TestRAPIThrottle: whoever is wrong again and again waits, others and known
// good logins do not.
func TestRAPIThrottle(t *testing.T) {
	rapi.FastHashes(t)
	r := newRemote(t, 2)
	r.user("amy", "the right password", cluster.PermissionRead)
	from := func(addr string) func(*http.Request) { return func(req *http.Request) { req.RemoteAddr = addr } }
	get := func(password, addr string) int { return r.call("GET", "/2/info", "", "amy", password, from(addr)).Code }
	codes := map[int]int{}
	for range 20 {
		codes[get("a wrong password", "192.0.2.1:1000")]++
	}
	if codes[401] < 10 || codes[429] < 8 {
		t.Errorf("wrong ones: %v", codes)
	}
	if get("the right password", "192.0.2.1:2000") != 429 || get("the right password", "192.0.2.2:1000") != 200 {
		t.Error("the throttle is for another")
	}
	if get("the right password", "192.0.2.1:3000") != 200 {
		t.Error("a login that was checked before waits")
	}
	r.clock = r.clock.Add(time.Hour)
	if get("the right password", "192.0.2.1:2000") != 200 {
		t.Error("it lasts for ever")
	}
}

// TestRAPIAdministrator: a certificate counts by its digest in the state, and
// no longer than that.
func TestRAPIAdministrator(t *testing.T) {
	rapi.FastHashes(t)
	r := newRemote(t, 2)
	cert := selfSigned(t, r.clock)
	r.user("amy", "the right password", cluster.PermissionRead)
	show := func(req *http.Request) { req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}} }
	get := func(user string) int { return r.call("GET", "/2/info", "", user, "the right password", show).Code }
	if get("") != 401 || get("amy") != 401 {
		t.Error("an unknown certificate")
	}
	r.Do(state.KindRAPIAdmin, state.RAPIAdminChange{Name: "root", Permission: cluster.PermissionAdmin, Digest: cluster.DigestOf(cert.Raw), NotAfter: r.Now().Add(time.Hour)})
	if get("") != 200 {
		t.Error("the administrator's")
	}
	r.Do(state.KindRAPIAdmin, state.RAPIAdminChange{Name: "root"})
	if get("") != 401 {
		t.Error("after the removal")
	}
}

func selfSigned(t *testing.T, now time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestRAPIAudit: what may change something and what is refused leaves a line,
// with the id that the answer carries.
func TestRAPIAudit(t *testing.T) {
	rapi.FastHashes(t)
	r := newRemote(t, 2)
	r.user("amy", "the right password", cluster.PermissionWrite)
	read := r.call("GET", "/2/info", "", "amy", "the right password")
	write := r.call("PUT", "/2/nodes/node2.lab.test/role", `"drained"`, "amy", "the right password")
	r.call("GET", "/2/info", "", "amy", "the wrong password")
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.told) != 2 || r.told[0].RequestID != write.Header().Get(rpc.RequestIDHeader) || r.told[0].Outcome != audit.OK ||
		!strings.Contains(r.told[0].Actor, "amy") || r.told[1].Outcome != audit.Refused || r.told[1].Code != cluster.CodeUnauthorized {
		t.Errorf("told: %+v", r.told)
	}
	if read.Code != 200 || write.Code != 200 {
		t.Errorf("%d %d", read.Code, write.Code)
	}
}

// TestRAPIFlood: whoever asks many times at once has no more guesses than one
// who asks in turn.
func TestRAPIFlood(t *testing.T) {
	rapi.FastHashes(t)
	r := newRemote(t, 2)
	r.user("amy", "the right password", cluster.PermissionRead)
	var mu sync.Mutex
	var all sync.WaitGroup
	codes := map[int]int{}
	for range 200 {
		all.Go(func() {
			w := r.call("GET", "/2/info", "", "amy", "a wrong password")
			mu.Lock()
			defer mu.Unlock()
			codes[w.Code]++
		})
	}
	all.Wait()
	if codes[http.StatusUnauthorized] > 13 || codes[http.StatusTooManyRequests] < 180 { // ten, and those under way
		t.Errorf("answers: %v", codes)
	}
}
