package runbooks

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"rolekey/internal/lab"
)

// TestLostMajority: two of three voters are gone with their disks.
func TestLostMajority(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w := up(t, lab.Config{Nodes: 4, CandidatePoolSize: 3, InitArgs: []string{"--recovery-recipient", id.Recipient().String()}})
	w.voters(3)
	w.bringKeys("node1", "node2", id)
	for _, n := range []string{"node1", "node3"} {
		w.must(w.Kill(w.ctx, n, lab.All))
		w.wipe(n)
		w.must(w.Start(w.ctx, n)) // other machines of these names
	}
	w.follow("lost majority")
	w.healthy(4)
	w.voters(3)
	m, err := w.ReadMap(w.ctx, "node2")
	w.must(err)
	if m.Epoch != 2 {
		t.Errorf("epoch %d", m.Epoch)
	}
}

// TestLostDiskOfAVoter: the machine comes back empty.
func TestLostDiskOfAVoter(t *testing.T) {
	w := up(t, lab.Config{Nodes: 4, CandidatePoolSize: 3})
	w.voters(3)
	w.must(w.Kill(w.ctx, "node3", lab.All))
	w.wipe("node3")
	w.must(w.Start(w.ctx, "node3"))
	w.follow("lost disk of a voter")
	w.healthy(4)
}

// voters waits until so many vote.
func (w *world) voters(want int) {
	w.t.Helper()
	w.await("voters", true, func() error {
		name, err := w.place("master")
		if err != nil {
			return err
		}
		m, err := w.ReadMap(w.ctx, name)
		if err != nil {
			return err
		}
		votes := 0
		for _, c := range m.Candidates {
			if c.Voter {
				votes++
			}
		}
		if votes != want {
			return errVoters
		}
		return nil
	})
}

// bringKeys does what the runbook asks the administrator to bring: the file that
// init wrote on one node, and the identity that opens it, in root's home on another.
func (w *world) bringKeys(from, to string, id *age.X25519Identity) {
	w.t.Helper()
	source, err := w.Node(w.ctx, from)
	w.must(err)
	target, err := w.Node(w.ctx, to)
	w.must(err)
	files, err := filepath.Glob(filepath.Join(source.Root, "var/lib/rolekey/recovery-*.age"))
	w.must(err)
	if len(files) != 1 {
		w.t.Fatalf("recovery files: %v", files)
	}
	text, err := os.ReadFile(files[0])
	w.must(err)
	w.must(os.WriteFile(filepath.Join(target.Root, "root/recovery.age"), text, 0o600))
	w.must(os.WriteFile(filepath.Join(target.Root, "root/age.key"), []byte(id.String()+"\n"), 0o600))
}

var errVoters = errors.New("not so many vote yet")
