package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// limit bounds every wait, on a machine that has other things to do.
const limit = 90 * time.Second

var programs = []string{"noded", "masterd", "gnt-cluster", "gnt-node", "gnt-job"}

// lab is a cluster that the previous release's devcluster holds, and whose
// nodes run the build that a file in their folder names.
type lab struct {
	t              *testing.T
	dir, wrap      string
	oldBin, newBin string
	nodes          int
}

// up brings a cluster of the previous release up.
func up(t *testing.T, nodes int) *lab {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a whole cluster, which -short leaves out")
	}
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	c := &lab{t: t, newBin: filepath.Join(top, "bin"), nodes: nodes}
	if _, err := os.Stat(filepath.Join(c.newBin, "noded")); err != nil {
		t.Fatalf("build first: %v", err)
	}
	c.oldBin = previous(t, top)
	base, err := os.MkdirTemp("", "upgrade-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	c.dir, c.wrap = filepath.Join(base, "c"), filepath.Join(base, "bin")
	c.writeWrappers()
	c.bringUp()
	return c
}

// previous builds the previous release, unless it has been, and returns the
// folder of its programs.
func previous(t *testing.T, top string) string {
	t.Helper()
	text, err := os.ReadFile("previous")
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(string(text))
	at := filepath.Join(top, ".cache", "previous", commit)
	bin := filepath.Join(at, "bin")
	if _, err := os.Stat(filepath.Join(bin, "devcluster")); err == nil {
		return bin
	}
	if out, err := exec.Command("git", "-C", top, "cat-file", "-e", commit+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("the previous release, commit %s, is not in this checkout's history: %s", commit, out)
	}
	src := filepath.Join(at, "src")
	script := `set -eu; rm -rf "$2"; mkdir -p "$2" "$3.new"; git -C "$1" archive "$4" | tar -x -C "$2"; cd "$2"
		CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-X rolekey/internal/buildinfo.version=previous" -o "$3.new/" \
			./tools/noded ./tools/masterd ./tools/gnt-cluster ./tools/gnt-node ./tools/gnt-job ./tools/devcluster
		rm -rf "$3" "$2"; mv "$3.new" "$3"`
	cmd := exec.Command("bash", "-c", script, "bash", top, src, bin, commit)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the previous release: %v\n%s", err, out)
	}
	return bin
}

// writeWrappers writes programs that run the build that the node's folder
// names; without such a file the previous one.
func (c *lab) writeWrappers() {
	c.t.Helper()
	if err := os.MkdirAll(c.wrap, 0o755); err != nil {
		c.t.Fatal(err)
	}
	for _, p := range programs {
		script := fmt.Sprintf("#!/bin/sh\nbin='%s'\n[ ! -f \"$ROLEKEY_ROOT/release\" ] || read -r bin <\"$ROLEKEY_ROOT/release\"\nexec \"$bin/%s\" \"$@\"\n", c.oldBin, p)
		if err := os.WriteFile(filepath.Join(c.wrap, p), []byte(script), 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *lab) bringUp() {
	c.t.Helper()
	out, err := c.run("up", "--nodes", fmt.Sprint(c.nodes), "--candidate-pool-size", "3", "--map-lease", "10s", "--bin", c.wrap, "--dir", c.dir)
	if err != nil {
		c.t.Fatalf("bring the previous release up: %v\n%s", err, out)
	}
	c.t.Cleanup(func() {
		if out, err := exec.Command(filepath.Join(c.oldBin, "devcluster"), "down", "--purge", "--dir", c.dir).CombinedOutput(); err != nil {
			c.t.Errorf("take the cluster down: %v\n%s", err, out)
		}
	})
}

// run runs devcluster.
func (c *lab) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(c.oldBin, "devcluster"), args...).CombinedOutput()
	return string(out), err
}

// cluster does something to a node.
func (c *lab) cluster(what, node string) error {
	out, err := c.run(what, "--dir", c.dir, node)
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", what, node, err, strings.TrimSpace(out))
	}
	return nil
}

func (c *lab) must(what, node string) {
	c.t.Helper()
	if err := c.cluster(what, node); err != nil {
		c.t.Fatal(err)
	}
}

// release says which build a node runs from its next start on. A new one
// learns that it shares this machine with others.
func (c *lab) release(node, bin string) {
	c.t.Helper()
	root := c.root(node)
	if err := os.WriteFile(filepath.Join(root, "release"), []byte(bin+"\n"), 0o644); err != nil {
		c.t.Fatal(err)
	}
	for _, daemon := range []string{"noded", "masterd"} {
		path := filepath.Join(root, "etc/rolekey", daemon+".toml")
		if err := c.configure(path, bin == c.newBin); err != nil {
			c.t.Fatal(err)
		}
	}
}

// configure adds, or takes away, what only the new build reads: its metrics
// would all be on one port of this machine.
func (c *lab) configure(path string, isNew bool) error {
	const line = "metrics_address = \"\"\n"
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	plain := strings.TrimPrefix(string(text), line)
	if isNew {
		plain = line + plain
	}
	return os.WriteFile(path, []byte(plain), 0o644)
}

// root is the folder of a node that stands for its file system.
func (c *lab) root(node string) string {
	c.t.Helper()
	for _, at := range []string{filepath.Join(c.dir, node, "root"), filepath.Join(c.dir, node)} {
		if _, err := os.Stat(filepath.Join(at, "etc/rolekey")); err == nil {
			return at
		}
	}
	c.t.Fatalf("%s has no folder", node)
	return ""
}

// on runs a command on a node.
func (c *lab) on(node string, args ...string) (string, error) {
	cmd := append([]string{"exec", "--dir", c.dir, node, "--"}, args...)
	out, err := c.run(cmd...)
	if err != nil {
		return out, fmt.Errorf("on %s: %s: %w: %s", node, strings.Join(args, " "), err, strings.TrimSpace(out))
	}
	return out, nil
}

// master is the short name of the node that a running one takes for the master.
func (c *lab) master() string {
	for i := 1; i <= c.nodes; i++ {
		if out, err := c.on(fmt.Sprintf("node%d", i), "gnt-cluster", "getmaster"); err == nil {
			name, _, _ := strings.Cut(strings.TrimSpace(out), ".")
			return name
		}
	}
	return ""
}

func (c *lab) onMaster(args ...string) (string, error) {
	m := c.master()
	if m == "" {
		return "", errors.New("no node knows of a master")
	}
	return c.on(m, args...)
}

// try runs a command on the master.
func (c *lab) try(args ...string) error {
	_, err := c.onMaster(args...)
	return err
}

// wants runs a command that must succeed on the master, if not at once.
func (c *lab) wants(args ...string) {
	c.t.Helper()
	c.await(strings.Join(args, " "), func() error { return c.try(args...) })
}
