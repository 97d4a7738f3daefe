package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/rapitest"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

func TestMain(m *testing.M) {
	time.Local = time.FixedZone("", 3600)
	os.Unsetenv("ROLEKEY_ROOT")
	os.Exit(m.Run())
}

// machine is a node with fake daemons below a root of its own.
type machine struct {
	t       *testing.T
	at      paths.Layout
	b       *rapitest.Backend
	inits   []rpc.InitRequest
	left    int // times that the node left its cluster
	initErr error
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, at: paths.Layout{Root: t.TempDir()}}
	if err := os.MkdirAll(m.at.RunDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	return m
}

// master makes it the master of a cluster of so many nodes.
func master(t *testing.T, nodes int) *machine {
	m := newMachine(t)
	m.b = rapitest.New(t, nodes)
	m.serveMasterd()
	return m
}

func (m *machine) serveMasterd() {
	rapitest.ServeUnix(m.t, m.at.MasterdSock(), rapi.New(m.b, m.b.Now))
}

// serveNoded answers as noded does.
func (m *machine) serveNoded(status rpc.LocalStatusReply) {
	mux := http.NewServeMux()
	rpc.HandleLocal(mux, http.MethodGet, rpc.LocalStatus, func(context.Context, *struct{}) (any, error) { return status, nil })
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalInit, func(_ context.Context, r *rpc.InitRequest) (any, error) {
		m.inits = append(m.inits, *r)
		if m.initErr != nil {
			return nil, m.initErr
		}
		return rpc.InitReply{Version: cluster.Version{Epoch: 1, Version: 1}, RecoveryFile: "/root/recovery"}, nil
	})
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalLeave, func(context.Context, *struct{}) (any, error) {
		m.left++
		return struct{}{}, nil
	})
	rapitest.ServeUnix(m.t, m.at.NodedSock(), mux)
}

type result struct {
	code     int
	out, err string
}

func (m *machine) run(p Program, args ...string) result {
	m.t.Helper()
	var stdout, stderr bytes.Buffer
	code := Run(m.t.Context(), p, append([]string{"--root", m.at.Root}, args...), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// runAs runs a program whose app is prepared, and returns its exit code.
func (m *machine) runAs(prepare func(*app), stdout, stderr io.Writer, p Program, args ...string) int {
	m.t.Helper()
	return Run(m.t.Context(), func(a *app) *cobra.Command {
		prepare(a)
		return p(a)
	}, append([]string{"--root", m.at.Root}, args...), stdout, stderr)
}

// want runs what must succeed, and returns what it printed.
func (m *machine) want(p Program, args ...string) string {
	m.t.Helper()
	r := m.run(p, args...)
	if r.code != ExitOK {
		m.t.Fatalf("%v: exit code %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// wantJSON runs what must print JSON.
func (m *machine) wantJSON(into any, p Program, args ...string) {
	m.t.Helper()
	out := m.want(p, args...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		m.t.Fatalf("%v: %v:\n%s", args, err, out)
	}
}

// fail runs what must end with a code, and say certain things on stderr and
// nothing on stdout.
func (m *machine) fail(code int, says string, p Program, args ...string) {
	m.t.Helper()
	r := m.run(p, args...)
	if r.code != code || !strings.Contains(r.err, says) || r.out != "" {
		m.t.Errorf("%v: exit code %d, want %d, and %q in:\n%s\nstdout: %q", args, r.code, code, says, r.err, r.out)
	}
}

// ends makes every job end like this.
func (m *machine) ends(u state.JobUpdate) {
	m.b.OnSubmit = func(id int64, _ map[string]any) {
		u.ID = id
		m.b.Do(state.KindJobUpdate, u)
	}
}

func succeeds(result string) state.JobUpdate {
	return state.JobUpdate{Status: state.JobSuccess, OpResult: []json.RawMessage{json.RawMessage(result)}}
}
