package seal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newRing(t *testing.T) (*Keyring, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyring")
	k, err := Create(path, ours)
	if err != nil {
		t.Fatal(err)
	}
	return k, path
}

func TestCreateThenOpen(t *testing.T) {
	k, path := newRing(t)
	record := k.Seal("p", 1, []byte("x"))
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	before := readFile(t, path)
	for name, reopen := range map[string]func() (*Keyring, error){
		"Open":   func() (*Keyring, error) { return Open(path, ours) },
		"Ensure": func() (*Keyring, error) { return Ensure(path, ours, path) },
	} {
		again, err := reopen()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := again.Open("p", 1, record); err != nil || string(got) != "x" {
			t.Fatalf("%s: got %q, %v", name, got, err)
		}
	}
	if !bytes.Equal(before, readFile(t, path)) {
		t.Fatal("a second start changed the keyring")
	}
}

func TestOpenRemovesLeftover(t *testing.T) {
	_, path := newRing(t)
	temp := atomicfile.TempName(path)
	writeFile(t, temp, readFile(t, path))
	if _, err := Open(path, ours); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(temp); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("keys lie on under the temporary name: %v", err)
	}
}

func TestCreateNeverReplaces(t *testing.T) {
	dir := t.TempDir()
	for name, prepare := range map[string]func(path string) error{
		"garbage": func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) },
		"empty":   func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"folder":  func(p string) error { return os.Mkdir(p, 0o700) },
		"symlink": func(p string) error { return os.Symlink("nowhere", p) },
	} {
		path := filepath.Join(dir, name)
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(path, ours); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: Create: got %v", name, err)
		}
		if _, err := Ensure(path, ours); err == nil {
			t.Errorf("%s: Ensure made a keyring", name)
		}
	}
}

func TestCreateRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	rings := make([]*Keyring, 8)
	var wg sync.WaitGroup
	for i := range rings {
		wg.Go(func() {
			k, err := Ensure(path, ours)
			if err != nil {
				t.Error(err)
				return
			}
			rings[i] = k
		})
	}
	wg.Wait()
	for _, k := range rings {
		if k == nil || k.Keys()[0] != rings[0].Keys()[0] {
			t.Fatal("two starts at once hold different keys")
		}
	}
}

