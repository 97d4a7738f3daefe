package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// modify changes the flags of a node.
func (w *world) modify(node string, flags ...string) {
	w.t.Helper()
	w.admin(0, append(append([]string{"gnt-node", "modify"}, flags...), node)...)
}

// TestG4MachinesWaysOut: by whatever way a machine loses the role, the key that it
// had opens nothing at once, nor when the machine is back.
func TestG4MachinesWaysOut(t *testing.T) {
	w := machines(t)
	n := w.node("node2")
	add := func(flags ...string) {
		w.expect(0, "is now a node", n.Name, w.token(append(flags, n.Name)...), "noded", "join", "-")
	}
	loseDisk := func() {
		w.must(w.Stop(w.ctx, n.Name))
		for _, dir := range []string{"node", "map", "ssh", "masterd"} {
			w.must(clearFolder(n.File("/var/lib/rolekey/" + dir)))
		}
		w.must(clearFolder(n.File("/root/.ssh")))
		w.must(w.Start(w.ctx, n.Name))
	}
	for _, c := range []struct {
		how       string
		out, back func()
	}{
		{"demoted", func() { w.modify(n.Name, "-C", "no") }, nil},
		{"drained", func() { w.modify(n.Name, "-D", "yes") }, func() { w.modify(n.Name, "-D", "no") }},
		{"set offline", func() { w.modify(n.Name, "-O", "yes") }, func() { w.modify(n.Name, "-O", "no") }},
		{"set offline while it was dead", func() {
			w.must(w.Kill(w.ctx, n.Name, lab.All))
			w.modify(n.Name, "-O", "yes")
			w.must(w.Start(w.ctx, n.Name)) // it knows nothing of it
		}, func() { w.modify(n.Name, "-O", "no") }},
		{"removed", func() { w.admin(0, "gnt-node", "remove", n.Name) }, func() {
			w.expect(0, "", n.Name, "", "noded", "leave", "--yes")
			add()
		}},
		{"added again as a normal node", func() { w.modify(n.Name, "-C", "no"); loseDisk() }, func() { add("--readd") }},
		{"added again as a candidate", func() { loseDisk(); w.token("--readd", n.Name) }, func() { add("--readd") }},
	} {
		t.Run(strings.ReplaceAll(c.how, " ", "-"), func(t *testing.T) {
			*w = *machines(t)
			w.modify(n.Name, "-C", "yes")
			w.settle()
			loot := w.rob(n.Name).SSHKey
			w.must(w.tryStolen(loot, n, w.node("node3")))
			c.out()
			w.dead(loot, n)
			if c.back != nil {
				c.back()
			}
			w.settle()
			w.dead(loot, n)
			w.must(w.logins(w.node("node1"), n, nil))
			w.rest("node1")
			w.must(w.logins(n, w.node("node3"), kit.ShutOut))
		})
	}
	w = machines(t)
	w.clean()
}

// dead checks that a key opens no other node from where it was good.
func (w *world) dead(key []byte, from lab.Node) {
	w.t.Helper()
	for _, to := range w.others(from.Name) {
		if err := kit.ShutOut(w.tryStolen(key, from, to)); err != nil {
			w.t.Errorf("the key that %s had, on %s: %v", from.Short(), to.Short(), err)
		}
	}
}

// tryStolen tries one key and no other, by whatever family.
func (w *world) tryStolen(key []byte, from, to lab.Node) error {
	const path = "/tmp/stolen"
	var all error
	for _, address := range to.Addresses {
		w.must(os.WriteFile(from.File(path), key, 0o600))
		r, err := w.Sh(w.ctx, from.Name, "ssh", "-F", "/dev/null", "-i", path, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes",
			"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5", "-p", fmt.Sprint(to.SSHPort), "root@"+address, "true")
		w.must(errors.Join(err, os.Remove(from.File(path)))) // verify finds copies
		if r.Code != 0 {
			all = errors.Join(all, errors.New(r.Stderr))
		} else if all != nil {
			return fmt.Errorf("by %s alone it opens", address)
		}
	}
	return all
}

