package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// TestMachinesNeverLockedOut: what the administrator sees while disks are full and
// daemons die amid changes: the master, or his own key, enters each node at any
// time, and when it is over the cluster is as it should be.
func TestMachinesNeverLockedOut(t *testing.T) {
	w := machines(t)
	w.byDefaultAtTheEnd()
	master, n := w.node("node1"), w.node("node3")
	own := w.authorizeOwn(n)
	sh := func(script string) {
		t.Helper()
		_, err := w.Must(w.ctx, 0, n.Name, "sh", "-c", script)
		w.must(err)
	}
	enter := func(when string, replaced bool) {
		t.Helper()
		if err := w.LoginWith(w.ctx, own, master, n); err != nil {
			t.Errorf("%s: the administrator's own key: %v", when, err)
		}
		if err := w.Login(w.ctx, master, n); err != nil && !replaced {
			t.Errorf("%s: the master's key: %v", when, err)
		}
	}
	full := func(dir string) string {
		// noded may remove a file while it is copied. But for those all must be
		// there: a node that finds no map waits for an administrator.
		return fmt.Sprintf(`set -e; rm -rf /tmp/kept; until cp -a %[1]s /tmp/kept; do rm -rf /tmp/kept; done
			mount -t tmpfs -o size=4m,mode=700 tmpfs %[1]s; cp -a /tmp/kept/. %[1]s/; rm -rf /tmp/kept
			! dd if=/dev/zero of=%[1]s/filler bs=4k 2>/dev/null; test "$(stat -f -c %%a %[1]s)" = 0`, dir)
	}
	unmount := func(dir string) string { // noded may be writing there
		return fmt.Sprintf("for i in $(seq 100); do ! umount %s || exit 0; sleep 0.1; done; exit 1", dir)
	}
	changes := [][]string{
		{"gnt-node", "modify", "-C", "yes", "node2"},
		{"gnt-cluster", "modify", "--ssh-reach=master"},
		{"gnt-cluster", "modify", "--ssh-reach=candidates"},
		{"gnt-node", "modify", "-C", "no", "node2"},
	}
	newKeys := func(kind string) []string { return []string{"gnt-cluster", "modify", "--ssh-key-type=" + kind} }
	for _, c := range []struct {
		what, before, after string
		kill                bool
		changes             [][]string
	}{
		{"root's folder is full", full("/root/.ssh"), unmount("/root/.ssh"), false, append(slices.Clone(changes), newKeys("ecdsa"))},
		{"root's folder is full, and noded dies", full("/root/.ssh"), unmount("/root/.ssh"), true, changes},
		{"its own folder is full, and noded dies", full("/var/lib/rolekey/map"), unmount("/var/lib/rolekey/map"), true, changes},
		{"root's folder is read-only, and noded dies", "mount --bind /root/.ssh /root/.ssh && mount -o remount,bind,ro /root/.ssh", unmount("/root/.ssh"), true, changes},
		{"noded dies", "true", "true", true, append(slices.Clone(changes), newKeys("ed25519"))},
	} {
		sh(c.before)
		for i, change := range c.changes {
			done, missed := make(chan kit.Run, 1), strings.Contains(change[2], "key-type")
			go func() {
				r, _ := w.tryAdmin(change...) // it may say that node3 is missing
				done <- r
			}()
			if c.kill {
				// why-sleep: any moment will do.
				time.Sleep(time.Duration(40*i) * time.Millisecond)
				w.must(w.Kill(w.ctx, n.Name, lab.Noded))
			}
			if r := <-done; c.kill && missed {
				says(t, r.Stdout+r.Stderr, "Node node3.example may accept none but the SSH keys that were replaced")
			}
			enter(c.what+", after "+strings.Join(change[1:], " "), missed)
			w.must(w.Start(w.ctx, n.Name))
		}
		sh(c.after)
		took := w.until("the master enters again after: "+c.what, func(ctx context.Context) error { return w.Login(ctx, master, n) })
		t.Logf("%s: when it was over the master entered after %s", c.what, took.Round(time.Millisecond))
		w.rest("node1")
	}
	w.clean()
}

