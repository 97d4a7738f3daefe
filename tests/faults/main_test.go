package faults

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// limit bounds every wait for something that must come.
const limit = 30 * time.Second

const lease = 6 * time.Second

var dir string // of the cluster, in the process that runs the tests

func TestMain(m *testing.M) {
	lab.Main(map[string]lab.Helper{"tests": func(args []string) int {
		dir = args[0]
		os.Args = append(os.Args[:1], args[1:]...)
		return m.Run()
	}})
	flag.Parse()
	if testing.Short() || flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	code, err := runInside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		code = 1
	}
	os.Exit(code)
}

// runInside brings the cluster up and runs this program again inside.
func runInside() (code int, err error) {
	ctx := context.Background()
	base, err := os.MkdirTemp("", "faults-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(base)
	c, err := lab.Up(ctx, lab.Config{Nodes: 5, Dir: filepath.Join(base, "c"), CandidatePoolSize: 3, MapLease: lease, Progress: os.Stderr})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, c.Down(ctx)) }()
	return kit.Inside(ctx, c, "tests", os.Args[1:]...)
}

// world is the cluster in one test.
type world struct {
	*kit.Cluster
	t      *testing.T
	ctx    context.Context
	edited map[string]*os.File // by editors that are open
}

// rested tells that a test has just left the cluster as the next one needs it.
var rested bool

// broken is the test that has left the cluster in a state that tells nothing of
// what follows.
var broken string

func open(t *testing.T) *world {
	t.Helper()
	if broken != "" {
		t.Skip("not after what failed: " + broken)
	}
	t.Cleanup(func() {
		if t.Failed() {
			broken = t.Name()
		}
	})
	if testing.Short() {
		t.Skip("needs a whole cluster, which -short leaves out")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*limit)
	t.Cleanup(cancel)
	c, err := kit.Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	c.TellOnFailure(t)
	w := &world{c, t, ctx, map[string]*os.File{}}
	if rested {
		rested = false
		return w
	}
	if err := w.Heal(ctx); err != nil && !errors.Is(err, lab.ErrNoNamespaces) {
		t.Fatal(err)
	}
	for i := range 5 { // whatever a test before has left
		w.must(w.Start(ctx, fmt.Sprintf("node%d", i+1)))
	}
	w.must(w.arrange())
	w.clean()
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) node(name string) lab.Node {
	w.t.Helper()
	n, err := w.Node(w.ctx, name)
	w.must(err)
	return n
}

func (w *world) until(what string, question func(context.Context) error) time.Duration {
	w.t.Helper()
	took, err := kit.Until(w.ctx, limit, question)
	if err != nil {
		w.t.Fatalf("wait until %s: %v", what, err)
	}
	return took
}

// finding is what verify --json says of an error or a warning.
type finding struct {
	Level, Code, Object, Name, Text, Remedy string
}

type report struct {
	OK                         bool
	Errors, Warnings, Repaired []finding
	Lines                      []string
}

func (r *report) all() []finding { return append(append([]finding(nil), r.Errors...), r.Warnings...) }

// verify runs gnt-cluster verify on the master.
func (w *world) verify(args ...string) (*report, error) {
	name, err := w.Master(w.ctx)
	if err != nil {
		return nil, err
	}
	run, err := w.Sh(w.ctx, name, append([]string{"gnt-cluster", "verify", "--json"}, args...)...)
	if err != nil {
		return nil, err
	}
	r := new(report)
	if err := json.Unmarshal([]byte(run.Stdout), r); err != nil {
		return nil, fmt.Errorf("%w: exit code %d: %s", err, run.Code, run.Stderr)
	}
	if (run.Code == 0) != r.OK {
		return nil, fmt.Errorf("exit code %d, ok %t", run.Code, r.OK)
	}
	return r, nil
}

// clean waits until verify finds nothing at all.
func (w *world) clean() {
	w.t.Helper()
	w.until("verify finds nothing", func(context.Context) error {
		r, err := w.verify()
		if err == nil && len(r.all()) > 0 {
			err = fmt.Errorf("%+v", r.all())
		}
		return err
	})
}
