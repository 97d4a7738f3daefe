package sshkeys

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/cluster"
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
	d := KeyDir{filepath.Join(t.TempDir(), "ssh")}
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
	d := KeyDir{filepath.Join(t.TempDir(), "ssh")}
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
	d := KeyDir{filepath.Join(t.TempDir(), "ssh")}
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
			if key, err := ParsePublicLine(line); err != nil || !sameKey(key, c.keys[j]) || filepath.Base(path) != c.want[j] {
				t.Errorf("step %d: key %d is at %s, want %s: %v", i, j, path, c.want[j], err)
			}
		}
		if found, _ := d.Present(); len(found) != len(c.keys) {
			t.Errorf("step %d: left: %q", i, found)
		}
	}
}

// TestKeySetCrash: after a crash between the rename and what follows, the next
// call ends it.
func TestKeySetCrash(t *testing.T) {
	d := KeyDir{filepath.Join(t.TempDir(), "ssh")}
	a, _ := made(t, "ed25519", 0)
	b, keyB := made(t, "ed25519", 0)
	for _, text := range []cluster.Secret{a, b} {
		if err := d.Add(text, cluster.NodeID{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(filepath.Join(d.Path, nextName), d.PrivateFile()); err != nil {
		t.Fatal(err)
	}
	if err := d.Add(b, cluster.NodeID{1}); err != nil {
		t.Fatal(err)
	}
	list, err := d.Held()
	if err != nil || len(list) != 1 || !sameKey(list[0].Key, keyB) {
		t.Errorf("%d keys: %v", len(list), err)
	}
}

// TestSealedKey: only who made the recipient key opens it, and only for what it
// was sealed for.
func TestSealedKey(t *testing.T) {
	text, key := made(t, "ed25519", 0)
	_, other := made(t, "ed25519", 0)
	r, err := NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	c := SealContext{Cluster: cluster.UUID{1}, Node: cluster.NodeID{2}, Incarnation: 3, Key: key}
	sealed, err := Seal(text, r.Public(), c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Open(sealed, c)
	if err != nil || !bytes.Equal(got.Reveal(), text.Reveal()) {
		t.Fatalf("open: %v", err)
	}
	wrong := map[string]SealContext{
		"cluster": {cluster.UUID{9}, c.Node, c.Incarnation, key}, "node": {c.Cluster, cluster.NodeID{9}, c.Incarnation, key},
		"incarnation": {c.Cluster, c.Node, 4, key}, "key": {c.Cluster, c.Node, c.Incarnation, other},
	}
	for what, c := range wrong {
		if _, err := r.Open(sealed, c); err == nil {
			t.Errorf("it opens for another %s", what)
		}
	}
	again, err := NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Open(sealed, c); err == nil {
		t.Error("another run opens it")
	}
	if _, err := r.Open(append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1), c); err == nil || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("a changed one opens: %v", err)
	}
	swapped, err := Seal(text, r.Public(), wrong["key"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(swapped, wrong["key"]); err == nil {
		t.Error("a private half of another key is taken")
	}
	if _, err := Seal(text, []byte("short"), c); err == nil {
		t.Error("a recipient that is none")
	}
}

// TestSealInfo is the vector of docs/ssh.rst.
func TestSealInfo(t *testing.T) {
	c := SealContext{Cluster: cluster.UUID{0xaa}, Node: cluster.NodeID{0xbb}, Incarnation: 7, Key: cluster.SSHKey{Type: "ssh-ed25519", Blob: []byte("blob")}}
	const want = "00000019" + "726f6c656b65792073686172656420737368206b6579207631" +
		"00000010aa000000000000000000000000000000" + "00000010bb000000000000000000000000000000" + "000000080000000000000007" +
		"00000020fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8"
	if text := hex.EncodeToString(c.info()); text != want {
		t.Errorf("info: %s", text)
	}
}
