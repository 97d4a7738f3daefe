package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

// TestHooksVeto: a script of either node stops a role change and leaves nothing
// changed; one on a node that is no party is not asked.
func TestHooksVeto(t *testing.T) {
	w := rested(t)
	before := w.readMap()
	w.hook("node5", "node-modify-pre.d", "check", "exit 1")
	w.admin(0, "gnt-node", "modify", "-D", "no", "node4") // nothing to do
	path := w.hook("node4", "node-modify-pre.d", "check", "echo not today; exit 3")
	for _, args := range [][]string{{"-C", "yes"}, {"-O", "yes"}, {"-D", "yes"}} {
		r := w.admin(1, append(append([]string{"gnt-node", "modify"}, args...), "node4")...)
		says(t, r.Stderr, "Failure: hooks execution failed:\n  node: node4.example, script: check, output: not today\n")
	}
	if after := w.readMap(); after.Hash != before.Hash {
		t.Errorf("map %d became %d", before.Version, after.Version)
	}
	if err := left(w.node("node4")); err != nil {
		t.Error(err)
	}
	w.must(os.Chmod(path, 0o777))
	r := w.admin(0, "gnt-node", "modify", "-D", "yes", "node4")
	says(t, r.Stderr, "On node node4.example hook script check was not run: is writable by others than its owner")
	w.must(os.Remove(path))
	w.hook("node1", "node-modify-post.d", "tell", "echo the pager is broken; exit 1")
	w.hook("node4", "node-modify-pre.d", "hangs", "sleep 1000")
	if w.master() != "node1.example" {
		t.Log("node1 is not the master, and runs no script")
	}
	r = w.admin(1, "gnt-node", "modify", "-D", "no", "node4")
	says(t, r.Stderr, "node: node4.example, script: hangs, output: killed after 20s")
}

// TestHooksEnvironment: it is what docs/hooks.rst says, and nothing else.
func TestHooksEnvironment(t *testing.T) {
	w := rested(t)
	out := filepath.Join(t.TempDir(), "env")
	for _, phase := range []string{"pre", "post"} {
		w.hook("node5", "node-modify-"+phase+".d", "show", "{ env | sort; readlink /proc/self/fd/0; pwd; } >"+out+"."+phase)
	}
	w.admin(0, "gnt-node", "modify", "-D", "yes", "node5")
	master := w.master()
	same := []string{
		"GANETI_CLUSTER=dev.example", "GANETI_DATA_DIR=/var/lib/rolekey", "GANETI_DRAINED=True", "GANETI_HOOKS_PATH=node-modify",
		"GANETI_HOOKS_VERSION=2", "GANETI_MASTER=" + master, "GANETI_MASTER_CANDIDATE=None", "GANETI_MASTER_CAPABLE=None",
		"GANETI_NODE_NAME=node5.example", "GANETI_OBJECT_TYPE=NODE", "GANETI_OFFLINE=None", "GANETI_OP_CODE=OP_NODE_SET_PARAMS",
		"GANETI_OP_TARGET=node5.example", "GANETI_VM_CAPABLE=None", "PATH=/sbin:/bin:/usr/sbin:/usr/bin", "/dev/null", "/",
	}
	address := w.node("node5").Address
	want := map[string][]string{
		"pre": append([]string{"GANETI_HOOKS_PHASE=pre"}, same...),
		"post": append([]string{
			"GANETI_HOOKS_PHASE=post", "GANETI_POST_DRAINED=True", "GANETI_POST_MASTER_CANDIDATE=False", "GANETI_POST_MASTER_CAPABLE=True",
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
	w.admin(0, "gnt-node", "modify", "-D", "no", "node5")
}

// TestHooksReportOnly: scripts of the post phase, and nodes that cannot be
// reached, stop nothing.
func TestHooksReportOnly(t *testing.T) {
	w := rested(t)
	for _, n := range []string{"node1", "node2", "node3"} { // whichever is the master
		w.hook(n, "node-modify-post.d", "tell", "echo the pager is broken; exit 1")
	}
	w.hook("node5", "node-modify-pre.d", "check", "exit 1")
	w.must(w.Kill(w.ctx, "node5.example", lab.Noded))
	r := w.admin(3, "gnt-node", "modify", "-D", "yes", "node5") // committed, and node5 does not know yet
	says(t, r.Stderr, "hook script tell failed (exit code 1), output: the pager is broken", "Hooks were not run on node node5.example")
	w.must(w.Start(w.ctx, "node5.example"))
	w.settle()
	w.hook("node2", "cluster-verify-post.d", "disk", "echo the disk is full; exit 1")
	r = w.admin(1, "gnt-cluster", "verify", "--error-codes")
	says(t, r.Stdout, "* Hooks Results", "ERROR:ENODEHOOKS:node:node2.example:Hook script disk failed (exit code 1), output: the disk is full")
	w.must(os.Remove(filepath.Join(paths.Layout{Root: w.node("node5").Root}.HooksDir(), "node-modify-pre.d", "check")))
	w.admin(0, "gnt-node", "modify", "-D", "no", "node5")
}

// TestHooksOfAnAdmission: no string is made against the word of any node.
func TestHooksOfAnAdmission(t *testing.T) {
	w := rested(t)
	w.hook("node4", "node-add-pre.d", "check", `echo "no $GANETI_NODE_NAME $GANETI_NODE_PIP here"; exit 1`)
	r := w.admin(1, "gnt-node", "add", "node9.example", "--address", "192.0.2.9")
	says(t, r.Stderr, "Failure: hooks execution failed:\n  node: node4.example, script: check, output: no node9.example 192.0.2.9 here")
	if r.Stdout != "" {
		t.Errorf("a string was printed: %q", r.Stdout)
	}
	if list := w.admin(0, "gnt-node", "tokens", "list"); strings.Contains(list.Stdout, "node9") {
		t.Error("an admission was recorded")
	}
}
