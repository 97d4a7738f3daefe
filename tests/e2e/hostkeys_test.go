package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"rolekey/internal/lab"
)

// newHostKeys gives a machine other host keys, as an administrator would, and
// returns the new public half of one of them.
func (w *world) newHostKeys(n lab.Node) string {
	w.t.Helper()
	_, err := w.Must(w.ctx, 0, n.Name, "sh", "-c", `cd /etc/ssh && rm -f ssh_host_* &&
		ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key && ssh-keygen -q -t ecdsa -N '' -f ssh_host_ecdsa_key`)
	w.must(err)
	return w.hostKey(n)
}

func (w *world) hostKey(n lab.Node) string {
	w.t.Helper()
	line, err := os.ReadFile(n.HostKey() + ".pub")
	w.must(err)
	return strings.Fields(string(line))[1]
}

// reloadSSHD has a node's sshd read its configuration and host keys anew.
func (w *world) reloadSSHD(n lab.Node) {
	w.t.Helper()
	w.must(syscall.Kill(w.node(n.Short()).PIDs.SSHD, syscall.SIGHUP))
}

// believes returns nil if the known_hosts of a node has a host key.
func believes(n lab.Node, key string) error {
	text, err := os.ReadFile(n.KnownHosts())
	if err == nil && !strings.Contains(string(text), key) {
		err = fmt.Errorf("known_hosts of %s lacks %.40s", n.Short(), key)
	}
	return err
}

// changedKey returns nil if ssh refused a host that shows another key.
func changedKey(err error) error {
	if err == nil {
		return errors.New("the login worked")
	}
	if strings.Contains(err.Error(), "Host key verification failed") {
		return nil
	}
	return err
}

// trusts waits until a node has another's new host key, and gets in by every
// name and address.
func (w *world) trusts(from, to lab.Node, key string) {
	w.t.Helper()
	took := w.until(from.Short()+" has the new host key of "+to.Short(), func(context.Context) error {
		return errors.Join(believes(from, key), w.logins(from, to, nil))
	})
	w.t.Logf("%s has the new host key of %s after %s", from.Short(), to.Short(), took)
}

// TestMachinesHostKeyOfANormalNode: new host keys and another port are believed
// on the word of the node's identity. An sshd that reads its keys for each
// connection shows new ones before it is restarted.
func TestMachinesHostKeyOfANormalNode(t *testing.T) {
	w := machines(t)
	master, other, n := w.node("node1"), w.node("node2"), w.node("node3")
	key := w.newHostKeys(n)
	w.reloadSSHD(n)
	w.trusts(master, n, key)
	w.audited(other, "noded", "the other host key", func(l auditLine) bool { return l.Act == "host_keys_changed" && l.Target == n.Name })

	config := n.File("/etc/ssh/sshd_config")
	text, err := os.ReadFile(config)
	w.must(err)
	w.must(os.WriteFile(config, []byte(strings.Replace(string(text), "Port 22\n", "Port 2222\n", 1)), 0o644))
	w.reloadSSHD(n)
	took := w.until("the new port is known", func(context.Context) error {
		return errors.Join(believes(master, fmt.Sprintf("[%s]:2222", n.Address)), w.logins(master, n, nil))
	})
	t.Logf("the new port is known after %s", took)
	w.must(os.WriteFile(config, text, 0o644))
	w.reloadSSHD(n)
	w.until("the old port is known again", func(context.Context) error {
		w.must(syscall.Kill(n.PIDs.Noded, syscall.SIGHUP))
		return w.logins(master, n, nil)
	})
	w.clean()
}

// TestMachinesHostKeyOfACandidate: the administrator accepts it, and until then
// ssh refuses; the master is no exception.
func TestMachinesHostKeyOfACandidate(t *testing.T) {
	w := machines(t)
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node2")
	w.settle()
	master, n := w.node("node1"), w.node("node2")
	for _, pair := range [][2]lab.Node{{master, n}, {n, master}} {
		from, to := pair[0], pair[1]
		key := w.newHostKeys(to)
		w.reloadSSHD(to)
		w.until("the host keys of "+to.Short()+" wait", func(ctx context.Context) error {
			r, err := w.tryAdmin("gnt-cluster", "verify")
			if err == nil && (r.Code != 1 || !strings.Contains(r.Stdout, "gnt-node accept-host-keys "+to.Name)) {
				err = fmt.Errorf("exit code %d: %s", r.Code, r.Stdout)
			}
			return err
		})
		w.must(w.logins(from, to, changedKey))
		if r := w.admin(13, "gnt-node", "accept-host-keys", to.Short()); !strings.Contains(r.Stderr, "SHA256:") {
			t.Errorf("asks: %s", r.Stderr)
		}
		w.admin(0, "gnt-node", "accept-host-keys", "-f", to.Short())
		w.trusts(from, to, key)
		w.clean()
	}
	w.admin(0, "gnt-node", "modify", "-C", "no", "node2")
}

// TestMachinesStolenHostKey: root on a normal node who has another's host key
// makes its own sshd show it. The cluster believes it for neither.
func TestMachinesStolenHostKey(t *testing.T) {
	w := machines(t)
	master, victim, thief := w.node("node1"), w.node("node2"), w.node("node3")
	old, err := os.ReadFile(thief.HostKey())
	w.must(err)
	public, err := os.ReadFile(thief.HostKey() + ".pub")
	w.must(err)
	w.must(copyFile(victim.HostKey(), thief.HostKey(), 0o600))
	w.must(copyFile(victim.HostKey()+".pub", thief.HostKey()+".pub", 0o644))
	w.reloadSSHD(thief)
	w.audited(master, "masterd", "the claim", func(l auditLine) bool {
		return l.Act == "host_keys_refused" && l.Target == thief.Name && l.Code == "already_exists"
	})
	w.must(w.logins(master, victim, nil))
	r := w.admin(1, "gnt-cluster", "verify")
	says(t, r.Stdout, thief.Name, "its sshd has the host key ", "of node "+victim.Name)

	w.must(os.WriteFile(thief.HostKey(), old, 0o600))
	w.must(os.WriteFile(thief.HostKey()+".pub", public, 0o644))
	w.reloadSSHD(thief)
	w.until("it shows its own again", func(context.Context) error { return w.logins(master, thief, nil) })
	w.clean()
}

func copyFile(from, to string, mode os.FileMode) error {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, mode)
	}
	return err
}
