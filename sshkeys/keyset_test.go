package sshkeys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

func made(t *testing.T, kind string, bits int) (cluster.Secret, cluster.SSHKey) {
	t.Helper()
	spec, err := cluster.ParseSSHKeySpec(kind, bits)
	if err != nil {
		t.Fatal(err)
	}
	text, key, err := Generate(spec, "test")
	if err != nil {
		t.Fatal(err)
	}
	if !IsOf(key, spec) {
		t.Fatalf("%s: another kind was made", spec)
	}
	return text, key
}

// TestKeySet: a second key stands beside the first, and takes its name when
// that goes.
func TestKeySet(t *testing.T) {
	d := KeyDir{Path: filepath.Join(t.TempDir(), "ssh")}
	node := cluster.NodeID{1}
	a, keyA := made(t, "ed25519", 0)
	b, keyB := made(t, "ecdsa", 384)
	for _, text := range []cluster.Secret{a, a, b} {
		if err := d.Add(text, node); err != nil {
			t.Fatal(err)
		}
	}
	held := func(want ...cluster.SSHKey) {
		t.Helper()
		list, err := d.Held()
		if err != nil || len(list) != len(want) {
			t.Fatalf("%d keys, want %d: %v", len(list), len(want), err)
		}
		for i, h := range list {
			if !sameKey(h.Key, want[i]) || h.Changed.IsZero() {
				t.Errorf("key %d is another", i)
			}
		}
	}
	held(keyA, keyB)
	if removed, remains := d.Keep([]cluster.SSHKey{keyA, keyB}, node); len(removed)+len(remains) > 0 {
		t.Errorf("nothing was to go: %q %v", removed, remains)
	}
	if removed, remains := d.Keep([]cluster.SSHKey{keyB}, node); len(removed) != 1 || len(remains) > 0 {
		t.Errorf("the first was to go: %q %v", removed, remains)
	}
	held(keyB)
	if found, _ := d.Present(); len(found) != 4 { // under both names: a login may be under way
		t.Errorf("left: %q", found)
	}
	if text, err := os.ReadFile(d.PrivateFile()); err != nil || !bytes.Equal(text, b.Reveal()) {
		t.Errorf("id is not the second key: %v", err)
	}
	if err := d.Add(a, node); err != nil {
		t.Fatal(err)
	}
	held(keyB, keyA)
	if _, remains := d.Keep([]cluster.SSHKey{keyB}, node); len(remains) > 0 {
		t.Error(remains)
	}
	held(keyB)
	if _, remains := d.Keep(nil, node); len(remains) > 0 {
		t.Error(remains)
	}
	held()
	if found, _ := d.Present(); len(found) != 0 {
		t.Errorf("left: %q", found)
	}
}

// TestKeysTakeTurns: a login that began while there were two keys finds the newer
// one where it was, also while the one after that is there. Nothing else stays.
func TestKeysTakeTurns(t *testing.T) {
	d := KeyDir{Path: filepath.Join(t.TempDir(), "ssh")}
	node := cluster.NodeID{1}
	first, _ := made(t, "ed25519", 0)
	if err := d.Add(first, node); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{nextName, otherName, nextName, otherName} {
		text, key := made(t, "ed25519", 0)
		before, _ := d.Held()
		if err := d.Add(text, node); err != nil {
			t.Fatal(err)
		}
		list, err := d.Held()
		if err != nil || len(list) != 2 || filepath.Base(list[1].Path) != want || !sameKey(list[1].Key, key) {
			t.Fatalf("round %d: %d keys, %v", i, len(list), err)
		}
		if i > 0 && !d.holds(map[string]string{nextName: otherName, otherName: nextName}[want], before[0].Key) {
			t.Errorf("round %d: the key before is not where a login under way looks for it", i)
		}
		if _, remains := d.Keep([]cluster.SSHKey{key}, node); len(remains) > 0 {
			t.Fatal(remains)
		}
		if found, _ := d.Present(); len(found) != 4 || !d.holds(privateName, key) || !d.holds(want, key) {
			t.Errorf("round %d: left: %q", i, found)
		}
	}
	if _, remains := d.Keep(nil, node); len(remains) > 0 {
		t.Fatal(remains)
	}
	if found, _ := d.Present(); len(found) != 0 {
		t.Errorf("left: %q", found)
	}
}

