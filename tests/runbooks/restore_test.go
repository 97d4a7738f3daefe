package runbooks

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"rolekey/internal/lab"
)

// withBackup is a cluster with recovery key, and with a backup, identity and
// recovery key in root's home on node1.
func withBackup(t *testing.T, nodes int) *world {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w := up(t, lab.Config{Nodes: nodes, CandidatePoolSize: 3, InitArgs: []string{"--recovery-recipient", id.Recipient().String()}})
	w.voters(3)
	w.bringKeys("node1", "node1", id)
	w.must1(w.Must(w.ctx, 0, "node1", "bash", "-c", "gnt-cluster backup ~/cluster.backup --recipient "+id.Recipient().String()))
	return w
}

// loseCandidates replaces the machines of nodes 1 to 3 by new ones.
func (w *world) loseCandidates() {
	w.t.Helper()
	for _, n := range []string{"node1", "node2", "node3"} {
		w.must(w.Kill(w.ctx, n, lab.All))
	}
	for _, n := range []string{"node1", "node2", "node3"} {
		w.wipe(n)
		w.must(w.Start(w.ctx, n))
	}
}

func (w *world) epoch(want uint64) {
	w.t.Helper()
	m, err := w.ReadMap(w.ctx, "node1")
	w.must(err)
	if m.Epoch != want {
		w.t.Errorf("epoch %d, want %d", m.Epoch, want)
	}
}

// TestAllCandidatesLost: node4, a regular node, lives and follows by itself.
func TestAllCandidatesLost(t *testing.T) {
	w := withBackup(t, 4)
	w.loseCandidates()
	w.follow("all candidates lost")
	w.healthy(4)
	w.voters(3)
	w.epoch(2)
}

// TestG3RestoreKeepsWhoWasRemovedOut: node4 was removed after the backup. node5
// knows.
func TestG3RestoreKeepsWhoWasRemovedOut(t *testing.T) {
	w := withBackup(t, 5)
	w.await("the removal", true, func() error {
		_, err := w.Must(w.ctx, 0, "node1", "gnt-node", "remove", "node4.example")
		return err
	})
	w.loseCandidates()
	restore := "gnt-cluster restore ~/cluster.backup --identity ~/age.key --recovery-key ~/recovery.age --node-name node1.example --yes-do-it"
	r := w.must1(w.Must(w.ctx, 1, "node1", "bash", "-c", restore))
	if !strings.Contains(r.Stderr, "--maps") {
		t.Errorf("refused with: %s", r.Stderr)
	}
	from, err := w.Node(w.ctx, "node5")
	w.must(err)
	w.await("the restore with a whole copy", true, func() error {
		maps := filepath.Join(t.TempDir(), "map")
		if out, err := exec.Command("cp", "-r", filepath.Join(from.Root, "var/lib/rolekey/map"), maps).CombinedOutput(); err != nil {
			t.Fatalf("copy maps: %v: %s", err, out)
		}
		w.must(os.Chmod(maps, 0o700))
		_, err := w.Must(w.ctx, 0, "node1", "bash", "-c", restore+" --maps "+maps)
		if err != nil && !strings.Contains(err.Error(), "copy it again") {
			t.Fatal(err)
		}
		return err
	})
	w.epoch(2)
	m, err := w.ReadMap(w.ctx, "node1")
	w.must(err)
	for _, n := range m.Nodes {
		if strings.HasPrefix(n.Name, "node4.") {
			t.Error("node4 was removed, and is back")
		}
	}
	w.await("node5 to follow", true, func() error {
		_, err := w.Must(w.ctx, 0, "node5", "bash", "-c", "noded status | grep -q 'map: *2[.].*fresh'")
		return err
	})
}