// TestMachinesTwoAtOnce: two promotions at the same time, and two demotions; the
// second map forgets nothing of the first.
func TestMachinesTwoAtOnce(t *testing.T) {
	w := machines(t)
	a, b := w.node("node2"), w.node("node3")
	for _, c := range []struct {
		a, b  string
		judge [2]func(error) error // of logins from a, and from b
	}{
		{"yes", "yes", [2]func(error) error{nil, nil}},
		{"no", "no", [2]func(error) error{kit.ShutOut, kit.ShutOut}},
		{"yes", "no", [2]func(error) error{nil, kit.ShutOut}},
		{"no", "yes", [2]func(error) error{kit.ShutOut, nil}},
		{"no", "no", [2]func(error) error{kit.ShutOut, kit.ShutOut}},
	} {
		var g errgroup.Group
		for node, want := range map[string]string{a.Name: c.a, b.Name: c.b} {
			g.Go(func() error {
				r, err := w.tryAdmin("gnt-node", "modify", "-C", want, node)
				if err == nil && r.Want(0) != nil && !strings.Contains(r.Stderr, "already") {
					err = r.Want(0)
				}
				return err
			})
		}
		w.must(g.Wait())
		for i, pair := range [][2]lab.Node{{a, b}, {b, a}} {
			if err := errors.Join(w.logins(pair[0], pair[1], c.judge[i]), w.logins(pair[0], w.node("node1"), c.judge[i])); err != nil {
				t.Errorf("%s and %s: %v", c.a, c.b, err)
			}
		}
	}
	w.settle()
	w.clean()
}

// TestZG4MachinesExpire: noded of a node is dead, and sshd itself refuses the
// cluster's keys after the expiry, and not before. The administrator's own opens.
// It comes late, because the shortest lease is a minute.
func TestZG4MachinesExpire(t *testing.T) {
	w := machines(t)
	master, n := w.node("node1"), w.node("node3")
	own := w.authorizeOwn(n)
	w.admin(0, "gnt-cluster", "modify", "--ssh-lease=1m")
	w.must(w.Kill(w.ctx, n.Name, lab.Noded))
	until := w.expiry(n)
	t.Cleanup(func() {
		w.startAll()
		w.settle()
		w.admin(0, "gnt-cluster", "modify", "--ssh-lease=24h")
		w.clean()
	})
	if left := time.Until(until); left <= 0 || left > time.Minute+time.Second {
		t.Fatalf("the expiry is %s from now", left)
	}
	logins := 0
	_, err := kit.Until(w.ctx, 2*limit, func(ctx context.Context) error {
		began := time.Now()
		err := w.Login(ctx, master, n)
		if err == nil {
			logins++
			return errors.New("the master's key opens it")
		}
		if began.Before(until.Add(-time.Second)) {
			t.Errorf("refused %s before the expiry: %v", time.Until(until), err)
		}
		return kit.ShutOut(err)
	})
	w.must(err)
	if logins == 0 {
		t.Error("the master's key opened nothing")
	}
	w.must(w.LoginWith(w.ctx, own, master, n))
	w.must(w.Start(w.ctx, n.Name))
	w.until("the master enters again", func(ctx context.Context) error { return w.Login(ctx, master, n) })
}

// expiry reads until when sshd honours the keys of the cluster.
func (w *world) expiry(n lab.Node) time.Time {
	w.t.Helper()
	text, err := os.ReadFile(n.AuthorizedKeys())
	w.must(err)
	_, rest, _ := strings.Cut(string(text), `expiry-time="`)
	value, _, _ := strings.Cut(rest, `"`)
	zone := time.Local
	if strings.HasSuffix(value, "Z") {
		zone = time.UTC
	}
	at, err := time.ParseInLocation("20060102150405", strings.TrimSuffix(value, "Z"), zone)
	w.must(err)
	return at
}

// authorizeOwn gives the administrator a key of his own on a node, and returns
// the private half.
func (w *world) authorizeOwn(n lab.Node) string {
	w.t.Helper()
	own := filepath.Join(w.t.TempDir(), "own")
	w.must(kit.NewSSHKey(own))
	text, err := os.ReadFile(own)
	w.must(err)
	key, err := ssh.ParsePrivateKey(text)
	w.must(err)
	line := "# the administrator's\n" + string(ssh.MarshalAuthorizedKey(key.PublicKey()))
	r, err := w.Feed(w.ctx, n.Name, line, "sh", "-c", "umask 077; mkdir -p /root/.ssh; cat >>/root/.ssh/authorized_keys")
	w.must(err)
	w.must(r.Want(0))
	return own
}
