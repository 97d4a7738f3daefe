package rapi_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rolekey/masterd/rapi"
	"rolekey/masterd/state"
)

// sample is an answer recorded from Ganeti 3.0.2.
type sample struct {
	name             string
	verb, path, body string
	json             bool   // the body was sent as JSON
	user             string // with a password; empty: nobody
	status           int
	text             string
}

var sampleHead = regexp.MustCompile(`^# (\S+) (\S+)  \(curl args: (.*)\)\n`)

func samples(t *testing.T) []sample {
	t.Helper()
	files, err := filepath.Glob("testdata/ganeti/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d samples: %v", len(files), err)
	}
	var out []sample
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(raw), "\r", "")
		m := sampleHead.FindStringSubmatch(text)
		rest := text[len(m[0]):]
		s := sample{name: filepath.Base(f), verb: m[1], path: m[2], json: strings.Contains(m[3], "application/json")}
		if _, user, ok := strings.Cut(m[3], "-u "); ok {
			s.user, _, _ = strings.Cut(user, " ")
		}
		if _, body, ok := strings.Cut(m[3], "-d "); ok {
			s.body = body
		}
		if s.status, err = strconv.Atoi(strings.Fields(rest)[1]); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		_, s.text, _ = strings.Cut(rest, "\n\n")
		out = append(out, s)
	}
	return out
}

// sampleCluster is what the samples were recorded from, as far as it matters:
// four nodes, of which three are candidates; a job that succeeded and one that
// failed.
func sampleCluster(t *testing.T) *bench {
	b := newBench(t, 4)
	b.Promote(2)
	b.Promote(3)
	for _, u := range []state.JobUpdate{
		{
			Status: state.JobSuccess, OpResult: []json.RawMessage{json.RawMessage(`[["master_candidate","False"]]`)},
			Log: []state.LogLine{{Text: " - INFO: Ignoring request to unset flag drained, already unset"}},
		},
		{
			Status: state.JobError, Error: new("Can't set the node into more than one state at the same time"),
			OpResult: []json.RawMessage{json.RawMessage(`["OpPrereqError",["Can't set the node into more than one state at the same time","wrong_input"]]`)},
		},
	} {
		u.ID = b.Do(state.KindJobSubmit, state.JobSubmit{
			Ops:     []json.RawMessage{json.RawMessage(`{"OP_ID":"OP_NODE_SET_PARAMS","node_name":"node2.lab.test"}`)},
			Summary: []string{"NODE_SET_PARAMS(node2.lab.test)"},
		}).JobID
		b.Do(state.KindJobUpdate, state.JobUpdate{ID: u.ID, Status: state.JobRunning})
		b.Do(state.KindJobUpdate, u)
	}
	return b
}

// paths of the samples whose job has another number here.
var samplePaths = map[string]string{"/2/jobs/101": "/2/jobs/1", "/2/jobs/100": "/2/jobs/2"}

// same lists the samples whose body is the same here.
var same = []string{"2.txt", "root.txt", "version.txt", "node-role.txt", "nodes.txt", "job-404.txt"}

func TestGanetiSamples(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			b := sampleCluster(t)
			path := s.path
			if other, ok := samplePaths[path]; ok {
				path = other
			}
			var header []string
			if s.body != "" && !s.json {
				header = []string{"Content-Type", "application/x-www-form-urlencoded"}
			}
			got := b.ask(s.verb, path, s.body, header...)
			if s.status == 401 {
				got = b.stranger(s.verb, path)
			}
			if got.status != s.status || got.header.Get("Content-Type") != "application/json" {
				t.Fatalf("status %d (%s), want %d: %s", got.status, got.header.Get("Content-Type"), s.status, got.text)
			}
			var theirs, ours any
			if err := json.Unmarshal([]byte(s.text), &theirs); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(got.text), &ours); err != nil {
				t.Fatalf("%v: %s", err, got.text)
			}
			for _, d := range differences("", theirs, ours, s.status != 200 || slices.Contains(same, s.name)) {
				t.Error(d)
			}
		})
	}
}

// differences lists what a client of Ganeti would miss: keys, and values of
// another kind; with exact, other values too. Null stands for what we have
// not, and keys of ours are no difference.
func differences(at string, theirs, ours any, exact bool) []string {
	if ours == nil && !exact {
		return nil
	}
	if theirs != nil && reflect.TypeOf(theirs) != reflect.TypeOf(ours) {
		return []string{fmt.Sprintf("%s: %T, want %T", at, ours, theirs)}
	}
	var out []string
	switch t := theirs.(type) {
	case map[string]any:
		for k, v := range t {
			mine, ok := ours.(map[string]any)[k]
			switch {
			case !ok:
				out = append(out, fmt.Sprintf("%s.%s is missing", at, k))
			case k != "ndparams" && k != "ops": // what is in them is not ours, or was sent
				out = append(out, differences(at+"."+k, v, mine, exact)...)
			}
		}
	case []any:
		mine, _ := ours.([]any)
		if exact && len(mine) != len(t) {
			return []string{fmt.Sprintf("%s: %d elements, want %d", at, len(mine), len(t))}
		}
		for i := range min(len(t), len(mine)) {
			out = append(out, differences(fmt.Sprintf("%s[%d]", at, i), t[i], mine[i], exact)...)
		}
	default:
		if exact && theirs != ours {
			out = append(out, fmt.Sprintf("%s: %v, want %v", at, ours, theirs))
		}
	}
	return out
}

// The comparison itself must be able to fail.
func TestDifferences(t *testing.T) {
	for _, c := range []struct {
		theirs, ours string
		exact        bool
		want         int
	}{
		{`{"a":1}`, `{"a":2,"b":3}`, false, 0},
		{`{"a":1}`, `{"a":2}`, true, 1},
		{`{"a":1}`, `{"b":1}`, false, 1},
		{`{"a":[{"b":1}]}`, `{"a":[{"b":"1"}]}`, false, 1},
		{`[1]`, `[]`, true, 1},
		{`{"a":1}`, `{"a":null}`, false, 0},
		{`{"a":1}`, `{"a":null}`, true, 1},
	} {
		var theirs, ours any
		if json.Unmarshal([]byte(c.theirs), &theirs) != nil || json.Unmarshal([]byte(c.ours), &ours) != nil {
			t.Fatal("bad case")
		}
		if got := differences("", theirs, ours, c.exact); len(got) != c.want {
			t.Errorf("%s and %s: %q, want %d differences", c.theirs, c.ours, got, c.want)
		}
	}
}

// stranger asks as somebody whom the kernel does not vouch for.
func (b *bench) stranger(verb, path string) answer {
	w := httptest.NewRecorder()
	rapi.New(b.Backend, b.Now).ServeHTTP(w, httptest.NewRequest(verb, path, nil))
	return answer{w.Code, w.Header(), w.Body.String()}
}

// Strangers learn not even what there is.
func TestStrangersAreRefused(t *testing.T) {
	b := newBench(t, 1)
	for _, path := range []string{"/2/info", "/2/nosuch", "/", "/version"} {
		got := b.stranger("GET", path)
		if got.status != 401 || got.header.Get("WWW-Authenticate") != `Basic realm="Ganeti Remote API"` {
			t.Errorf("%s: %+v", path, got)
		}
	}
}
