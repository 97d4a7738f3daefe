package runbooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// limit bounds every wait, on a machine that has other things to do.
const limit = 90 * time.Second

func TestMain(m *testing.M) {
	lab.Main(nil)
	os.Exit(m.Run())
}

// world is a cluster in trouble.
type world struct {
	*kit.Cluster
	t     *testing.T
	ctx   context.Context
	moved []string // the page's addresses, each with the one here
}

// up brings a healthy cluster up.
func up(t *testing.T, cfg lab.Config) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a whole cluster, which -short leaves out")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*limit)
	t.Cleanup(cancel)
	if cfg.MapLease == 0 {
		cfg.MapLease = 6 * time.Second
	}
	cfg.Progress = t.Output()
	c, err := lab.Up(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	k, err := kit.Open(ctx, c.Dir())
	if err != nil {
		t.Fatal(err)
	}
	k.TellOnFailure(t)
	w := &world{Cluster: k, t: t, ctx: ctx}
	w.systemctl()
	return w
}

// systemctl gives every node one that starts and stops the daemons here.
func (w *world) systemctl() {
	w.t.Helper()
	script := `#!/bin/sh
# systemctl start|stop|restart rolekey-noded rolekey-masterd
verb=$1; shift
here=$(basename "$ROLEKEY_ROOT")
if [ "$verb" = stop ] || [ "$verb" = restart ]; then
	for unit; do devcluster kill --dir DIR "$here" "${unit#rolekey-}" || exit; done
fi
if [ "$verb" = start ] || [ "$verb" = restart ]; then devcluster start --dir DIR "$here" || exit; fi
`
	nodes, err := w.Nodes(w.ctx)
	w.must(err)
	for _, n := range nodes {
		text := strings.ReplaceAll(script, "DIR", "'"+w.Dir()+"'")
		w.must(os.WriteFile(filepath.Join(n.Root, "bin/systemctl"), []byte(text), 0o755))
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// follow carries out a runbook of the page, command by command. Each must
// succeed; exit code 3, which tells of nodes that are down, is success too.
func (w *world) follow(title string) {
	w.t.Helper()
	steps, err := parse(page(w.t), title)
	w.must(err)
	for _, s := range steps {
		w.t.Logf("%s# %s", s.Where, s.Command)
		w.await(s.Command, s.Repeat, func() error { return w.do(s) })
	}
}

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.rst")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// bridge is a command of the administrator that joins two nodes.
var bridge = regexp.MustCompile(`^ssh (\S+) (.+) \| ssh (\S+) (.+)$`)

// do carries out one step. The page's nodes are in example.com, these in example.
func (w *world) do(s step) error {
	command := strings.NewReplacer(append(w.moved, ".example.com", ".example")...).Replace(s.Command)
	if s.Where != "admin" {
		return w.run(s, s.Where, command, "", nil)
	}
	if m := bridge.FindStringSubmatch(command); m != nil {
		var between string
		if err := w.run(s, m[1], unquote(m[2]), "", &between); err != nil {
			return err
		}
		return w.run(s, m[3], unquote(m[4]), between, nil)
	}
	where, rest, ok := strings.Cut(strings.TrimPrefix(command, "ssh "), " ")
	if !ok {
		return fmt.Errorf("the administrator's command %q is not one of ssh", command)
	}
	return w.run(s, where, unquote(rest), "", nil)
}

func unquote(s string) string { return strings.Trim(s, "'") }

func (w *world) run(s step, where, command, input string, out *string) error {
	node, err := w.place(where)
	if err != nil {
		return err
	}
	r, err := w.Feed(w.ctx, node, input, "bash", "-euo", "pipefail", "-c", command)
	if err != nil {
		return err
	}
	if out != nil {
		*out = r.Stdout
	}
	if said := r.Stdout + r.Stderr; r.Code != 0 && r.Code != 3 || s.Says != "" && !strings.Contains(said, strings.Trim(s.Says, `"`)) {
		return fmt.Errorf("on %s: %s: exit code %d: %s", node, command, r.Code, strings.TrimSpace(said))
	}
	return nil
}

// place finds the node that is meant.
func (w *world) place(where string) (string, error) {
	where, _, _ = strings.Cut(where, ".")
	if where != "master" {
		return where, nil
	}
	nodes, err := w.Nodes(w.ctx)
	if err != nil {
		return "", err
	}
	for _, n := range nodes {
		r, err := w.Sh(w.ctx, n.Name, "gnt-cluster", "info", "--json")
		if err != nil || r.Code != 0 {
			continue
		}
		var info struct {
			Rolekey struct {
				Ready bool `json:"ready"`
			} `json:"rolekey"`
		}
		if err := json.Unmarshal([]byte(r.Stdout), &info); err == nil && info.Rolekey.Ready {
			return n.Name, nil
		}
	}
	return "", errors.New("no node is the master in office")
}

// await does something once, or until it works. A master may be changing just
// now, so what is to be done there is tried again too.
func (w *world) await(what string, again bool, do func() error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, limit)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := do()
		if err == nil {
			return
		}
		if !again {
			w.t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("%s: %v", what, err)
		case <-time.After(wait):
		}
	}
}

// healthy waits until all nodes that are not offline hold one fresh map, so
// many of them, and verify finds nothing.
func (w *world) healthy(nodes int) {
	w.t.Helper()
	w.await("one map on all nodes", true, func() error {
		m, err := w.place("master")
		if err != nil {
			return err
		}
		now, err := w.ReadMap(w.ctx, m)
		if err != nil {
			return err
		}
		good := 0
		for _, n := range now.Nodes {
			if n.Fresh && n.Hash == now.Hash {
				good++
			}
		}
		if good != nodes {
			return fmt.Errorf("%d nodes hold the newest map, want %d", good, nodes)
		}
		return nil
	})
	w.await("verify", true, func() error {
		m, err := w.place("master")
		if err != nil {
			return err
		}
		_, err = w.Must(w.ctx, 0, m, "gnt-cluster", "verify")
		return err
	})
}
