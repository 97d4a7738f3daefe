package runbooks

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// TestBackup makes backups with the real commands: to a file and to a pipe, on
// the master, on another candidate, and without a majority.
func TestBackup(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w := up(t, lab.Config{Nodes: 3, CandidatePoolSize: 3})
	w.voters(3)
	key := filepath.Join(t.TempDir(), "age.key")
	w.must(os.WriteFile(key, []byte(id.String()+"\n"), 0o600))
	file := filepath.Join(t.TempDir(), "cluster.backup")
	to := id.Recipient().String()
	w.must1(w.Must(w.ctx, 1, "node1", "gnt-cluster", "backup", file))
	w.must1(w.Must(w.ctx, 0, "node1", "gnt-cluster", "backup", file, "--recipient", to))
	info, err := os.Stat(file)
	w.must(err)
	text, err := os.ReadFile(file)
	w.must(err)
	if info.Mode().Perm() != 0o600 || bytes.Contains(text, []byte("RKBACKUP")) {
		t.Errorf("mode %v, or in clear", info.Mode())
	}
	r := w.must1(w.Must(w.ctx, 0, "node2", "gnt-cluster", "backup", "--verify", file, "--identity", key))
	if !strings.Contains(r.Stdout, lab.ClusterName) {
		t.Errorf("verify says: %s", r.Stdout)
	}
	w.must(os.WriteFile(file, text[:len(text)-1], 0o600))
	w.must1(w.Must(w.ctx, 1, "node2", "gnt-cluster", "backup", "--verify", file, "--identity", key))
	for _, n := range []string{"node1", "node2"} {
		w.must(w.Kill(w.ctx, n, lab.All))
	}
	piped := w.must1(w.Must(w.ctx, 0, "node3", "gnt-cluster", "backup", "-", "--recipient", to))
	read := w.must1(w.Feed(w.ctx, "node3", piped.Stdout, "gnt-cluster", "backup", "--verify", "-", "--identity", key))
	w.must(read.Want(0))
}

func (w *world) must1(r kit.Run, err error) kit.Run {
	w.t.Helper()
	w.must(err)
	return r
}
