package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestG5Erase: whatever lies in the place of a key goes, and what a link
// points to stays.
func TestG5Erase(t *testing.T) {
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	put(t, precious)
	for kind, plant := range map[string]func(path string) error{
		"file":           func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) },
		"file of no one": func(p string) error { return os.WriteFile(p, nil, 0) },
		"link":           func(p string) error { return os.Symlink(precious, p) },
		"link to folder": func(p string) error { return os.Symlink(outside, p) },
		"link to itself": func(p string) error { return os.Symlink(p, p) },
		"dangling link":  func(p string) error { return os.Symlink("nothing", p) },
		"hard link":      func(p string) error { return os.Link(precious, p) },
		"pipe":           func(p string) error { return unix.Mkfifo(p, 0o600) },
		"empty folder":   func(p string) error { return os.Mkdir(p, 0o700) },
		"full folder": func(p string) error {
			return errors.Join(os.MkdirAll(filepath.Join(p, "a", "b"), 0o700), os.Symlink(outside, filepath.Join(p, "a", "out")),
				os.WriteFile(filepath.Join(p, "a", "b", "c"), nil, 0o400))
		},
	} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			other := filepath.Join(dir, "other")
			put(t, other)
			names := []string{"id", "id.pub", "none"}
			left := filepath.Base(TempName("id.next"))
			for _, name := range []string{"id", "id.pub", left} {
				if err := plant(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			removed, remains := Erase(dir, names...)
			want := []string{filepath.Join(dir, "id"), filepath.Join(dir, "id.pub"), filepath.Join(dir, left)}
			if !slices.Equal(removed, want) || len(remains) > 0 {
				t.Errorf("removed %q, remains %v", removed, remains)
			}
			for _, p := range []string{precious, other} {
				if text, err := os.ReadFile(p); err != nil || string(text) != "x" {
					t.Errorf("%s: %q, %v", p, text, err)
				}
			}
			if again, remains := Erase(dir, names...); len(again)+len(remains) > 0 {
				t.Errorf("again: %q, %v", again, remains)
			}
		})
	}
}

func TestEraseFollowsNoFolder(t *testing.T) {
	folder := t.TempDir()
	put(t, filepath.Join(folder, "id"))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	if removed, remains := Erase(link, "id"); len(removed) > 0 || len(remains) != 1 {
		t.Errorf("removed %q, remains %v", removed, remains)
	}
	if removed, remains := Erase(folder, "", "..", "../x", "."); len(removed) > 0 || len(remains) != 4 {
		t.Errorf("removed %q, remains %v", removed, remains)
	}
	if removed, remains := Erase(filepath.Join(folder, "none"), "id"); len(removed)+len(remains) > 0 {
		t.Errorf("without a folder: removed %q, remains %v", removed, remains)
	}
}

// TestG5EraseNamesWhatRemains: a file that cannot be removed spares no other.
func TestG5EraseNamesWhatRemains(t *testing.T) {
	dir := t.TempDir()
	stuck := filepath.Join(dir, "id")
	put(t, stuck)
	put(t, filepath.Join(dir, "id.pub"))
	free, err := immutable(stuck)
	if err != nil {
		t.Skipf("no immutable files here: %v", err)
	}
	defer free()
	removed, remains := Erase(dir, "id", "id.pub")
	if len(removed) != 1 || len(remains) != 1 || !strings.Contains(remains[0].Error(), stuck) || !strings.Contains(remains[0].Error(), "chattr -i") {
		t.Fatalf("removed %q, remains %v", removed, remains)
	}
	free()
	if removed, remains := Erase(dir, "id"); len(removed) != 1 || len(remains) > 0 {
		t.Errorf("removed %q, remains %v", removed, remains)
	}
}

func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "id"))
	want := []string{TempName(filepath.Join(dir, "a")), TempName(filepath.Join(dir, "b"))}
	put(t, want[1])
	put(t, want[0])
	if got, err := Leftovers(dir); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Leftovers(filepath.Join(dir, "none")); err != nil || len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Stat(want[0]); errors.Is(err, fs.ErrNotExist) {
		t.Error("looking removed it")
	}
}

func put(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// immutable makes a file one that root cannot remove, where the file system
// can; free undoes it.
func immutable(path string) (free func(), err error) {
	set := func(flags int) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	}
	const immutableFlag = 0x10
	return func() { _ = set(0) }, set(immutableFlag)
}
