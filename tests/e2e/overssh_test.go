package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/internal/lab"
	"rolekey/internal/paths"
)

// TestCommandAndCopyfile: from the master to all nodes by real ssh, with the key
// that the map authorizes, and no password or unknown host key in the way.
func TestCommandAndCopyfile(t *testing.T) {
	w := rested(t)
	master := w.master()
	var want []string
	for _, n := range w.others(master) {
		want = append(want, fmt.Sprintf("node: %s\n%s\nreturn code = 0\n", n.Name, n.Address))
	}
	want = append(want, fmt.Sprintf("node: %s\n%s\nreturn code = 0\n", master, w.node(master).Address))
	r := w.admin(0, "gnt-cluster", "command", `set -- $SSH_CONNECTION; echo "$3"`)
	if r.Stdout != strings.Join(want, "\n") {
		t.Errorf("%s, want\n%s", r.Stdout, strings.Join(want, "\n"))
	}

	// The nodes share this machine's files: each copy is a new one.
	path := filepath.Join(t.TempDir(), "a file")
	w.must(os.WriteFile(path, []byte(strings.Repeat("0123456789abcdef", 1<<16)), 0o600))
	w.must(os.Chmod(path, 0o640))
	first, err := os.Open(path) // while it is open no other file gets its inode
	w.must(err)
	defer first.Close()
	old, err := first.Stat()
	w.must(err)
	w.admin(0, "gnt-cluster", "copyfile", path)
	w.admin(0, "gnt-cluster", "copyfile", "--use-replication-network", "-n", "node5", path)
	now, err := os.Stat(path)
	w.must(err)
	if os.SameFile(old, now) || now.Size() != old.Size() || now.Mode() != old.Mode() {
		t.Errorf("%v became %v of %d bytes, same file %v", old.Mode(), now.Mode(), now.Size(), os.SameFile(old, now))
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	says(t, w.admin(1, "gnt-cluster", "copyfile", filepath.Join(w.node(master).Root, "var/lib/rolekey/ssh/id")).Stderr, "is this node's own state")

	w.must(w.Kill(w.ctx, "node5.example", lab.SSHD))
	r = w.admin(1, "gnt-cluster", "command", "--failure-only", "true")
	says(t, r.Stdout, "node: node5.example\n", "return code = 255\n")
	if strings.Contains(r.Stdout, "node4") {
		t.Errorf("what succeeded is shown: %q", r.Stdout)
	}
	w.must(w.Start(w.ctx, "node5.example"))
	w.until("node5 can be reached again", func(ctx context.Context) error {
		r, err := w.tryAdmin("gnt-cluster", "command", "-n", "node5", "true")
		if err != nil {
			return err
		}
		return r.Want(0)
	})
}

// TestSSH: gnt-cluster ssh needs nothing that was written for plain ssh.
func TestSSH(t *testing.T) {
	w := rested(t)
	master := w.node(w.master())
	at := paths.Layout{Root: master.Root}
	text, err := os.ReadFile(at.SSHDropIn())
	w.must(err)
	hosts, err := os.ReadFile(master.KnownHosts())
	w.must(err)
	t.Cleanup(func() {
		w.must(os.WriteFile(at.SSHDropIn(), text, 0o644))
		w.must(os.WriteFile(master.KnownHosts(), hosts, 0o600))
	})
	w.must(os.Remove(at.SSHDropIn()))
	w.must(os.WriteFile(master.KnownHosts(), nil, 0o600))
	node5 := w.node("node5")
	for _, ref := range []string{node5.Name, "node5", node5.Address, node5.UUID} {
		r := w.admin(7, "gnt-cluster", "ssh", ref, "--", `echo "$ROLEKEY_ROOT"; cat >&2; exit 7`)
		if r.Stdout != node5.Root+"\n" {
			t.Errorf("%s: reached %q", ref, r.Stdout)
		}
	}
	r, err := w.Sh(w.ctx, "node4", "gnt-cluster", "ssh", "node5", "true")
	w.must(err)
	if r.Code != 11 || !strings.Contains(r.Stderr, "please connect to node '"+master.Name+"'") {
		t.Errorf("on a normal node: exit code %d, %s", r.Code, r.Stderr)
	}
}
