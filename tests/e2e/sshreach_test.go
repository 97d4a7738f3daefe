package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// TestMachinesReachUnderLogins: ssh_reach changes there and back, with either
// mode, and no login of the master's fails. With ssh_reach=master nobody else gets
// in once the command is done.
func TestMachinesReachUnderLogins(t *testing.T) {
	w := machines(t)
	master, candidate, n := w.node("node1"), w.node("node2"), w.node("node3")
	w.byDefaultAtTheEnd()
	w.modify(candidate.Name, "-C", "yes")
	w.settle()
	for _, mode := range []string{"per-candidate", "shared"} {
		w.admin(0, "gnt-cluster", "modify", "--ssh-key-mode="+mode)
		w.loginsOf(master, n, func() {
			for range 3 {
				w.admin(0, "gnt-cluster", "modify", "--ssh-reach=master")
				w.must(w.logins(candidate, n, kit.ShutOut))
				w.must(w.logins(candidate, master, kit.ShutOut))
				w.admin(0, "gnt-cluster", "modify", "--ssh-reach=candidates")
				w.must(w.logins(candidate, n, nil))
			}
		})
	}
	w.clean()
}

// byDefaultAtTheEnd has the SSH settings of the machines as they were.
func (w *world) byDefaultAtTheEnd() {
	w.t.Cleanup(func() {
		w.must(w.Heal(w.ctx))
		w.startAll()
		w.settle()
		w.admin(0, "gnt-cluster", "modify", "--ssh-reach=candidates", "--ssh-key-mode=per-candidate", "--ssh-key-type=ed25519", "--ssh-key-storage=file")
		w.clean()
	})
}

// TestG4MachinesReachOfTheNextMaster: with ssh_reach=master a handover brings the
// new master's key to all nodes with the new map, and that of the old one, which
// remains a candidate, opens nothing; keys in files and in memory.
func TestG4MachinesReachOfTheNextMaster(t *testing.T) {
	w := machines(t)
	w.byDefaultAtTheEnd()
	for _, name := range []string{"node2", "node3"} {
		w.modify(name, "-C", "yes")
	}
	w.settle()
	for _, storage := range []string{"file", "agent"} {
		w.admin(0, "gnt-cluster", "modify", "--ssh-reach=master", "--ssh-key-storage="+storage)
		for _, to := range []string{"node2", "node1"} {
			old, next := w.node(w.master()), w.node(to)
			stolen := []byte(secret(old))
			w.until("the role moves to "+to, func(ctx context.Context) error {
				_, err := w.Must(ctx, 0, next.Name, "gnt-cluster", "master-failover")
				return err
			})
			began := time.Now()
			for _, n := range w.others(next.Name) {
				w.until(next.Short()+" enters "+n.Short(), func(ctx context.Context) error { return w.Login(ctx, next, n) })
			}
			t.Logf("%s, after the handover to %s its logins everywhere took %s", storage, to, time.Since(began).Round(time.Millisecond))
			for _, n := range w.others(old.Name) {
				w.must(w.logins(old, n, kit.ShutOut))
			}
			if len(stolen) > 0 {
				w.dead(stolen, old)
			}
			w.settle()
		}
	}
	w.admin(0, "gnt-cluster", "modify", "--ssh-reach=candidates", "--ssh-key-storage=file")
	w.rest("node1")
	w.clean()
}

// TestMachinesSource: root's ssh leaves from an address that the others know,
// whatever the kernel prefers, also where noded.toml names no address.
func TestMachinesSource(t *testing.T) {
	w := machines(t)
	master := w.node("node1")
	config := master.File("/etc/rolekey/noded.toml")
	whole, err := os.ReadFile(config)
	w.must(err)
	sh := func(script string) {
		t.Helper()
		_, err := w.Must(w.ctx, 0, master.Name, "sh", "-c", script)
		w.must(err)
	}
	restart := func() {
		w.must(w.Kill(w.ctx, master.Name, lab.Noded))
		w.must(w.Start(w.ctx, master.Name))
		w.settle()
	}
	t.Cleanup(func() {
		w.must(os.WriteFile(config, whole, 0o644))
		sh("ip addr del 10.77.0.201/24 dev eth0; ip -6 addr del fd77::201/64 dev eth0; ip route replace 10.77.0.0/24 dev eth0 src 10.77.0.1; ip -6 route replace fd77::/64 dev eth0 proto kernel metric 256")
		restart()
		w.clean()
	})
	sh(`ip addr add 10.77.0.201/24 dev eth0; ip -6 addr add fd77::201/64 dev eth0 nodad
		ip route replace 10.77.0.0/24 dev eth0 src 10.77.0.201; ip -6 route replace fd77::/64 dev eth0 src fd77::201 metric 1`)
	var rest []string
	for line := range strings.Lines(string(whole)) {
		if !strings.HasPrefix(line, "addresses") {
			rest = append(rest, line)
		}
	}
	for _, text := range []string{string(whole), strings.Join(rest, "")} {
		w.must(os.WriteFile(config, []byte(text), 0o644))
		restart()
		for _, n := range w.others(master.Name) {
			w.must(w.logins(master, n, nil))
			for _, address := range n.Addresses {
				w.prints(address+"\n", "gnt-cluster", "ssh", address, "--", `set -- $SSH_CONNECTION; echo "$3"`)
			}
		}
		w.clean() // which logs in, too
	}
	// Without what noded wrote the kernel's choice counts, and nobody knows it:
	// else this test could not fail.
	w.must(kit.Denied(w.tryStolen([]byte(secret(master)), master, w.node("node2"))))
}