// TestPublishKeepsNames: a login that read in ssh's configuration where a key is
// finds that key there, also when another has come or gone meanwhile.
func TestPublishKeepsNames(t *testing.T) {
	d := KeyDir{Path: filepath.Join(t.TempDir(), "ssh")}
	var keys []cluster.SSHKey
	for range 3 {
		_, key := made(t, "ed25519", 0)
		keys = append(keys, key)
	}
	for i, c := range []struct {
		keys []cluster.SSHKey
		want []string
	}{
		{keys[:1], []string{agentPublic}},
		{[]cluster.SSHKey{keys[1], keys[0]}, []string{agentNext, agentPublic}}, // the newest first
		{keys[1:2], []string{agentNext}},
		{[]cluster.SSHKey{keys[2], keys[1]}, []string{agentPublic, agentNext}},
		{keys[2:], []string{agentPublic}},
		{[]cluster.SSHKey{keys[0], keys[1]}, []string{agentPublic, agentNext}},
		{nil, nil},
	} {
		paths, err := d.Publish(c.keys, cluster.NodeID{1})
		if err != nil || len(paths) != len(c.want) {
			t.Fatalf("step %d: %q, %v", i, paths, err)
		}
		for j, path := range paths {
			line, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			checkMode(t, path, 0o600)
			if key, err := ParsePublicLine(line); err != nil || !sameKey(key, c.keys[j]) || filepath.Base(path) != c.want[j] {
				t.Errorf("step %d: key %d is at %s, want %s: %v", i, j, path, c.want[j], err)
			}
		}
		if found, _ := d.Present(); len(found) != len(c.keys) {
			t.Errorf("step %d: left: %q", i, found)
		}
	}
}

var errCrash = errors.New("crash")

// crashAt fails before step n, and before all that follow.
func crashAt(n int) (step func(string) error, reached func() bool) {
	i := 0
	step = func(string) error {
		if i++; i > n {
			return errCrash
		}
		return nil
	}
	return step, func() bool { return i > n }
}

// checkPublics wants beside each private half its own public half, or, where a
// crash may just have been, none.
func checkPublics(t *testing.T, d KeyDir, when string, complete bool) {
	t.Helper()
	for _, name := range []string{privateName, nextName, otherName} {
		signer, err := d.signerOf(name)
		text, pubErr := os.ReadFile(filepath.Join(d.Path, name+".pub"))
		switch {
		case err != nil && pubErr != nil:
		case err == nil && pubErr == nil && string(text) != keyText(KeyOf(signer.PublicKey()), nodeA)+"\n":
			t.Errorf("%s: %s.pub does not fit %s", when, name, name)
		case complete && (err == nil) != (pubErr == nil):
			t.Errorf("%s: of %s there is one half", when, name)
		}
	}
}

// TestG7KeySetCrash ends a whole change of keys at every step, and goes on with a
// new start. There is a key at every moment, and at no moment a public half that
// ssh could not prove.
func TestG7KeySetCrash(t *testing.T) {
	a, keyA := made(t, "ed25519", 0)
	b, keyB := made(t, "ed25519", 0)
	for n, over := 0, false; !over; n++ {
		when := fmt.Sprintf("crash before step %d", n)
		d := KeyDir{Path: filepath.Join(t.TempDir(), "ssh")}
		if err := d.Add(a, nodeA); err != nil {
			t.Fatal(err)
		}
		step, reached := crashAt(n)
		d.Step = step
		err := d.Add(b, nodeA)
		if err == nil {
			_, remains := d.Keep([]cluster.SSHKey{keyB}, nodeA)
			err = errors.Join(remains...)
		}
		if over = !reached(); over != (err == nil) || n > 20 {
			t.Fatalf("%s: %v", when, err)
		}
		checkPublics(t, d, when, false)
		d.Step = nil
		if err := d.Tidy(nodeA); err != nil {
			t.Fatal(err)
		}
		checkPublics(t, d, when, true)
		list, err := d.Held()
		if err != nil || len(list) == 0 || !sameKey(list[0].Key, keyA) && !sameKey(list[0].Key, keyB) {
			t.Fatalf("%s: %d keys: %v", when, len(list), err)
		}
		finish(t, d, b, keyB, when)
	}
}

// finish goes on with what was interrupted.
func finish(t *testing.T, d KeyDir, text cluster.Secret, key cluster.SSHKey, when string) {
	t.Helper()
	if err := d.Add(text, nodeA); err != nil {
		t.Fatal(err)
	}
	if _, remains := d.Keep([]cluster.SSHKey{key}, nodeA); len(remains) > 0 {
		t.Fatal(remains)
	}
	if err := d.Tidy(nodeA); err != nil {
		t.Fatal(err)
	}
	list, err := d.Held()
	if err != nil || len(list) != 1 || !sameKey(list[0].Key, key) || list[0].Path != d.PrivateFile() {
		t.Errorf("%s: the new key is not alone: %v", when, err)
	}
	checkPublics(t, d, when, true)
	if found, err := d.Present(); err != nil || len(found) != 2 && len(found) != 4 {
		t.Errorf("%s: left: %q, %v", when, found, err)
	}
}

