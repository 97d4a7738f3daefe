package noded

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// TestPrivateKeyIn: keys are known by their public half, also when they are
// encrypted, and other files are none.
func TestPrivateKeyIn(t *testing.T) {
	dir := t.TempDir()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	want, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := ssh.MarshalPrivateKey(private, "x")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "x", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"plain": pem.EncodeToMemory(plain), "locked": pem.EncodeToMemory(locked)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if k, ok := privateKeyIn(path); !ok || string(k.Blob) != string(want.Marshal()) || k.Type != want.Type() {
			t.Errorf("%s: found %v", name, ok)
		}
	}
	for name, text := range map[string]string{"empty": "", "public": string(ssh.MarshalAuthorizedKey(want)), "rubbish": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := privateKeyIn(path); ok {
			t.Errorf("%s is taken for a key", name)
		}
	}
}

// TestCopiesAreFound: where root keeps keys, at any place but our own.
func TestCopiesAreFound(t *testing.T) {
	t.Parallel()
	_, h := founded(t)
	m := h.member()
	own := m.keys.held()
	if len(own) != 1 {
		t.Fatalf("%d keys", len(own))
	}
	if got, _ := m.copies([]cluster.SSHKey{own[0].key}); len(got) != 0 {
		t.Errorf("its own place: %+v", got)
	}
	text, err := os.ReadFile(m.keys.dir.PrivateFile())
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(h.cfg.Paths.RootHome(), "backup.key")
	if err := os.WriteFile(copied, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, other, err := sshkeys.Generate(cluster.DefaultSSHKey, "x")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := m.copies([]cluster.SSHKey{other, own[0].key}); len(got) != 1 || got[0].Path != copied {
		t.Errorf("found %+v", got)
	}
	places := []string{"/tmp/a/b/key", "/var/tmp/key", "/var/backups/root/key", "/etc/ssh/key"}
	for i, path := range places {
		places[i] = h.cfg.Paths.In(path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(places[i]), 0o700), os.WriteFile(places[i], text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	found, _ := m.copies([]cluster.SSHKey{own[0].key})
	for _, path := range append(places, copied) {
		if !slices.ContainsFunc(found, func(c rpc.KeyCopy) bool { return c.Path == path }) {
			t.Errorf("%s is not found: %+v", path, found)
		}
	}
	if got, _ := m.copies([]cluster.SSHKey{other}); len(got) != 0 {
		t.Errorf("another key's: %+v", got)
	}
	if modes := m.wrongModes(); len(modes) != 0 {
		t.Errorf("modes: %q", modes)
	}
	if err := os.Chmod(m.cfg.Paths.ServerKey(), 0o644); err != nil {
		t.Fatal(err)
	}
	if modes := m.wrongModes(); len(modes) != 1 {
		t.Errorf("modes: %q", modes)
	}
}

// TestSearchIsNotHidden: whoever fills one folder hides nothing in another, and
// what was not searched is told.
func TestSearchIsNotHidden(t *testing.T) {
	t.Parallel()
	_, h := founded(t)
	m := h.member()
	text, key, err := sshkeys.Generate(cluster.DefaultSSHKey, "x")
	if err != nil {
		t.Fatal(err)
	}
	full := h.cfg.Paths.In("/tmp/many")
	if err := os.MkdirAll(full, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range searchFiles {
		if err := os.WriteFile(filepath.Join(full, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hidden := filepath.Join(h.cfg.Paths.StateDir(), "old")
	if err := os.WriteFile(hidden, text.Reveal(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, cut := m.copies([]cluster.SSHKey{key})
	if len(got) != 1 || got[0].Path != hidden || !slices.Equal(cut, []string{h.cfg.Paths.In("/tmp")}) {
		t.Errorf("found %+v, not searched %q", got, cut)
	}
}
