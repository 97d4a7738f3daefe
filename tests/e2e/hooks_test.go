package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/internal/lab"
	"rolekey/internal/paths"
)

// hook puts a script on a node for the time of the test.
func (w *world) hook(node, folder, name, text string) string {
	w.t.Helper()
	dir := filepath.Join(paths.Layout{Root: w.node(node).Root}.HooksDir(), folder)
	w.must(os.MkdirAll(dir, 0o755))
	path := filepath.Join(dir, name)
	w.must(os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	w.must(os.Chmod(path, 0o755)) // past the umask
	w.t.Cleanup(func() { _ = os.Remove(path) })
	return path
}

// says fails the test unless a text contains all the words.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
}

// TestHooksVeto: a script of the master or of a node that is to gain something
// stops a change and leaves nothing changed; a node that is no party is not asked.
func TestHooksVeto(t *testing.T) {
	w := rested(t)
	before := w.readMap()
	w.hook("node5", "node-modify-pre.d", "check", "exit 1")
	path := w.hook("node4", "node-modify-pre.d", "check", "echo not today; exit 3")
	r := w.admin(1, "gnt-node", "modify", "-C", "yes", "node4")
	says(t, r.Stderr, "Failure: hooks execution failed:\n  node: node4.example, script: check, output: not today\n")
	var own []string
	for _, n := range []string{"node1", "node2", "node3"} { // whichever is the master
		own = append(own, w.hook(n, "node-modify-pre.d", "own", "echo $GANETI_MASTER says no; exit 1"))
	}
	for _, args := range [][]string{{"-O", "yes"}, {"-D", "yes"}} {
		r := w.admin(1, append(append([]string{"gnt-node", "modify"}, args...), "node4")...)
		master := w.master()
		says(t, r.Stderr, "node: "+master+", script: own, output: "+master+" says no\n")
	}
	if after := w.readMap(); after.Hash != before.Hash {
		t.Errorf("map %d became %d", before.Version, after.Version)
	}
	if err := left(w.node("node4")); err != nil {
		t.Error(err)
	}
	for _, p := range own {
		w.must(os.Remove(p))
	}
	w.admin(0, "gnt-node", "modify", "-D", "yes", "node4")
	w.must(os.Chmod(path, 0o777))
	r = w.admin(0, "gnt-node", "modify", "-D", "no", "node4")
	says(t, r.Stderr, "On node node4.example hook script check was not run: is writable by others than its owner")
}

// TestG4HooksThatHang are killed, and gain no time for a node that is to lose its
// role.
func TestG4HooksThatHang(t *testing.T) {
	w := rested(t)
	w.hook("node4", "node-modify-pre.d", "hangs", "sleep 1000")
	r := w.admin(1, "gnt-node", "modify", "-C", "yes", "node4")
	says(t, r.Stderr, "node: node4.example, script: hangs, output: killed after 20s")
	if r = w.admin(0, "gnt-node", "modify", "-O", "yes", "node4"); r.Took > 10*time.Second {
		t.Errorf("setting the node offline took %s", r.Took)
	}
	w.hook("node4", "node-modify-pre.d", "hangs", "")
	w.admin(0, "gnt-node", "modify", "-O", "no", "node4")
}

