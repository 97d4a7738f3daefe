package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

func TestWriteReplaces(t *testing.T) {
	for _, opts := range []Options{Durable(0o640), Derived(0o604), {UID: os.Getuid(), GID: os.Getgid(), Sync: true}} {
		path := filepath.Join(t.TempDir(), "f")
		for _, want := range []string{"first", "a longer second", ""} {
			if err := Write(path, []byte(want), opts); err != nil {
				t.Fatal(err)
			}
			checkFile(t, path, want, opts.mode())
		}
		checkNames(t, filepath.Dir(path), "f")
	}
}

func TestModeIgnoresUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "f")
	if err := Write(path, nil, Derived(0o666)); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path, "", 0o666)
}

func TestOldReaderKeepsOldContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	mustWrite(t, path, "old")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mustWrite(t, path, "new")
	got := make([]byte, 8)
	n, _ := f.Read(got)
	if string(got[:n]) != "old" {
		t.Errorf("a reader of the old file sees %q", got[:n])
	}
}

func TestLeftoverIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(TempName(path), []byte("half of an earlier"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, path, "whole")
	checkFile(t, path, "whole", 0o600)
	checkNames(t, dir, "f")
}

// A link planted at the temporary name must neither be followed nor survive.
func TestSymlinkAtTempName(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "f"), filepath.Join(dir, "victim")
	mustWrite(t, victim, "precious")
	if err := os.Symlink(victim, TempName(path)); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, path, "data")
	checkFile(t, victim, "precious", 0o600)
	checkFile(t, path, "data", 0o600)
	checkNames(t, dir, "f", "victim")
}

// fill itself must refuse a link that appears after the leftover was removed.
func TestFillRefusesExisting(t *testing.T) {
	dir := t.TempDir()
	temp, victim := filepath.Join(dir, "temp"), filepath.Join(dir, "victim")
	if err := os.Symlink(victim, temp); err != nil {
		t.Fatal(err)
	}
	if err := fill(temp, []byte("x"), Durable(0o600)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("fill through a link: %v, want %v", err, fs.ErrExist)
	}
	if _, err := os.Lstat(victim); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link was followed: %v", err)
	}
}

func TestSymlinkAtTargetIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "f"), filepath.Join(dir, "victim")
	mustWrite(t, victim, "precious")
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, path, "data")
	checkFile(t, victim, "precious", 0o600)
	checkFile(t, path, "data", 0o600)
}

func TestFailedRenameLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), Durable(0o600)); err == nil {
		t.Fatal("a file replaced a folder")
	}
	checkNames(t, dir, "f")
}

func TestMissingFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "f")
	if err := Write(path, nil, Durable(0o600)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write: %v, want %v", err, fs.ErrNotExist)
	}
	if err := Remove(path); err != nil {
		t.Errorf("Remove: %v", err)
	}
	if err := RemoveTemp(filepath.Dir(path)); err != nil {
		t.Errorf("RemoveTemp: %v", err)
	}
	if err := SyncDir(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("SyncDir: %v, want %v", err, fs.ErrNotExist)
	}
}

// TestShortWriteKeepsOld makes the disk "full" with a file size limit, which
// needs its own process: the limit is per process and cannot be local.
func TestShortWriteKeepsOld(t *testing.T) {
	if dir := os.Getenv("ATOMICFILE_CHILD"); dir != "" {
		shortWriteChild(t, dir)
		return
	}
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "f"), "old")
	cmd := exec.Command(os.Args[0], "-test.run=^TestShortWriteKeepsOld$", "-test.v")
	cmd.Env = append(os.Environ(), "ATOMICFILE_CHILD="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestShortWriteKeepsOld")) {
		t.Fatalf("child: %v\n%s", err, out)
	}
	checkFile(t, filepath.Join(dir, "f"), "old", 0o600)
	checkNames(t, dir, "f")
}

func shortWriteChild(t *testing.T, dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 4096, Max: 4096}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	err := Write(filepath.Join(dir, "f"), make([]byte, 10000), Durable(0o600))
	if !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("Write: %v, want %v", err, syscall.EFBIG)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	mustWrite(t, path, "x")
	for range 2 {
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
		checkNames(t, dir)
	}
	if err := os.MkdirAll(filepath.Join(path, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path); err == nil {
		t.Error("Remove of a folder that is not empty succeeded")
	}
}

func TestRemoveTempTouchesOnlyItsOwn(t *testing.T) {
	dir := t.TempDir()
	keep := []string{"a.rolekey-tmp", ".rolekey-tmp", ".b", "c"}
	for _, name := range append([]string{".a.rolekey-tmp", ".x.y.rolekey-tmp"}, keep...) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".d.rolekey-tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTemp(dir); err != nil {
		t.Fatal(err)
	}
	checkNames(t, dir, ".b", ".d.rolekey-tmp", ".rolekey-tmp", "a.rolekey-tmp", "c")
}

func TestConcurrentTargets(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d"} {
		wg.Go(func() {
			for range 20 {
				if err := Write(filepath.Join(dir, name), []byte(name), Derived(0o600)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	checkNames(t, dir, "a", "b", "c", "d")
}

func mustWrite(t *testing.T, path, data string) {
	t.Helper()
	if err := Write(path, []byte(data), Durable(0o600)); err != nil {
		t.Fatal(err)
	}
}

func checkFile(t *testing.T, path, want string, mode os.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want || fi.Mode() != mode {
		t.Errorf("%s: %q with mode %v, want %q with %v", path, got, fi.Mode(), want, mode)
	}
}

func checkNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(want) {
		t.Fatalf("%s holds %q, want %q", dir, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s holds %q, want %q", dir, got, want)
		}
	}
}
