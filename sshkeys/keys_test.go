package sshkeys

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

func newKey(t testing.TB) cluster.SSHKey {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyFrom(t, pub)
}

func keyFrom(t testing.TB, pub any) cluster.SSHKey {
	t.Helper()
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return KeyOf(k)
}

// rsaKey makes a public key of that many bits; nobody knows its private half.
func rsaKey(t testing.TB, bits int) cluster.SSHKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return keyFrom(t, &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537})
}

func ecKey(t testing.TB, c elliptic.Curve) cluster.SSHKey {
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyFrom(t, &k.PublicKey)
}

func TestParseKeyTypes(t *testing.T) {
	good := []cluster.SSHKey{
		newKey(t), ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384()), ecKey(t, elliptic.P521()),
		rsaKey(t, 3072), rsaKey(t, 4096),
	}
	for _, k := range good {
		pub, err := ParseKey(k)
		if err != nil {
			t.Fatalf("%s: %v", k.Type, err)
		}
		if got := KeyOf(pub); got.Type != k.Type || string(got.Blob) != string(k.Blob) {
			t.Errorf("%s: KeyOf(ParseKey(k)) differs from k", k.Type)
		}
		line := []byte(keyText(k, cluster.NewUUID()) + "\n")
		if got, err := ParsePublicLine(line); err != nil || string(got.Blob) != string(k.Blob) {
			t.Errorf("%s: ParsePublicLine: %v", k.Type, err)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	ed := newKey(t)
	dsaKey := cluster.SSHKey{Type: "ssh-dss", Blob: ssh.Marshal(struct {
		Type       string
		P, Q, G, Y *big.Int
	}{"ssh-dss", new(big.Int).SetBit(big.NewInt(1), 1023, 1), new(big.Int).SetBit(big.NewInt(1), 159, 1), big.NewInt(2), big.NewInt(4)})}
	if pub, err := ssh.ParsePublicKey(dsaKey.Blob); err != nil || pub.Type() != "ssh-dss" {
		t.Fatalf("the DSA key is not even one: %v", err)
	}
	// The same RSA key with a superfluous zero in front of its exponent.
	long := rsaKey(t, 3072)
	i := 4 + len("ssh-rsa")
	if binary.BigEndian.Uint32(long.Blob[i:]) != 3 {
		t.Fatal("the exponent is not where it should be")
	}
	padded := slices.Insert(slices.Clone(long.Blob), i+4, 0)
	binary.BigEndian.PutUint32(padded[i:], 4)
	for name, k := range map[string]cluster.SSHKey{
		"dsa":        dsaKey,
		"rsa 3071":   rsaKey(t, 3071),
		"rsa 2048":   rsaKey(t, 2048),
		"rsa 16392":  rsaKey(t, 16392),
		"padded rsa": {Type: "ssh-rsa", Blob: padded},
		"wrong type": {Type: "ssh-rsa", Blob: ed.Blob},
		"no type":    {Blob: ed.Blob},
		"trailing":   {Type: ed.Type, Blob: append(slices.Clone(ed.Blob), 0)},
		"cut":        {Type: ed.Type, Blob: ed.Blob[:len(ed.Blob)-1]},
		"empty":      {Type: ed.Type},
		"huge":       {Type: ed.Type, Blob: make([]byte, maxBlob+1)},
		"newline":    {Type: "ssh-ed25519\n", Blob: ed.Blob},
	} {
		if _, err := ParseKey(k); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	withOptions := []byte(`command="id" ` + keyText(ed, cluster.NewUUID()))
	if _, err := ParsePublicLine(withOptions); err == nil {
		t.Error("a .pub line with options: accepted")
	}
}

func TestKeyDirLife(t *testing.T) {
	d := KeyDir{Path: filepath.Join(t.TempDir(), "var", "ssh dir")}
	node := cluster.NewUUID()
	if _, err := d.Load(); !errors.Is(err, ErrNoKey) {
		t.Fatalf("Load before Ensure: %v", err)
	}
	if removed, err := d.Destroy(); err != nil || len(removed) != 0 {
		t.Fatalf("Destroy without folder: %v, %v", removed, err)
	}
	k, created, err := d.Ensure(node)
	if err != nil || !created {
		t.Fatalf("Ensure: %v, created %v", err, created)
	}
	again, created, err := d.Ensure(node)
	if err != nil || created || string(again.Blob) != string(k.Blob) {
		t.Fatalf("second Ensure: %v, created %v", err, created)
	}
	if loaded, err := d.Load(); err != nil || string(loaded.Blob) != string(k.Blob) {
		t.Fatalf("Load: %v", err)
	}
	checkMode(t, d.Path, 0o700)
	checkMode(t, d.PrivateFile(), 0o600)
	checkMode(t, filepath.Join(d.Path, publicName), 0o644)
	private := readFile(t, d.PrivateFile())
	if !strings.HasPrefix(private, "-----BEGIN OPENSSH PRIVATE KEY-----\n") {
		t.Errorf("the private key is not in OpenSSH's format")
	}
	if pub := readFile(t, filepath.Join(d.Path, publicName)); pub != keyText(k, node)+"\n" || !strings.Contains(pub, " rolekey:"+node.String()) {
		t.Errorf("id.pub is %q", pub)
	}
}

func TestG5DestroyRemovesEverythingOfOurs(t *testing.T) {
	d := KeyDir{Path: t.TempDir()}
	if _, _, err := d.Ensure(cluster.NewUUID()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{d.PrivateFile(), filepath.Join(d.Path, publicName)} {
		writeFile(t, atomicfile.TempName(path), "left behind")
	}
	writeFile(t, atomicfile.TempName(filepath.Join(d.Path, "id.older-release")), "left behind")
	if err := os.MkdirAll(filepath.Join(d.Path, "id.next", "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	other, copied := filepath.Join(d.Path, "id_admin"), filepath.Join(d.Path, "id.bak")
	writeFile(t, other, "mine")
	writeFile(t, copied, readFile(t, d.PrivateFile()))
	if found, err := d.Present(); err != nil || len(found) != 6 {
		t.Fatalf("Present: %v, %v", found, err)
	}
	removed, err := d.Destroy()
	if err != nil || len(removed) != 6 {
		t.Fatalf("Destroy: %v, %v", removed, err)
	}
	if found, err := d.Strays(); err != nil || !slices.Equal(found, []string{copied}) {
		t.Errorf("Strays: %v, %v", found, err)
	}
	if found, err := d.Present(); err != nil || len(found) != 0 {
		t.Fatalf("Present after Destroy: %v, %v", found, err)
	}
	if readFile(t, other) != "mine" {
		t.Error("a file of the administrator's is gone")
	}
}

func TestDestroyFollowsNoLink(t *testing.T) {
	base := t.TempDir()
	target := filepath.Join(base, "admin_key")
	writeFile(t, target, "mine")
	d := KeyDir{Path: filepath.Join(base, "ssh")}
	if err := os.Mkdir(d.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, d.PrivateFile()); err != nil {
		t.Fatal(err)
	}
	if removed, err := d.Destroy(); err != nil || len(removed) != 1 {
		t.Fatalf("Destroy: %v, %v", removed, err)
	}
	if readFile(t, target) != "mine" {
		t.Error("Destroy touched the target of the link")
	}
	link := KeyDir{Path: filepath.Join(base, "link")}
	if err := os.Symlink(base, link.Path); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(base, "id"), "mine")
	if _, err := link.Destroy(); err == nil {
		t.Error("Destroy followed a linked folder")
	}
	if _, _, err := link.Ensure(cluster.NewUUID()); err == nil {
		t.Error("Ensure followed a linked folder")
	}
	if readFile(t, filepath.Join(base, "id")) != "mine" {
		t.Error("a file behind the linked folder changed")
	}
}

func TestEnsureReplacesUnusable(t *testing.T) {
	d := KeyDir{Path: t.TempDir()}
	target := filepath.Join(t.TempDir(), "admin_key")
	writeFile(t, target, "mine")
	for name, spoil := range map[string]func() error{
		"garbage": func() error { return os.WriteFile(d.PrivateFile(), []byte("x"), 0o600) },
		"empty":   func() error { return os.WriteFile(d.PrivateFile(), nil, 0o600) },
		"link":    func() error { return os.Symlink(target, d.PrivateFile()) },
		"folder":  func() error { return os.MkdirAll(filepath.Join(d.PrivateFile(), "a", "b"), 0o700) },
		"folders": func() error {
			return errors.Join(os.MkdirAll(filepath.Join(d.PrivateFile(), "a"), 0o700),
				os.MkdirAll(filepath.Join(atomicfile.TempName(d.PrivateFile()), "a"), 0o700),
				os.RemoveAll(filepath.Join(d.Path, publicName)), os.MkdirAll(filepath.Join(filepath.Join(d.Path, publicName), "a"), 0o700))
		},
	} {
		if err := os.RemoveAll(d.PrivateFile()); err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, created, err := d.Ensure(cluster.NewUUID()); err != nil || !created {
			t.Errorf("%s: %v, created %v", name, err, created)
		}
		if _, err := d.Load(); err != nil {
			t.Errorf("%s: Load: %v", name, err)
		}
	}
	if readFile(t, target) != "mine" {
		t.Error("the target of the link changed")
	}
}

func TestEnsureRepairs(t *testing.T) {
	d := KeyDir{Path: t.TempDir()}
	node := cluster.NewUUID()
	k, _, err := d.Ensure(node)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(d.PrivateFile(), 0o644), os.Chmod(d.Path, 0o777), os.Remove(filepath.Join(d.Path, publicName))); err != nil {
		t.Fatal(err)
	}
	again, created, err := d.Ensure(node)
	if err != nil || created || string(again.Blob) != string(k.Blob) {
		t.Fatalf("Ensure: %v, created %v", err, created)
	}
	checkMode(t, d.PrivateFile(), 0o600)
	checkMode(t, d.Path, 0o700)
	checkMode(t, filepath.Join(d.Path, publicName), 0o644)
}

func checkMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s has mode %04o, want %04o", path, got, want)
	}
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzParsers(f *testing.F) {
	f.Add([]byte(keyText(fixedKey(1), nodeA)))
	f.Add([]byte(lineA))
	f.Add([]byte("a.example,[192.0.2.1]:22 " + keyText(fixedKey(1), nodeA)))
	f.Add([]byte("OpenSSH_9.2p1\nauthorizedkeysfile %h/%%x none\nport 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParsePublicLine(b); err == nil {
			line := []byte(keyText(k, nodeA))
			if again, err := ParsePublicLine(line); err != nil || string(again.Blob) != string(k.Blob) {
				t.Fatalf("a key does not survive its own text: %v", err)
			}
			if key, ok := parseOwn(string(line), authorizedKeys); !ok || key != string(k.Blob) {
				t.Fatalf("a line of ours is not recognised: %q", line)
			}
		}
		if v, err := ParseVersion(b); err == nil && v.String() == "" {
			t.Fatal("a version without text")
		}
		if path, err := Path(string(b), Account{Name: "root", Home: "/root"}); err == nil && !filepath.IsAbs(path) {
			t.Fatalf("relative path %q", path)
		}
	})
}