// TestHooksEnvironment: it is what docs/hooks.rst says, and nothing else.
func TestHooksEnvironment(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-D", "yes", "node5")
	address := w.node("node5").Address
	out := filepath.Join(t.TempDir(), "env")
	for _, phase := range []string{"pre", "post"} {
		w.hook("node5", "node-modify-"+phase+".d", "show", "{ env | sort; readlink /proc/self/fd/0; pwd; } >"+out+"."+phase)
	}
	w.admin(0, "gnt-node", "modify", "-D", "no", "node5")
	master := w.master()
	same := []string{
		"GANETI_CLUSTER=dev.example", "GANETI_DATA_DIR=/var/lib/rolekey", "GANETI_DRAINED=False", "GANETI_HOOKS_PATH=node-modify",
		"GANETI_HOOKS_VERSION=2", "GANETI_MASTER=" + master, "GANETI_MASTER_CANDIDATE=None", "GANETI_MASTER_CAPABLE=None",
		"GANETI_NODE_NAME=node5.example", "GANETI_NODE_PIP=" + address, "GANETI_NODE_SIP=" + address, "GANETI_OBJECT_TYPE=NODE", "GANETI_OFFLINE=None", "GANETI_OP_CODE=OP_NODE_SET_PARAMS",
		"GANETI_OP_TARGET=node5.example", "GANETI_VM_CAPABLE=None", "PATH=/sbin:/bin:/usr/sbin:/usr/bin", "/dev/null", "/",
	}
	want := map[string][]string{
		"pre": append([]string{"GANETI_HOOKS_PHASE=pre"}, same...),
		"post": append([]string{
			"GANETI_HOOKS_PHASE=post", "GANETI_POST_DRAINED=False", "GANETI_POST_MASTER_CANDIDATE=False", "GANETI_POST_MASTER_CAPABLE=True",
			"GANETI_POST_NODE_NAME=node5.example", "GANETI_POST_NODE_PIP=" + address, "GANETI_POST_NODE_SIP=" + address,
			"GANETI_POST_OFFLINE=False", "GANETI_POST_VM_CAPABLE=True",
		}, same...),
	}
	for phase, lines := range want {
		text, err := os.ReadFile(out + "." + phase)
		w.must(err)
		got := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(l string) bool {
			name, _, _ := strings.Cut(l, "=")
			return slices.Contains([]string{"PWD", "OLDPWD", "SHLVL", "_"}, name) // the shell's own
		})
		slices.Sort(got)
		slices.Sort(lines)
		if !slices.Equal(got, lines) {
			t.Errorf("%s: environment %q, want %q", phase, got, lines)
		}
	}
}

// TestHooksReportOnly: scripts of the post phase, and nodes that cannot be
// reached, stop nothing.
func TestHooksReportOnly(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-D", "yes", "node5")
	for _, n := range []string{"node1", "node2", "node3"} { // whichever is the master
		w.hook(n, "node-modify-post.d", "tell", "echo the pager is broken; exit 1")
	}
	w.hook("node5", "node-modify-pre.d", "check", "exit 1")
	w.must(w.Kill(w.ctx, "node5.example", lab.Noded))
	r := w.admin(3, "gnt-node", "modify", "-D", "no", "node5") // committed, and node5 does not know yet
	says(t, r.Stderr, "hook script tell failed (exit code 1), output: the pager is broken", "Hooks were not run on node node5.example")
	w.must(w.Start(w.ctx, "node5.example"))
	w.settle()
	w.hook("node2", "cluster-verify-post.d", "disk", "echo the disk is full; exit 1")
	r = w.admin(1, "gnt-cluster", "verify", "--error-codes")
	says(t, r.Stdout, "* Hooks Results", "ERROR:ENODEHOOKS:node:node2.example:Hook script disk failed (exit code 1), output: the disk is full")
}

// TestHooksOfAnAdmission: no string is made against the word of any node.
func TestHooksOfAnAdmission(t *testing.T) {
	w := rested(t)
	w.hook("node4", "node-add-pre.d", "check", `echo "no $GANETI_NODE_NAME $GANETI_NODE_PIP here"; exit 1`)
	r := w.admin(1, "gnt-node", "add", "vetoed.example", "--address", "192.0.2.9")
	says(t, r.Stderr, "Failure: hooks execution failed:\n  node: node4.example, script: check, output: no vetoed.example 192.0.2.9 here")
	if r.Stdout != "" {
		t.Errorf("a string was printed: %q", r.Stdout)
	}
	if list := w.admin(0, "gnt-node", "tokens", "list"); strings.Contains(list.Stdout, "vetoed") {
		t.Error("an admission was recorded")
	}
}