// TestPromotedKeyHasTwoNames: a ssh that is just logging in has read id.next.pub.
func TestPromotedKeyHasTwoNames(t *testing.T) {
	d := KeyDir{Path: filepath.Join(t.TempDir(), "ssh")}
	a, _ := made(t, "ed25519", 0)
	b, keyB := made(t, "ed25519", 0)
	if err := errors.Join(d.Add(a, nodeA), d.Add(b, nodeA)); err != nil {
		t.Fatal(err)
	}
	if _, remains := d.Keep([]cluster.SSHKey{keyB}, nodeA); len(remains) > 0 {
		t.Fatal(remains)
	}
	if err := d.Tidy(nodeA); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{d.PrivateFile(), d.PrivateFile() + ".next"} {
		if signer, err := d.signerOf(filepath.Base(path)); err != nil || !sameKey(KeyOf(signer.PublicKey()), keyB) {
			t.Errorf("%s: %v", path, err)
		}
	}
	checkPublics(t, d, "with two names", true)
	if list, err := d.Held(); err != nil || len(list) != 1 || list[0].Path != d.PrivateFile() {
		t.Errorf("%d keys: %v", len(list), err)
	}
	if _, remains := d.Keep(nil, nodeA); len(remains) > 0 {
		t.Error(remains)
	}
	if found, err := d.Present(); err != nil || len(found) > 0 {
		t.Errorf("left: %q, %v", found, err)
	}
}

func TestTidy(t *testing.T) {
	d := KeyDir{Path: filepath.Join(t.TempDir(), "ssh")}
	a, keyA := made(t, "ed25519", 0)
	_, other := made(t, "ed25519", 0)
	next, public := d.PrivateFile()+".next", d.PrivateFile()+".pub"
	for name, spoil := range map[string]func() error{
		"a lone next":      func() error { return os.Rename(d.PrivateFile(), next) },
		"public of others": func() error { return os.WriteFile(public, []byte(keyText(other, nodeA)), 0o644) },
		"public of nobody": func() error { return os.WriteFile(next+".pub", []byte("x"), 0o644) },
		"no public":        func() error { return os.Remove(public) },
		"garbage as id": func() error {
			return errors.Join(os.Rename(d.PrivateFile(), next), os.WriteFile(d.PrivateFile(), []byte("x"), 0o600))
		},
		"a folder as id": func() error {
			return errors.Join(os.Rename(d.PrivateFile(), next), os.Mkdir(d.PrivateFile(), 0o700))
		},
		"a leftover": func() error { return os.Link(d.PrivateFile(), atomicfile.TempName(d.PrivateFile())) },
	} {
		if _, remains := d.Destroy(); len(remains) > 0 {
			t.Fatal(remains)
		}
		if err := errors.Join(d.Add(a, nodeA), spoil(), d.Tidy(nodeA), d.Tidy(nodeA)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if list, err := d.Held(); err != nil || len(list) != 1 || !sameKey(list[0].Key, keyA) || list[0].Path != d.PrivateFile() {
			t.Errorf("%s: %d keys: %v", name, len(list), err)
		}
		if found, err := d.Present(); err != nil || len(found) != 2 && len(found) != 4 {
			t.Errorf("%s: left: %q, %v", name, found, err)
		}
		checkPublics(t, d, name, true)
	}
	if err := (KeyDir{Path: filepath.Join(t.TempDir(), "none")}).Tidy(nodeA); err != nil {
		t.Errorf("no folder: %v", err)
	}
}

// TestGenerate lets ssh-keygen read keys of every kind.
func TestGenerate(t *testing.T) {
	keygen, lookErr := exec.LookPath("ssh-keygen")
	for _, s := range []string{"ed25519 0", "ecdsa 256", "ecdsa 384", "ecdsa 521", "rsa 3072", "rsa 4096"} {
		t.Run(s, func(t *testing.T) {
			t.Parallel()
			var kind string
			var bits int
			if _, err := fmt.Sscan(s, &kind, &bits); err != nil {
				t.Fatal(err)
			}
			text, key := made(t, kind, bits)
			if lookErr != nil {
				t.Skip("SKIP: no ssh-keygen program")
			}
			d := KeyDir{Path: t.TempDir()}
			if err := d.Add(text, nodeA); err != nil {
				t.Fatal(err)
			}
			for flag, want := range map[string]string{"-l": Fingerprint(key), "-y": keyText(key, nodeA)[:len(key.Type)+40]} {
				if out, err := exec.CommandContext(t.Context(), keygen, flag, "-f", d.PrivateFile()).CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
					t.Errorf("ssh-keygen %s: %v: %s", flag, err, out)
				}
			}
		})
	}
	for _, spec := range []cluster.SSHKeySpec{{}, {Type: "dsa"}, {Type: "rsa", Bits: 2048}, {Type: "rsa"}, {Type: "ecdsa", Bits: 255}, {Type: "ed25519", Bits: 256}, {Type: "rsa", Bits: 16384}} {
		if _, _, err := Generate(spec, "x"); err == nil {
			t.Errorf("%+v: made", spec)
		}
	}
}
