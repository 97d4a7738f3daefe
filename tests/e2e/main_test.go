package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// limit bounds every wait for something that must come, on a machine that has
// other things to do.
const limit = 60 * time.Second

// lease is that of the large cluster: long enough that a busy machine does not
// make its nodes stale.
const lease = 6 * time.Second

// Folders of the two clusters, in the process that runs the tests.
var largeDir, smallDir string

func TestMain(m *testing.M) {
	lab.Main(map[string]lab.Helper{"tests": func(args []string) int {
		largeDir, smallDir = args[0], args[1]
		os.Args = append(os.Args[:1], args[2:]...)
		code := m.Run()
		if err := endMachines(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			code = 1
		}
		return code
	}})
	flag.Parse()
	if testing.Short() || flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	code, err := runInside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// runInside brings the clusters up and runs this program again inside.
func runInside() (code int, err error) {
	ctx := context.Background()
	base, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(base)
	large, small, err := bringUp(ctx, base)
	defer func() {
		for _, c := range []*lab.Cluster{large, small} {
			if c != nil {
				err = errors.Join(err, c.Down(ctx))
			}
		}
	}()
	if err != nil {
		return 1, err
	}
	return kit.Inside(ctx, large, "tests", append([]string{small.Dir()}, os.Args[1:]...)...)
}

// bringUp starts the large cluster, formed, and the small one, of which only
// the daemons run: founding and joining are what the tests do there. Its folder
// has 120 characters, and a space.
func bringUp(ctx context.Context, base string) (large, small *lab.Cluster, err error) {
	narrow := filepath.Join(base, "a folder ")
	narrow += strings.Repeat("x", 120-len(narrow))
	var g errgroup.Group
	g.Go(func() (err error) {
		large, err = lab.Up(ctx, lab.Config{
			Nodes: 5, Dir: filepath.Join(base, "large"), CandidatePoolSize: 3, MapLease: lease, Progress: os.Stderr,
		})
		return err
	})
	g.Go(func() (err error) {
		small, err = lab.Up(ctx, lab.Config{Nodes: 3, Dir: narrow, Bare: true})
		return err
	})
	return large, small, g.Wait()
}

// world is a cluster in one test.
type world struct {
	*kit.Cluster
	t   *testing.T
	ctx context.Context
}

func open(t *testing.T, dir string) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("needs whole clusters, which -short leaves out")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*limit)
	t.Cleanup(cancel)
	c, err := kit.Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	c.TellOnFailure(t)
	return &world{c, t, ctx}
}

// small is the cluster of which only the daemons run at first.
func small(t *testing.T) *world { return open(t, smallDir) }

// rested is the large cluster in its usual state, whatever tests before have
// left: everything runs, nodes 1 to 3 are candidates, 4 and 5 are not, and all
// hold one map.
func rested(t *testing.T) *world {
	t.Helper()
	w := open(t, largeDir)
	w.rest("node1", "node2", "node3")
	return w
}

// rest brings the cluster into a state in which everything runs, and those
// alone are candidates.
func (w *world) rest(candidates ...string) {
	w.t.Helper()
	if err := w.Heal(w.ctx); err != nil && !errors.Is(err, lab.ErrNoNamespaces) {
		w.t.Fatal(err)
	}
	w.startAll()
	for _, n := range w.readMap().Nodes {
		if n.Role == "offline" { // a test that failed has left it so
			w.admin(0, "gnt-node", "modify", "-O", "no", n.Name)
		}
	}
	w.settle()
	m := w.readMap()
	for _, n := range w.nodes() {
		want := slices.Contains(candidates, n.Short())
		if m.Has(n.Name) != want {
			w.admin(0, "gnt-node", "modify", "-C", map[bool]string{true: "yes", false: "no"}[want], n.Name)
		}
	}
	w.settle()
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

func (w *world) nodes() []lab.Node {
	w.t.Helper()
	all, err := w.Nodes(w.ctx)
	w.must(err)
	return all
}

func (w *world) others(names ...string) []lab.Node {
	w.t.Helper()
	list, err := w.Others(w.ctx, names...)
	w.must(err)
	return list
}

func (w *world) startAll() {
	w.t.Helper()
	var g errgroup.Group
	for _, n := range w.nodes() {
		g.Go(func() error { return w.Start(w.ctx, n.Name) })
	}
	w.must(g.Wait())
}

func (w *world) master() string {
	w.t.Helper()
	name, _, err := w.AwaitMaster(w.ctx, limit, "")
	w.must(err)
	return name
}

// until waits for something that must come.
func (w *world) until(what string, question func(context.Context) error) time.Duration {
	w.t.Helper()
	took, err := kit.Until(w.ctx, limit, question)
	if err != nil {
		w.t.Fatalf("wait until %s: %v", what, err)
	}
	return took
}

// admin runs a command on the master, which must end with the code. While the
// cluster elects a master, administrators wait.
func (w *world) admin(code int, args ...string) kit.Run {
	w.t.Helper()
	var r kit.Run
	w.until(strings.Join(args, " ")+" is done", func(ctx context.Context) (err error) {
		if r, err = w.tryAdmin(args...); err != nil {
			return err
		}
		if between(r) && r.Code != code {
			return r.Want(code)
		}
		return nil
	})
	w.must(r.Want(code))
	return r
}

// between reports that a command met a cluster between two masters.
func between(r kit.Run) bool {
	return r.Code == 11 || r.Code == 4 || strings.Contains(r.Stderr, "Cannot communicate") || strings.Contains(r.Stderr, "no master")
}

func (w *world) tryAdmin(args ...string) (kit.Run, error) {
	name, err := w.Master(w.ctx)
	if err != nil {
		return kit.Run{}, err
	}
	return w.Sh(w.ctx, name, args...)
}

func (w *world) readMap() *kit.Map {
	w.t.Helper()
	var m *kit.Map
	w.until("the map can be read", func(ctx context.Context) (err error) {
		name, err := w.Master(ctx)
		if err == nil {
			m, err = w.ReadMap(ctx, name)
		}
		return err
	})
	return m
}

// settle waits until all nodes confirm one fresh map.
func (w *world) settle() {
	w.t.Helper()
	w.until("all nodes hold one fresh map", func(ctx context.Context) error {
		name, err := w.Master(ctx)
		if err != nil {
			return err
		}
		m, err := w.ReadMap(ctx, name)
		if err != nil {
			return err
		}
		for _, n := range m.Nodes {
			if n.Hash != m.Hash || !n.Fresh || !n.Reachable {
				return fmt.Errorf("%s: fresh %v, reachable %v (%s), map %.12s of %.12s", n.Name, n.Fresh, n.Reachable, n.Problem, n.Hash, m.Hash)
			}
		}
		return nil
	})
}

// clean waits until verify finds nothing wrong: background work may be left.
func (w *world) clean() {
	w.t.Helper()
	w.until("gnt-cluster verify is clean", func(context.Context) error {
		r, err := w.tryAdmin("gnt-cluster", "verify")
		if err == nil {
			err = r.Want(0)
		}
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, r.Stdout)
		}
		return err
	})
}

func (w *world) rob(name string) *kit.Loot {
	w.t.Helper()
	l, err := kit.Steal(w.node(name))
	w.must(err)
	return l
}

// voterThatIsNotMaster robs a candidate that votes and is not the master.
func (w *world) voterThatIsNotMaster() *kit.Loot {
	w.t.Helper()
	m := w.readMap()
	for _, c := range m.Candidates {
		if c.Voter && c.UUID != m.Master {
			return w.rob(c.Name)
		}
	}
	w.t.Fatal("no voter but the master")
	return nil
}