// TestMachinesLeftAlone: a cluster that is founded with --no-ssh-setup touches
// nothing of SSH's; later it may, and takes everything away again.
func TestMachinesLeftAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("needs whole clusters, which -short leaves out")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*limit)
	t.Cleanup(cancel)
	c, err := lab.Up(ctx, lab.Config{Nodes: 2, Isolation: lab.IsolationNetns, Dir: t.TempDir(), Bare: true})
	skipWithoutMachines(t, err)
	t.Cleanup(func() {
		if err := c.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	w := open(t, c.Dir())
	first, second := w.node("node1"), w.node("node2")
	before := map[string]string{}
	for _, n := range w.nodes() {
		w.authorizeOwn(n)
		_, err := w.Must(w.ctx, 0, n.Name, "sh", "-c", `cd /root/.ssh && printf '# no newline at the end, \377' >>authorized_keys &&
			printf 'other.example ssh-ed25519 AAAA\r\n' >known_hosts && printf 'Host x\n  Port 7\n' >config && touch -d 2020-01-01 *`)
		w.must(err)
		before[n.Name] = w.sshFilesOf(n)
	}
	same := func(when string, times bool) {
		t.Helper()
		for _, n := range w.nodes() {
			now, want := w.sshFilesOf(n), before[n.Name]
			if !times {
				now, want = withoutTimes(now), withoutTimes(want)
			}
			if now != want {
				t.Errorf("%s, %s:\n%s\nbefore:\n%s", when, n.Short(), now, want)
			}
		}
	}
	w.expect(0, "is founded", first.Name, "", "gnt-cluster", "init", lab.ClusterName, "--node-name", first.Name, "--address", first.Addresses[0],
		"--address", first.Addresses[1], "--no-recovery-key", "--no-ssh-setup", "--candidate-pool-size", "2")
	w.expect(0, "is now a node", second.Name, w.token(second.Name), "noded", "join", "-")
	w.settle()
	w.clean()
	same("with --no-ssh-setup", true)
	if err := w.Login(w.ctx, first, second); err == nil {
		t.Error("the cluster opens its nodes all the same")
	}

	w.admin(0, "gnt-cluster", "modify", "--ssh-setup=yes")
	w.must(w.logins(first, second, nil))
	w.must(w.logins(second, first, nil))
	w.clean()
	for _, n := range w.nodes() {
		text, err := os.ReadFile(n.AuthorizedKeys())
		if err != nil || !strings.Contains(string(text), "# no newline at the end, \xff") {
			t.Errorf("lines of the administrator's on %s: %q, %v", n.Short(), text, err)
		}
	}

	w.admin(0, "gnt-cluster", "modify", "--ssh-setup=no")
	w.until("all is taken away", func(context.Context) error {
		for _, n := range w.nodes() {
			if withoutTimes(w.sshFilesOf(n)) != withoutTimes(before[n.Name]) {
				return fmt.Errorf("%s:\n%s", n.Short(), w.sshFilesOf(n))
			}
		}
		return nil
	})
	same("after --ssh-setup=no", false)
	for _, n := range w.nodes() {
		if _, err := os.Lstat(filepath.Join(n.Root, "var/lib/rolekey/ssh/id")); err == nil {
			t.Errorf("a private key is left on %s", n.Short())
		}
	}
	w.clean()
}

// sshFilesOf lists SSH's files of a machine: mode, owner, time, digest, path.
func (w *world) sshFilesOf(n lab.Node) string {
	w.t.Helper()
	r, err := w.Must(w.ctx, 0, n.Name, "sh", "-c", `find /root/.ssh /etc/ssh -type f -print | sort | while read -r f; do
		printf '%s %s %s\n' "$(stat -c '%a:%u:%g %Y' "$f")" "$(sha256sum <"$f" | cut -c1-16)" "$f"; done`)
	w.must(err)
	return r.Stdout
}

func withoutTimes(list string) string {
	var out strings.Builder
	for line := range strings.Lines(list) {
		mode, rest, _ := strings.Cut(line, " ")
		_, rest, _ = strings.Cut(rest, " ")
		out.WriteString(mode + " " + rest)
	}
	return out.String()
}
