package rapi_test

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/openapitest"
)

var variable = regexp.MustCompile(`\{(\w+):[^/]*\}`)

// TestOpenAPIIsComplete: what is served is described, and the other way round, with
// the permission that it needs.
func TestOpenAPIIsComplete(t *testing.T) {
	c, err := openapitest.New()
	if err != nil {
		t.Fatal(err)
	}
	served, described := map[string]cluster.Permission{}, map[string]cluster.Permission{}
	for _, r := range rapi.Routes(newBench(t, 1).Backend) {
		served[r.Verb+" "+variable.ReplaceAllString(r.Path, "{$1}")] = r.Needs
	}
	for path, item := range c.Doc.Paths.Map() {
		for verb, op := range item.Operations() {
			p, _ := op.Extensions["x-permission"].(string)
			described[verb+" "+path] = cluster.Permission(p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(served)) {
		if described[name] != served[name] {
			t.Errorf("%s needs %q, and is described with %q", name, served[name], described[name])
		}
	}
	for name := range described {
		if _, ok := served[name]; !ok {
			t.Errorf("%s is described, and not served", name)
		}
	}
}

// TestOpenAPICanFail: the check finds what is not as described.
func TestOpenAPICanFail(t *testing.T) {
	c, err := openapitest.New()
	if err != nil {
		t.Fatal(err)
	}
	head := http.Header{"Content-Type": {"application/json"}}
	for _, x := range []struct {
		path, answer string
		status       int
		good         bool
	}{
		{"/2/queue", `{"drained":true}`, 200, true},
		{"/2/queue", `{"drained":true,"more":1}`, 200, false},
		{"/2/queue", `{}`, 200, false},
		{"/2/queue", `{"drained":"no"}`, 200, false},
		{"/2/queue", `{"drained":true}`, 404, false},
		{"/2", `null`, 200, true},
		{"/2", `1`, 200, false},
		{"/2/nodes/x/role", `"king"`, 200, false},
		{"/2/nosuch", `null`, 200, false},
		{"/2/nosuch", `{"code":404}`, 404, false},
	} {
		r, err := http.NewRequest("GET", "http://masterd"+x.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(r, nil, x.status, head, []byte(x.answer)); (err == nil) != x.good {
			t.Errorf("%s %d %s: %v", x.path, x.status, x.answer, err)
		}
	}
}

// answered are the operations of which a good answer was held against the document.
var answered = struct {
	sync.Mutex
	names map[string]bool
}{names: map[string]bool{}}

// TestMain makes sure that the tests together see a good answer to everything.
func TestMain(m *testing.M) {
	code := m.Run()
	c, err := openapitest.New()
	if err != nil || flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.skip").Value.String() != "" {
		os.Exit(code)
	}
	for _, name := range c.Operations() {
		if !answered.names[name] {
			fmt.Fprintf(os.Stderr, "no test has a good answer to %s\n", name)
			code = 1
		}
	}
	os.Exit(code)
}

// described holds an answer against the document.
func described(t testing.TB, r *http.Request, body string, a answer) {
	t.Helper()
	c, err := openapitest.New()
	if err != nil {
		t.Fatal(err)
	}
	if a.status == http.StatusOK {
		answered.Lock()
		answered.names[c.Operation(r)] = true
		answered.Unlock()
	}
	if err := c.Check(r, []byte(body), a.status, a.header, []byte(a.text)); err != nil {
		t.Errorf("%s %s, answered with %d %.200s: not as openapi.yaml says: %v", r.Method, r.URL, a.status, strings.TrimSpace(a.text), err)
	}
}

func TestOpenAPIIsServed(t *testing.T) {
	got := newBench(t, 1).ask("GET", "/2/openapi.yaml", "")
	if got.status != 200 || got.text != string(rapi.OpenAPI) || got.header.Get("Content-Type") != "application/yaml" || got.header.Get("ETag") == "" {
		t.Errorf("%d %v", got.status, got.header)
	}
}