func TestEnsureRefusesToOrphan(t *testing.T) {
	dir := t.TempDir()
	path, db, snaps := filepath.Join(dir, "keyring"), filepath.Join(dir, "raft.db"), filepath.Join(dir, "snapshots")
	if err := os.Mkdir(snaps, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{db, filepath.Join(snaps, "1-2-3.snap")} {
		writeFile(t, data, nil)
		_, err := Ensure(path, ours, db, snaps)
		if !errors.Is(err, ErrKeyringMissing) || !strings.Contains(err.Error(), filepath.Dir(data)) {
			t.Errorf("with %s: got %v", data, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("with %s: a keyring is there: %v", data, err)
		}
		if err := os.Remove(data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Ensure(path, ours, db, snaps); err != nil {
		t.Fatalf("an empty folder holds nothing sealed: %v", err)
	}
}

func TestOpenMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	if _, err := Open(path, ours); !errors.Is(err, ErrKeyringMissing) {
		t.Fatalf("got %v", err)
	}
}

// TestOpenDamaged flips every bit and cuts at every length: nothing but the
// whole file opens, and no error shows a key.
func TestOpenDamaged(t *testing.T) {
	k, path := newRing(t)
	good := readFile(t, path)
	secret := fmt.Sprintf("%x", k.keys.Load().active.secret.Reveal())
	check := func(what string, b []byte) {
		t.Helper()
		_, _, err := parseKeyring(b)
		if !errors.Is(err, ErrKeyringDamaged) && !errors.Is(err, ErrUnknownFormat) {
			t.Fatalf("%s: got %v", what, err)
		}
		if strings.Contains(err.Error(), secret[:17]) {
			t.Fatalf("%s: the error shows the key: %v", what, err)
		}
	}
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		check(fmt.Sprintf("bit %d", bit), bad)
	}
	for n := range len(good) {
		check(fmt.Sprintf("%d bytes", n), good[:n])
	}
	check("one more byte", append(bytes.Clone(good), '\n'))
	writeFile(t, path, good[:len(good)-1])
	if _, err := Open(path, ours); !errors.Is(err, ErrKeyringDamaged) {
		t.Fatalf("Open: got %v", err)
	}
	if _, err := Ensure(path, ours); !errors.Is(err, ErrKeyringDamaged) {
		t.Fatalf("Ensure: got %v", err)
	}
}

// TestParseKeyringStrict gives wrong content a right sum.
func TestParseKeyringStrict(t *testing.T) {
	good := string(encodeKeyring(ours, ringOf(ours, 1, 2).keys.Load().all))
	body := good[:len(good)-sumLine]
	lines := strings.SplitAfter(body, "\n")
	active, retiring := lines[5], lines[6]
	tests := []struct {
		name, body string
		want       error
	}{
		{"good", body, nil},
		{"newer format", strings.Replace(body, "keyring 1", "keyring 2", 1), ErrUnknownFormat},
		{"locked", strings.Replace(body, "kek none", "kek 0123456789abcdef", 1), ErrUnknownFormat},
		{"pending key", strings.Replace(body, " retiring ", " pending ", 1), ErrUnknownFormat},
		{"no key", strings.Join(lines[:5], ""), ErrKeyringDamaged},
		{"none active", strings.Replace(body, " active ", " retiring ", 1), ErrKeyringDamaged},
		{"two active", strings.Replace(body, " retiring ", " active ", 1), ErrKeyringDamaged},
		{"key twice", body + retiring, ErrKeyringDamaged},
		{"wrong id", strings.Replace(body, active[:20], retiring[:20], 1), ErrKeyringDamaged},
		{"short key", strings.Replace(body, active, active[:len(active)-3]+"\n", 1), ErrKeyringDamaged},
		{"upper case", strings.Replace(body, uuidA.String(), strings.ToUpper(uuidA.String()), 1), ErrKeyringDamaged},
		{"zero cluster", strings.Replace(body, uuidA.String(), cluster.UUID{}.String(), 1), ErrKeyringDamaged},
		{"leading zero", strings.Replace(body, "incarnation 1", "incarnation 01", 1), ErrKeyringDamaged},
		{"line too many", body + "note hello\n", ErrKeyringDamaged},
		{"carriage return", strings.Replace(body, "kek none\n", "kek none\r\n", 1), ErrUnknownFormat},
		{"too many keys", body + manyKeys(16), ErrKeyringDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := fmt.Sprintf("%ssum %x\n", tt.body, sha256.Sum256([]byte(tt.body)))
			if _, _, err := parseKeyring([]byte(text)); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func manyKeys(n byte) string {
	var b strings.Builder
	for i := range n {
		k := ringOf(ours, 100+i).keys.Load().active
		fmt.Fprintf(&b, "key %s retiring %x\n", k.ID, k.secret.Reveal())
	}
	return b.String()
}

func TestOpenForeign(t *testing.T) {
	_, path := newRing(t)
	for _, ctx := range []Context{{uuidC, uuidB, 1}, {uuidA, uuidC, 1}, {uuidA, uuidB, 2}} {
		if _, err := Open(path, ctx); !errors.Is(err, ErrKeyringForeign) {
			t.Errorf("%v: got %v", ctx, err)
		}
	}
	if _, err := Open(path, Context{}); err == nil {
		t.Error("no context: want an error")
	}
}

func TestOpenUnsafeFile(t *testing.T) {
	_, path := newRing(t)
	link := path + "-link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link, ours); err == nil {
		t.Error("symbolic link: want an error")
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, ours); err == nil || !strings.Contains(err.Error(), "chmod 0600") {
		t.Errorf("readable by the group: got %v", err)
	}
	big := path + "-big"
	writeFile(t, big, make([]byte, maxKeyringFile+1))
	if _, err := Open(big, ours); !errors.Is(err, ErrTooLarge) || !errors.Is(err, ErrKeyringDamaged) {
		t.Errorf("too large: got %v", err)
	}
}

func TestRotate(t *testing.T) {
	k, path := newRing(t)
	first := k.Keys()[0].ID
	old := k.Seal("p", 1, []byte("x"))
	id, err := k.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(path, ours)
	if err != nil {
		t.Fatal(err)
	}
	want := []KeyInfo{{id, Active}, {first, Retiring}}
	if got := again.Keys(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Fatalf("got keys %v, want %v", got, want)
	}
	for _, record := range [][]byte{old, k.Seal("p", 1, []byte("x"))} {
		if got, err := again.Open("p", 1, record); err != nil || string(got) != "x" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

// TestRotateUnwritten: a key that could not be written seals nothing.
func TestRotateUnwritten(t *testing.T) {
	k, path := newRing(t)
	before := k.Keys()[0]
	temp := atomicfile.TempName(path)
	if err := os.MkdirAll(filepath.Join(temp, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Rotate(); err == nil {
		t.Fatal("want an error")
	}
	if got := k.Keys(); len(got) != 1 || got[0] != before {
		t.Fatalf("keys changed: %v", got)
	}
}

func TestRotateIsBounded(t *testing.T) {
	k, path := newRing(t)
	for range maxKeys - 1 {
		if _, err := k.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Rotate(); err == nil {
		t.Fatal("a keyring that would not open again was written")
	}
	if again, err := Open(path, ours); err != nil || len(again.Keys()) != maxKeys {
		t.Fatalf("got %v", err)
	}
}

func TestSealFile(t *testing.T) {
	k, path := newRing(t)
	file := path + ".key"
	if _, err := k.OpenFile(file, "signing-key"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing: got %v", err)
	}
	for _, text := range []string{"first", "second, which is longer"} {
		if err := k.SealFile(file, "signing-key", cluster.NewSecret([]byte(text))); err != nil {
			t.Fatal(err)
		}
		got, err := k.OpenFile(file, "signing-key")
		if err != nil || string(got.Reveal()) != text {
			t.Fatalf("got %q, %v", got.Reveal(), err)
		}
	}
	if bytes.Contains(readFile(t, file), []byte("second")) {
		t.Fatal("the file shows the secret")
	}
	if _, err := k.OpenFile(file, "candidate-key"); !errors.Is(err, ErrTampered) {
		t.Errorf("other purpose: got %v", err)
	}
	if _, err := k.Open("signing-key", 0, readFile(t, file)); !errors.Is(err, ErrTampered) {
		t.Errorf("as a record: got %v", err)
	}
	if err := k.SealFile(file, "p", cluster.NewSecret(make([]byte, maxFile+1))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: got %v", err)
	}
	writeFile(t, file, readFile(t, file)[:20])
	if _, err := k.OpenFile(file, "signing-key"); !errors.Is(err, ErrTruncated) {
		t.Errorf("cut: got %v", err)
	}
}

func FuzzParseKeyring(f *testing.F) {
	f.Add(encodeKeyring(ours, ringOf(ours, 1, 2).keys.Load().all))
	f.Add([]byte("rolekey keyring 1\nkek none\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		// With a right sum in place, so that the fuzzer gets past it.
		sum := fmt.Appendf(nil, "sum %x\n", sha256.Sum256(text))
		for _, b := range [][]byte{text, append(text[:len(text):len(text)], sum...)} {
			ctx, set, err := parseKeyring(b)
			if err == nil && !bytes.Equal(encodeKeyring(ctx, set.all), b) {
				t.Fatalf("accepted what it would not write: %q", b)
			}
		}
	})
}
