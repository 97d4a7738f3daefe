package runbooks

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rolekey/internal/lab"
)

// TestLostMaster: the machine dies, and comes back with an empty disk.
func TestLostMaster(t *testing.T) {
	w := up(t, lab.Config{Nodes: 4, CandidatePoolSize: 3})
	w.must(w.Kill(w.ctx, "node1", lab.All))
	w.wipe("node1")
	w.must(w.Start(w.ctx, "node1")) // another machine of that name
	w.follow("lost master")
	w.healthy(4)
}

// TestPowerLoss lasts longer than the lease.
func TestPowerLoss(t *testing.T) {
	w := up(t, lab.Config{Nodes: 4, CandidatePoolSize: 3, MapLease: 2 * time.Second})
	for _, n := range []string{"node1", "node2", "node3", "node4"} {
		w.must(w.Kill(w.ctx, n, lab.All))
	}
	<-time.After(3 * time.Second) // nothing else tells that a lease is over where nobody lives
	for _, n := range []string{"node4", "node2", "node1", "node3"} {
		w.must(w.Start(w.ctx, n))
	}
	w.follow("whole-cluster power loss")
	w.healthy(4)
}

// TestRestoredSnapshot puts the disk of a voter back to what it was some
// changes ago.
func TestRestoredSnapshot(t *testing.T) {
	w := up(t, lab.Config{Nodes: 4, CandidatePoolSize: 3})
	w.voters(3)
	w.must(w.Stop(w.ctx, "node3"))
	restore := w.snapshot("node3")
	w.must(w.Start(w.ctx, "node3"))
	// Without node2 nothing comes in force that node3 has not voted for and signed.
	w.must(w.Stop(w.ctx, "node2"))
	for _, on := range []string{"yes", "no"} {
		w.await("a change", true, func() error {
			_, err := w.Must(w.ctx, 3, "node1", "gnt-node", "modify", "-D", on, "node4")
			return err
		})
	}
	w.must(w.Start(w.ctx, "node2"))
	w.must(w.Stop(w.ctx, "node3"))
	restore()
	if err := w.Start(w.ctx, "node3"); err != nil { // masterd ends when it finds out
		t.Logf("start: %v", err)
	}
	w.await("the refusal of the copy", true, func() error { return w.logs("node3", lab.Masterd, "restored or cloned copy") })
	w.follow("restored VM snapshot")
	w.healthy(4)
}

// TestHostileMaster deposes a master that runs as it should and that the
// administrator no longer trusts.
func TestHostileMaster(t *testing.T) {
	w := up(t, lab.Config{Nodes: 4, CandidatePoolSize: 3})
	w.voters(3)
	w.follow("hostile master")
	w.healthy(4)
}

// wipe is a new disk: nothing of Rolekey's state is left.
func (w *world) wipe(node string) {
	w.t.Helper()
	n, err := w.Node(w.ctx, node)
	w.must(err)
	for _, dir := range []string{"node", "map", "ssh", "masterd"} {
		w.must(emptied(filepath.Join(n.Root, "var/lib/rolekey", dir)))
	}
	w.must(emptied(filepath.Join(n.Root, "root/.ssh")))
}

// emptied removes what is in a folder, and keeps the folder with its owner.
func emptied(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// snapshot copies the state of a node that does not run, and returns what puts
// it back.
func (w *world) snapshot(node string) (restore func()) {
	w.t.Helper()
	n, err := w.Node(w.ctx, node)
	w.must(err)
	state, copied := filepath.Join(n.Root, "var/lib/rolekey"), w.t.TempDir()
	copyAll := func(from, to string) {
		if out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
			w.t.Fatalf("copy state: %v: %s", err, out)
		}
	}
	copyAll(state, copied)
	return func() {
		w.must(emptied(state))
		copyAll(copied, state)
	}
}

// logs reports whether a daemon's log says something.
func (w *world) logs(node, daemon, says string) error {
	n, err := w.Node(w.ctx, node)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(n.Log(daemon))
	if err == nil && !strings.Contains(string(text), says) {
		err = errors.New("the log of " + daemon + " on " + node + " does not say: " + says)
	}
	return err
}
