package sshkeys

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"rolekey/internal/atomicfile"
)

func testFile(t *testing.T) File {
	home := t.TempDir()
	// t.TempDir lets the umask decide, and StrictModes has an opinion on it.
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	return File{Path: filepath.Join(home, ".ssh", "authorized_keys"), Account: Account{Name: "root", UID: os.Getuid(), GID: os.Getgid(), Home: home}}
}

func apply(t *testing.T, f File, b Block) Report {
	t.Helper()
	r, err := f.Apply(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestApplyCreatesAndRemoves(t *testing.T) {
	f := testFile(t)
	if r := apply(t, f, block(t)); r.Changed {
		t.Error("an empty block changed something")
	}
	if _, err := os.Lstat(filepath.Dir(f.Path)); err == nil {
		t.Error("an empty block made a folder")
	}
	b := block(t, entry(nodeA, fixedKey(1)))
	if r := apply(t, f, b); !r.Changed || len(r.Repaired)+len(r.Unsafe) != 0 {
		t.Errorf("report %+v", r)
	}
	checkMode(t, filepath.Dir(f.Path), 0o700)
	checkMode(t, f.Path, 0o600)
	if got := readFile(t, f.Path); got != blockA {
		t.Errorf("file is\n%s", got)
	}
	before, err := os.Stat(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	if r := apply(t, f, b); r.Changed {
		t.Error("the same block changed something")
	}
	if after, err := os.Stat(f.Path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the same block replaced the file: %v", err)
	}
	apply(t, f, block(t))
	if got := readFile(t, f.Path); got != "" {
		t.Errorf("file is\n%s", got)
	}
	entries, err := os.ReadDir(filepath.Dir(f.Path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestApplyKeepsOwnerAndMode(t *testing.T) {
	f := testFile(t)
	mkdir(t, filepath.Dir(f.Path), 0o750)
	writeFile(t, f.Path, foreignC)
	if err := os.Chmod(f.Path, 0o444); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		f.Account.UID, f.Account.GID = 4711, 4712
		if err := errors.Join(os.Chown(f.Path, 4711, 4713), os.Chown(filepath.Dir(f.Path), 4711, 4712), os.Chown(f.Account.Home, 4711, 4712)); err != nil {
			t.Fatal(err)
		}
	}
	if r := apply(t, f, block(t, entry(nodeA, fixedKey(1)))); len(r.Repaired)+len(r.Unsafe) != 0 {
		t.Errorf("report %+v", r)
	}
	checkMode(t, f.Path, 0o444)
	checkMode(t, filepath.Dir(f.Path), 0o750)
	if os.Getuid() == 0 {
		info, err := os.Lstat(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if uid, gid := owner(info); uid != 4711 || gid != 4713 {
			t.Errorf("owner became %d:%d", uid, gid)
		}
	}
	if got := readFile(t, f.Path); got != blockA+foreignC {
		t.Errorf("file is\n%s", got)
	}
}

func TestApplyRepairsWhatStrictModesRefuses(t *testing.T) {
	f := testFile(t)
	mkdir(t, filepath.Dir(f.Path), 0o775)
	b := block(t, entry(nodeA, fixedKey(1)))
	writeFile(t, f.Path, blockA)
	if err := errors.Join(os.Chmod(f.Path, 0o662), os.Chmod(f.Account.Home, 0o770)); err != nil {
		t.Fatal(err)
	}
	r := apply(t, f, b)
	if len(r.Repaired) != 2 || len(r.Unsafe) != 1 || r.Changed {
		t.Errorf("report %+v", r)
	}
	checkMode(t, f.Path, 0o600)
	checkMode(t, filepath.Dir(f.Path), 0o700)
	checkMode(t, f.Account.Home, 0o770)
	if os.Getuid() != 0 {
		return
	}
	if err := errors.Join(os.Chown(f.Path, 4711, 4711), os.Chown(filepath.Dir(f.Path), 4711, 4711)); err != nil {
		t.Fatal(err)
	}
	if r := apply(t, f, b); len(r.Repaired) != 2 {
		t.Errorf("report %+v", r)
	}
	info, err := os.Lstat(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	if uid, _ := owner(info); uid != 0 {
		t.Errorf("owner stayed %d", uid)
	}
}

func TestApplyRepairsNothingElsewhere(t *testing.T) {
	f := testFile(t)
	elsewhere := t.TempDir()
	if err := os.Chmod(elsewhere, 0o777); err != nil {
		t.Fatal(err)
	}
	f.Path = filepath.Join(elsewhere, "root")
	if f.Fit() == nil {
		t.Error("a folder that others may write is fit")
	}
	if r := apply(t, f, block(t, entry(nodeA, fixedKey(1)))); len(r.Unsafe) == 0 || !strings.HasPrefix(r.Unsafe[0], elsewhere) || len(r.Repaired) != 0 {
		t.Errorf("report %+v", r)
	}
	f.Lax = true
	if r := apply(t, f, block(t, entry(nodeA, fixedKey(1)))); len(r.Unsafe) != 0 || f.Fit() != nil {
		t.Errorf("StrictModes is off: report %+v, %v", r, f.Fit())
	}
	checkMode(t, elsewhere, 0o777)
}

func TestApplyRefusesLinksAndOddFiles(t *testing.T) {
	b := block(t, entry(nodeA, fixedKey(1)))
	target := filepath.Join(t.TempDir(), "shadow")
	writeFile(t, target, "secret\n")
	odd := map[string]func(f File) error{
		"link to a file": func(f File) error { return os.Symlink(target, f.Path) },
		"dangling link":  func(f File) error { return os.Symlink(target+"x", f.Path) },
		"folder":         func(f File) error { return os.Mkdir(f.Path, 0o700) },
		"pipe":           func(f File) error { return syscall.Mkfifo(f.Path, 0o600) },
		"linked folder": func(f File) error {
			return errors.Join(os.Remove(filepath.Dir(f.Path)), os.Symlink(filepath.Dir(target), filepath.Dir(f.Path)))
		},
	}
	for name, spoil := range odd {
		f := testFile(t)
		mkdir(t, filepath.Dir(f.Path), 0o700)
		if err := spoil(f); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Apply(b); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: %v", name, err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(target))
	if err != nil || len(entries) != 1 || readFile(t, target) != "secret\n" {
		t.Errorf("something was written through a link: %v, %v", entries, err)
	}
	if _, err := (File{Path: "authorized_keys"}).Apply(b); !errors.Is(err, ErrUnsafe) {
		t.Errorf("relative path: %v", err)
	}
}

// TestApplyMergesConcurrentChange edits the file between the reading and the
// rename: once, which must be merged, and each time, which must end.
func TestApplyMergesConcurrentChange(t *testing.T) {
	f := testFile(t)
	mkdir(t, filepath.Dir(f.Path), 0o700)
	writeFile(t, f.Path, "# a\n")
	edits := 0
	f.fs = &faultFS{before: func(_ int, call, path string) error {
		if call == "rename" {
			edits++
		}
		if call == "open" && edits == 0 && fileExists(atomicfile.TempName(f.Path)) {
			edits++
			writeFile(t, f.Path+".new", "# a\n# by hand\n")
			return os.Rename(f.Path+".new", f.Path)
		}
		return nil
	}}
	apply(t, f, block(t, entry(nodeA, fixedKey(1))))
	if got := readFile(t, f.Path); got != blockA+"# a\n# by hand\n" || edits != 2 {
		t.Errorf("after %d tries the file is\n%s", edits, got)
	}
	f.fs = &faultFS{before: func(_ int, call, path string) error {
		if call == "chmod" { // of the new file
			edits++
			writeFile(t, f.Path, strings.Repeat("# busy\n", edits))
		}
		return nil
	}}
	if _, err := f.Apply(block(t, entry(nodeB, fixedKey(2)))); !errors.Is(err, ErrBusy) {
		t.Errorf("a file that keeps changing: %v", err)
	}
}

func fileExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestG4FullDiskDisablesRevokedKeys lets every replacement fail.
func TestG4FullDiskDisablesRevokedKeys(t *testing.T) {
	f := testFile(t)
	both := block(t, entry(nodeA, fixedKey(1)), entry(nodeB, fixedKey(2)))
	mkdir(t, filepath.Dir(f.Path), 0o700)
	writeFile(t, f.Path, foreignC+"no newline")
	apply(t, f, both)
	f.fs = &faultFS{before: fullDisk}
	checkDisabled(t, f, foreignC+"no newline")
	// With a working disk the marks go away.
	f.fs = nil
	if r := apply(t, f, block(t, entry(nodeA, fixedKey(1)))); len(r.Damage) != 0 || r.Kept != 0 {
		t.Errorf("report %+v", r)
	}
	if got := readFile(t, f.Path); got != blockA+foreignC+"no newline" {
		t.Errorf("file is\n%s", got)
	}
}

func TestMakeshiftSeesChanges(t *testing.T) {
	f := testFile(t)
	mkdir(t, filepath.Dir(f.Path), 0o700)
	writeFile(t, f.Path, "# new first line\n"+blockA)
	var r Report
	if err := f.makeshift([]byte(blockA), block(t), &r); !errors.Is(err, errChanged) || r.Disabled != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := readFile(t, f.Path); got != "# new first line\n"+blockA {
		t.Errorf("file is\n%s", got)
	}
}

// checkDisabled revokes node B while f cannot be replaced, twice, and then gives
// its room to another key.
func checkDisabled(t *testing.T, f File, foreign string) {
	t.Helper()
	before := readFile(t, f.Path)
	lineB, line9 := block(t, entry(nodeB, fixedKey(2))).lines[0].text, block(t, entry(nodeA, fixedKey(9))).lines[0].text
	for range 2 {
		r, err := f.Apply(block(t, entry(nodeA, fixedKey(1))))
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the disk is full") || r.Disabled != 1 || r.InPlace != 0 {
			t.Fatalf("Apply: %v, report %+v", err, r)
		}
		got := readFile(t, f.Path)
		if want := strings.Replace(before, lineB, offPrefix+lineB[len(offPrefix):], 1); got != want || !strings.HasSuffix(got, foreign) {
			t.Fatalf("file is\n%s\nwant\n%s", got, want)
		}
	}
	for i := range 2 {
		r, err := f.Apply(block(t, entry(nodeA, fixedKey(1)), entry(nodeA, fixedKey(9))))
		if i == 0 && (!errors.Is(err, syscall.ENOSPC) || r.Disabled != 0 || r.InPlace != 1) {
			t.Errorf("Apply: %v, report %+v", err, r)
		}
		if got, want := readFile(t, f.Path), strings.Replace(before, lineB, line9, 1); got != want {
			t.Fatalf("file is\n%s\nwant\n%s", got, want)
		}
	}
}

func TestG4FullDiskReal(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	f := testFile(t)
	mkdir(t, filepath.Dir(f.Path), 0o700)
	if err := syscall.Mount("tmpfs", filepath.Dir(f.Path), "tmpfs", 0, "size=32k,mode=0700"); err != nil {
		t.Skip("cannot mount a tmpfs:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(filepath.Dir(f.Path), 0); err != nil {
			t.Error(err)
		}
	})
	writeFile(t, f.Path, foreignC)
	apply(t, f, block(t, entry(nodeA, fixedKey(1)), entry(nodeB, fixedKey(2))))
	filler := filepath.Join(filepath.Dir(f.Path), "filler")
	if err := os.WriteFile(filler, make([]byte, 64<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	checkDisabled(t, f, foreignC)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	apply(t, f, block(t))
	if got := readFile(t, f.Path); got != foreignC {
		t.Errorf("file is\n%s", got)
	}
}

func mkdir(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(path, 0o700), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"OpenSSH_9.2, OpenSSL 3.0.19 27 Jan 2026\n":                                   {9, 2},
		"OpenSSH_10.0p2 Debian-7, OpenSSL 3.5.0\n":                                    {10, 0},
		"unknown option -- V\nOpenSSH_8.4p1 Debian-5, OpenSSL 1.1.1\nusage: sshd [-4": {8, 4},
		"OpenSSH_for_Windows_9.5p1, LibreSSL 3.8.2":                                   {9, 5},
		"sshd: illegal option -- V\nOpenSSH_7.4p1, OpenSSL 1.0.2k-fips\n":             {7, 4},
	} {
		if got, err := ParseVersion([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "Dropbear v2022.83", "OpenSSH_", "OpenSSH_9", "MyOpenSSH_9.2", "OpenSSH_99999999999999999999.1"} {
		if got, err := ParseVersion([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	if !(Version{10, 0}).AtLeast(9, 1) || (Version{9, 0}).AtLeast(9, 1) || (Version{}).AtLeast(0, 1) {
		t.Error("versions are compared wrongly")
	}
}

func TestProbeOldServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old sshd")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho 'unknown option -- V' >&2\necho 'OpenSSH_8.4p1, OpenSSL' >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if v, err := ProbeSSHD(t.Context(), path); err != nil || v != (Version{8, 4}) {
		t.Errorf("%v, %v", v, err)
	}
	if v, err := ProbeSSHD(t.Context(), path+"x"); err == nil || v != (Version{}) {
		t.Errorf("missing program: %v, %v", v, err)
	}
}

func TestPath(t *testing.T) {
	a := Account{Name: "root", UID: 0, Home: "/root"}
	for text, want := range map[string]string{
		"port 22\nauthorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2\n": "/root/.ssh/authorized_keys",
		"AuthorizedKeysFile /etc/ssh/keys/%u-%U\r\n":                               "/etc/ssh/keys/root-0",
		"authorizedkeysfile %h/x/../100%%%%\n":                                     "/root/100%%",
	} {
		if got, err := Path(text, a); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	c := ParseConfig("authorizedkeysfile none a a /b/%%%U .ssh/../a\npermitrootlogin no\npubkeyauthentication no\n")
	if all, err := c.AllAuthorizedKeys(a); err != nil || !slices.Equal(all, []string{"/root/a", "/b/%0"}) {
		t.Errorf("several: %q, %v", all, err)
	}
	if r := c.Refusals(a); len(r) != 2 || len(c.Refusals(Account{UID: 1})) != 1 || len((Config{PermitRootLogin: "without-password"}).Refusals(a)) != 0 {
		t.Errorf("refusals %q", r)
	}
	for _, text := range []string{"", "authorizedkeysfile none\n", "authorizedkeysfile\n", "authorizedkeysfile %x\n", "authorizedkeysfile a%\n"} {
		if got, err := Path(text, a); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
	if _, err := Path("", a); !errors.Is(err, ErrNoAuthorizedKeysFile) {
		t.Error("no file: another error")
	}
	if got, err := Path("authorizedkeysfile x", Account{Home: "rel"}); err == nil {
		t.Errorf("relative home: %q", got)
	}
}

func TestHostKeys(t *testing.T) {
	dir := t.TempDir()
	good, weak := filepath.Join(dir, "a b"), filepath.Join(dir, "rsa")
	writeFile(t, good+".pub", keyText(fixedKey(1), nodeA)+"\n")
	writeFile(t, weak+".pub", keyText(rsaKey(t, 2048), nodeA)+"\n")
	c := ParseConfig("port 22\nport 2222\nport 99999\nstrictmodes yes\nhostkey " + good + "\nhostkey " + weak + "\nhostkey " + dir + "/none\n")
	if len(c.Port) != 2 || c.Port[1] != 2222 || !c.StrictModes {
		t.Errorf("config %+v", c)
	}
	keys, err := c.HostKeys()
	if len(keys) != 1 || string(keys[0].Blob) != string(fixedKey(1).Blob) {
		t.Errorf("keys %v", keys)
	}
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(minRSABits)) || !strings.Contains(err.Error(), "none.pub") {
		t.Errorf("error %v", err)
	}
}
