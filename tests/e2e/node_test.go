package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"rolekey/tests/kit"
)

// TestNodeCommands does what an administrator does with nodes, beside roles.
func TestNodeCommands(t *testing.T) {
	for _, step := range []struct {
		name string
		do   func(*world)
	}{
		{"Tags", tagNode},
		{"SecondAddress", secondAddress},
		{"Rename", renameNode},
		{"G1ReaddAfterDiskLoss", readdAfterDiskLoss},
	} {
		t.Run(step.name, func(t *testing.T) {
			w := rested(t)
			step.do(w)
			w.settle()
			w.clean()
		})
	}
}

// prints runs a command on the master that must print exactly this.
func (w *world) prints(want string, args ...string) {
	w.t.Helper()
	if r := w.admin(0, args...); r.Stdout != want {
		w.t.Errorf("%s prints %q, want %q", strings.Join(args, " "), r.Stdout, want)
	}
}

func tagNode(w *world) {
	n := w.node("node5")
	w.prints("", "gnt-node", "add-tags", n.Name, "rack:b7", "dmz")
	w.prints("", "gnt-node", "remove-tags", "--dry-run", n.Name, "dmz")
	w.prints("dmz\nrack:b7\n", "gnt-node", "list-tags", n.Name)
	w.prints("", "gnt-cluster", "add-tags", "rack:all")
	w.prints("/cluster rack:all\n/nodes/"+n.Name+" rack:b7\n", "gnt-cluster", "search-tags", "^rack:")
	w.admin(1, "gnt-node", "remove-tags", n.Name, "nosuch")
	w.prints("", "gnt-node", "remove-tags", n.Name, "rack:b7", "dmz")
	w.prints("", "gnt-cluster", "remove-tags", "rack:all")
}

// secondAddress: the node listens at one address only, so the other one is
// taken by force alone.
func secondAddress(w *world) {
	n := w.node("node5")
	second := n.Address[:strings.LastIndex(n.Address, ".")+1] + "250"
	if r := w.admin(1, "gnt-node", "modify", "-s", second, n.Name); !strings.Contains(r.Stderr, "does not answer at "+second) {
		w.t.Errorf("said %q", r.Stderr)
	}
	w.prints("Modified node "+n.Name+"\n - secondary_ip -> "+second+"\n", "gnt-node", "modify", "-f", "-s", second, n.Name)
	w.until("its certificates are for both addresses", func(context.Context) error {
		r, err := w.tryAdmin("gnt-node", "info", n.Name)
		switch {
		case err != nil:
			return err
		case !strings.Contains(r.Stdout, "secondary ip: "+second+"\n") || strings.Contains(r.Stdout, "former name or addresses"):
			return errors.New(r.Stdout)
		}
		return nil
	})
	w.admin(0, "gnt-node", "modify", "--address", n.Address, n.Name)
}

// renameNode: the node learns its new name, and so do SSH's files everywhere.
func renameNode(w *world) {
	n := w.node("node5")
	const name = "web.example"
	w.prints("Renamed node "+n.Name+" to "+name+"\n", "gnt-node", "rename", n.Name, name)
	w.until("everybody calls it so", func(ctx context.Context) error {
		r, err := w.Sh(ctx, n.Name, "noded", "status")
		if err == nil && !strings.Contains(r.Stdout, name) {
			err = fmt.Errorf("it says %q", r.Stdout)
		}
		for _, other := range w.nodes() {
			hosts, readErr := os.ReadFile(filepath.Join(other.Root, "root/.ssh/known_hosts"))
			if readErr == nil && (!strings.Contains(string(hosts), name) || strings.Contains(string(hosts), n.Name)) {
				readErr = fmt.Errorf("known_hosts of %s does not follow", other.Name)
			}
			err = errors.Join(err, readErr)
		}
		return err
	})
	w.clean() // which logs in by the new name
	w.admin(0, "gnt-node", "rename", name, n.Name)
}

// readdAfterDiskLoss: a candidate loses its disk, and comes back as itself. What
// was on the disk opens nothing.
func readdAfterDiskLoss(w *world) {
	master := w.master()
	n := w.others(master, "node4", "node5")[0]
	w.admin(0, "gnt-node", "add-tags", n.Name, "kept")
	before := w.rob(n.Name)
	key := filepath.Join(w.t.TempDir(), "stolen")
	w.must(os.WriteFile(key, before.SSHKey, 0o600))
	w.must(w.Stop(w.ctx, n.Name))
	for _, dir := range []string{"var/lib/rolekey/node", "var/lib/rolekey/map", "var/lib/rolekey/ssh", "var/lib/rolekey/masterd", "root/.ssh"} {
		w.must(clearFolder(filepath.Join(n.Root, dir)))
	}
	w.must(w.Start(w.ctx, n.Name))
	w.admin(1, "gnt-node", "add", n.Name)
	token := w.token("--readd", n.Name)
	lost, err := ssh.ParsePrivateKey(before.SSHKey)
	w.must(err)
	public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(lost.PublicKey())))
	gone := func() {
		w.t.Helper()
		for _, other := range w.others(n.Name) {
			w.refused(before.Caller(before.Candidate), w.Noded(other), "/v1/state", "not_in_roster", "not_in_map")
			keys, err := os.ReadFile(filepath.Join(other.Root, "root/.ssh/authorized_keys"))
			if err != nil || strings.Contains(string(keys), public) {
				w.t.Errorf("the lost SSH key is authorized on %s: %v", other.Name, err)
			}
		}
	}
	gone() // before there is a new life
	// Now, since with the new life ssh(1) offers the new key as well.
	if err := kit.ShutOut(w.LoginWith(w.ctx, key, n, w.node(master))); err != nil {
		w.t.Errorf("the lost SSH key: %v", err)
	}
	w.expect(0, "is now a node", n.Name, token, "noded", "join", "-")
	w.until(n.Name+" is a candidate again", func(context.Context) error {
		if !w.readMap().Has(n.Name) {
			return errors.New("it is not in the map")
		}
		return nil
	})
	gone()
	for _, other := range w.others(n.Name) {
		w.refused(before.Caller(before.Member), w.Noded(other), "/v1/map?from=0.0", "not_in_roster", "not_in_map")
	}
	r := w.admin(0, "gnt-node", "info", n.Name)
	for _, want := range []string{"UUID: " + before.ID.String(), "incarnation: 2", "- kept", "offline: False"} {
		if !strings.Contains(r.Stdout, want) {
			w.t.Errorf("%q is missing in\n%s", want, r.Stdout)
		}
	}
	w.admin(0, "gnt-node", "remove-tags", n.Name, "kept")
}

// clearFolder removes what is in a folder, and keeps the folder with its owner.
func clearFolder(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}
