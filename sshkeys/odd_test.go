package sshkeys

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// quickFile is testFile where syncing costs nothing, for tests with many files.
func quickFile(t *testing.T) File {
	t.Helper()
	if memoryDir() == "" {
		return testFile(t)
	}
	home, err := os.MkdirTemp(memoryDir(), "rolekey-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	return File{Path: filepath.Join(home, ".ssh", "authorized_keys"), Account: Account{Name: "root", UID: os.Getuid(), GID: os.Getgid(), Home: home}}
}

func TestG8HardLink(t *testing.T) {
	f := testFile(t)
	startFile(t, f, foreignC)
	other := filepath.Join(t.TempDir(), "other name")
	if err := os.Link(f.Path, other); err != nil {
		t.Skip("SKIP: cannot make a hard link here:", err)
	}
	b := block(t, entry(nodeA, fixedKey(1)))
	if r := apply(t, f, b); len(r.Repaired) != 1 || !strings.Contains(r.Repaired[0], "one of 2 names") {
		t.Errorf("report %+v", r)
	}
	if readFile(t, other) != foreignC || readFile(t, f.Path) != blockA+foreignC {
		t.Errorf("the other name has\n%s\nthe file has\n%s", readFile(t, other), readFile(t, f.Path))
	}
	if r := apply(t, f, b); len(r.Repaired) != 0 {
		t.Errorf("again: %+v", r)
	}
}

// TestG4Immutable: the attribute of chattr(1) that keeps root from changing
// anything is told by its name; without it all is as it should be.
func TestG4Immutable(t *testing.T) {
	chattr, err := exec.LookPath("chattr")
	if err != nil || os.Getuid() != 0 {
		t.Skip("SKIP: needs root and chattr")
	}
	for flag, name := range map[string]string{"i": "immutable", "a": "append only"} {
		for _, what := range []string{"file", "folder"} {
			f := testFile(t)
			startFile(t, f, foreignC+blockOf(ownB))
			path := f.Path
			if what == "folder" {
				path = filepath.Dir(f.Path)
			}
			set := func(sign string) error {
				return exec.Command(chattr, sign+flag, path).Run() //nolint:gosec // a test's own file
			}
			if err := set("+"); err != nil {
				t.Skip("SKIP: no attributes on this file system:", err)
			}
			t.Cleanup(func() { _ = set("-") }) // a failed test leaves it set
			b := block(t, entry(nodeA, fixedKey(1)))
			_, err := f.Apply(b)
			if err == nil || !strings.Contains(err.Error(), "has the attribute "+name+": chattr -"+flag+" '"+path+"'") {
				t.Errorf("%s %s: %v", name, what, err)
			}
			if text := readFile(t, f.Path); what == "file" && text != foreignC+blockOf(ownB) {
				t.Errorf("%s %s: file is\n%s", name, what, text)
			}
			if err := set("-"); err != nil {
				t.Fatal(err)
			}
			apply(t, f, b)
			if got := readFile(t, f.Path); got != foreignC+blockA {
				t.Errorf("%s %s, afterwards: file is\n%s", name, what, got)
			}
		}
	}
}

// TestG4ReadOnlyReal: nothing can be done, and that is told.
func TestG4ReadOnlyReal(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIP: needs root to mount")
	}
	f := testFile(t)
	dir := filepath.Dir(f.Path)
	mkdir(t, dir, 0o700)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32k,mode=0700"); err != nil {
		t.Skip("SKIP: cannot mount a tmpfs:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	startFile(t, f, foreignC+blockOf(ownB))
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	b := block(t, entry(nodeA, fixedKey(1)))
	if r, err := f.Apply(b); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "mount it writable") || r.Disabled != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	apply(t, f, b)
	if got := readFile(t, f.Path); got != foreignC+blockA {
		t.Errorf("file is\n%s", got)
	}
}

// TestRealConfig asks a real sshd about tokens, several files, Match blocks and
// none.
func TestRealConfig(t *testing.T) {
	n := startNode(t)
	if n.account.UID != 0 {
		t.Skip("SKIP: needs root")
	}
	base := readFile(t, n.config())
	a := Account{Name: "root", UID: 0, Home: "/home of root"}
	for text, want := range map[string][]string{
		"": {"/home of root/.ssh/authorized_keys", "/home of root/.ssh/authorized_keys2"},
		"AuthorizedKeysFile /etc/keys/%u-%U%% %h/k .ssh/x\n":                                                        {"/etc/keys/root-0%", "/home of root/k", "/home of root/.ssh/x"},
		"AuthorizedKeysFile none\n":                                                                                 nil,
		"AuthorizedKeysFile a\nMatch User root\nAuthorizedKeysFile b c\n":                                           {"/home of root/b", "/home of root/c"},
		"AuthorizedKeysFile a\nMatch User other\nAuthorizedKeysFile b\n":                                            {"/home of root/a"},
		"AuthorizedKeysFile a\nMatch Address 192.0.2.0/24 LocalAddress 192.0.2.5\nAuthorizedKeysFile b\n":           {"/home of root/b"},
		"AuthorizedKeysFile a\nMatch LocalPort 2222\nAuthorizedKeysFile b\nPermitRootLogin no\n":                    {"/home of root/b"},
		"AuthorizedKeysFile a\nMatch Address 203.0.113.0/24\nAuthorizedKeysFile b\nMatch all\nStrictModes yes\n":    {"/home of root/a"},
		"AuthorizedKeysFile a\nMatch User root Address 192.0.2.9\nAuthorizedKeysFile none\nPubkeyAuthentication no": nil,
	} {
		writeFile(t, n.config(), base+text)
		l := Login{User: "root", From: from("192.0.2.9/32")[0].Addr(), To: from("192.0.2.5/32")[0].Addr(), Port: 2222}
		cmd := n.command("-f", n.config(), "-T", "-C", l.spec())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", text, err, out)
		}
		c := ParseConfig(string(out))
		got, err := c.AllAuthorizedKeys(a)
		if !slices.Equal(got, want) || (err != nil) != (want == nil) || err != nil && !errors.Is(err, ErrNoAuthorizedKeysFile) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
		if refused := strings.Contains(text, " no\n") || strings.HasSuffix(text, " no"); (len(c.Refusals(a)) > 0) != refused {
			t.Errorf("%q: refusals %q", text, c.Refusals(a))
		}
	}
}
