package noded

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/rpc"
)

// TestRepair: what others changed in the node's files is seen, put right, and
// said, and then there is nothing to do.
func TestRepair(t *testing.T) {
	t.Parallel()
	_, h := founded(t)
	m := h.member()
	v := m.keeper.View()
	set, err := m.ssh.finder.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.derive(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	m.ssh.mu.Lock() // so that noded itself is no faster
	text, err := os.ReadFile(set.known.Path)
	err = errors.Join(err, os.WriteFile(set.known.Path, bytes.ReplaceAll(text, []byte("ssh-"), []byte("ssh_")), 0o600), os.Chmod(m.cfg.Paths.ServerKey(), 0o644))
	m.ssh.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if found := m.wrongModes(); len(found) != 1 {
		t.Errorf("modes: %q", found)
	}
	var reply rpc.RepairReply
	m.repairFiles(t.Context(), v, &reply)
	if len(reply.Problems) > 0 || len(reply.Done) != 3 || !strings.HasPrefix(reply.Done[0], "put right: "+m.cfg.Paths.ServerKey()) {
		t.Errorf("reply %+v", reply)
	}
	if found := append(m.wrongModes(), m.ssh.differs(t.Context(), v)...); len(found) > 0 {
		t.Errorf("left: %q", found)
	}
}

// TestDiffers: damage in the block of known_hosts, and a lost drop-in.
func TestDiffers(t *testing.T) {
	t.Parallel()
	_, h := founded(t)
	m := h.member()
	v := m.keeper.View()
	if err := m.derive(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	m.ssh.mu.Lock()
	other := newOther(m.ssh) // as if noded did not look
	m.ssh.mu.Unlock()
	for name, spoil := range map[string]func(known, dropIn string) error{
		"damage": func(known, _ string) error {
			return os.WriteFile(known, []byte("# BEGIN ROLEKEY "+v.Map.Cluster.String()+"\nx\n"), 0o600)
		},
		"no drop-in":  func(_, dropIn string) error { return os.Remove(dropIn) },
		"other lines": func(known, _ string) error { return os.WriteFile(known+".mine", nil, 0o600) },
	} {
		if err := m.derive(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		m.ssh.mu.Lock()
		set, err := other.finder.get(t.Context())
		if err == nil {
			err = spoil(set.known.Path, m.cfg.Paths.SSHDropIn())
		}
		found := other.differs(t.Context(), v)
		m.ssh.mu.Unlock()
		if err != nil || (len(found) > 0) != (name != "other lines") {
			t.Errorf("%s: %q, %v", name, found, err)
		}
	}
}

// newOther looks at the files of another one, which is locked.
func newOther(s *sshFiles) *sshFiles {
	return &sshFiles{at: s.at, self: s.self, sources: s.sources, finder: s.finder, held: s.held, log: s.log, now: s.now}
}

// TestMendIsCareful: links are not followed, files with another name are spared,
// and rights are only taken away.
func TestMendIsCareful(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(
		os.WriteFile(path("open"), nil, 0o666), os.Chmod(path("open"), 0o466),
		os.WriteFile(path("two"), nil, 0o644), os.Link(path("two"), path("two.other")), os.Symlink(path("two"), path("link")),
	)
	if err != nil {
		t.Fatal(err)
	}
	rule := func(name string) guarded { return guarded{path(name), 0o600, []int{os.Geteuid()}, false} }
	if err := rule("open").mend(); err != nil || len(rule("open").wrong()) > 0 {
		t.Errorf("%v, %q", err, rule("open").wrong())
	}
	if info, err := os.Stat(path("open")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, name := range []string{"two", "link"} {
		if err := rule(name).mend(); err == nil || len(rule(name).wrong()) == 0 {
			t.Errorf("%s was changed: %v", name, err)
		}
	}
	if info, err := os.Stat(path("two")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
