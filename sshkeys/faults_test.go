package sshkeys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"rolekey/internal/atomicfile"
)

// faultFS is this machine's file system, with a fault before any operation.
type faultFS struct {
	atomicfile.OS
	calls  int
	before func(n int, call, path string) error // n counts from 1; an error is the operation's
	torn   bool                                 // a write that fails has done half of it
	after  func(call string)                    // nil, or sees the disk after each operation
}

func (s *faultFS) do(call, path string, op func() error) error {
	s.calls++
	if s.before != nil {
		if err := s.before(s.calls, call, path); err != nil {
			return &os.PathError{Op: call, Path: path, Err: err}
		}
	}
	err := op()
	if s.after != nil {
		s.after(call)
	}
	return err
}

func (s *faultFS) OpenFile(name string, flag int, perm os.FileMode) (f atomicfile.File, err error) {
	call := "open"
	if flag&os.O_CREATE != 0 {
		call = "create"
	} else if flag&os.O_RDWR != 0 {
		call = "open to write"
	}
	err = s.do(call, name, func() (err error) { f, err = s.OS.OpenFile(name, flag, perm); return err })
	if err != nil {
		return nil, err
	}
	return &faultFile{f, s, name}, nil
}

func (s *faultFS) Lstat(name string) (info os.FileInfo, err error) {
	err = s.do("lstat", name, func() (err error) { info, err = s.OS.Lstat(name); return err })
	return info, err
}

func (s *faultFS) Mkdir(name string, perm os.FileMode) error {
	return s.do("mkdir", name, func() error { return s.OS.Mkdir(name, perm) })
}

func (s *faultFS) Lchown(name string, uid, gid int) error {
	return s.do("lchown", name, func() error { return s.OS.Lchown(name, uid, gid) })
}

func (s *faultFS) Rename(from, to string) error {
	return s.do("rename", to, func() error { return s.OS.Rename(from, to) })
}

func (s *faultFS) Remove(name string) error {
	return s.do("remove", name, func() error { return s.OS.Remove(name) })
}

type faultFile struct {
	atomicfile.File
	s    *faultFS
	path string
}

func (f *faultFile) Read(p []byte) (n int, err error) {
	fault := f.s.do("read", f.path, func() error { n, err = f.File.Read(p); return nil })
	if fault != nil {
		return 0, fault
	}
	return n, err
}

func (f *faultFile) Write(p []byte) (n int, err error) {
	err = f.s.do("write", f.path, func() (err error) { n, err = f.File.Write(p); return err })
	if err != nil && f.s.torn {
		n, _ = f.File.Write(p[:len(p)/2])
	}
	return n, err
}

func (f *faultFile) WriteAt(p []byte, at int64) (n int, err error) {
	err = f.s.do("writeat", f.path, func() (err error) { n, err = f.File.WriteAt(p, at); return err })
	if err != nil && f.s.torn {
		n, _ = f.File.WriteAt(p[:len(p)/2], at)
	}
	return n, err
}

func (f *faultFile) Stat() (info os.FileInfo, err error) {
	err = f.s.do("stat", f.path, func() (err error) { info, err = f.File.Stat(); return err })
	return info, err
}

func (f *faultFile) Chown(uid, gid int) error {
	return f.s.do("chown", f.path, func() error { return f.File.Chown(uid, gid) })
}

func (f *faultFile) Chmod(mode os.FileMode) error {
	return f.s.do("chmod", f.path, func() error { return f.File.Chmod(mode) })
}

func (f *faultFile) Sync() error { return f.s.do("sync", f.path, f.File.Sync) }

// Close closes in any case: a process that ends does so, too.
func (f *faultFile) Close() error {
	err := f.File.Close()
	return errors.Join(f.s.do("close", f.path, func() error { return nil }), err)
}

// The errors of disks.
var errKilled = errors.New("killed")

func fullDisk(_ int, call, _ string) error {
	if call == "write" || call == "mkdir" {
		return syscall.ENOSPC
	}
	return nil
}

func readOnly(_ int, call, _ string) error {
	switch call {
	case "create", "open to write", "mkdir", "rename", "remove", "chmod", "chown", "lchown":
		return syscall.EROFS
	}
	return nil
}

func goodDisk(int, string, string) error { return nil }

// oneFault fails at operation n of a disk. A killed process does nothing after
// that.
func oneFault(disk func(int, string, string) error, n int, err error) func(int, string, string) error {
	return func(i int, call, path string) error {
		if i == n || i > n && errors.Is(err, errKilled) {
			return err
		}
		return disk(i, call, path)
	}
}

// faultCase is a change of the file, during which something fails.
type faultCase struct {
	name    string
	prepare func(t *testing.T, f File)
	foreign string // what is not ours, in order
	block   func(t *testing.T) Block
}

var faultCases = []faultCase{
	{
		"a key is revoked",
		func(t *testing.T, f File) { startFile(t, f, blockOf(lineA, ownB)+foreignC+"# a\r\nno newline") },
		foreignC + "# a\r\nno newline",
		func(t *testing.T) Block { return block(t, entry(nodeA, fixedKey(1))) },
	}, {
		"another master",
		func(t *testing.T, f File) { startFile(t, f, foreignC+blockOf(ownB)+"# b\n") },
		foreignC + "# b\n",
		func(t *testing.T) Block { return block(t, entry(nodeA, fixedKey(1))) },
	}, {
		"all are revoked",
		func(t *testing.T, f File) { startFile(t, f, blockOf(ownB)) },
		"",
		func(t *testing.T) Block { return block(t) },
	}, {
		"a damaged block",
		func(t *testing.T, f File) { startFile(t, f, foreignC+begin+ownB+foreignC+begin+lineA) },
		foreignC + foreignC,
		func(t *testing.T) Block { return block(t, entry(nodeA, fixedKey(1), fixedKey(9))) },
	}, {
		"modes that sshd refuses",
		func(t *testing.T, f File) {
			startFile(t, f, foreignC+blockOf(ownB))
			if err := errors.Join(os.Chmod(f.Path, 0o666), os.Chmod(filepath.Dir(f.Path), 0o777)); err != nil {
				t.Fatal(err)
			}
		},
		foreignC,
		func(t *testing.T) Block { return block(t, entry(nodeA, fixedKey(1))) },
	}, {
		"the first block",
		func(*testing.T, File) {},
		"",
		func(t *testing.T) Block { return block(t, entry(nodeA, fixedKey(1))) },
	}, {
		"nothing changes",
		func(t *testing.T, f File) { startFile(t, f, blockA+foreignC) },
		foreignC,
		func(t *testing.T) Block { return block(t, entry(nodeA, fixedKey(1))) },
	},
}

func startFile(t *testing.T, f File, text string) {
	mkdir(t, filepath.Dir(f.Path), 0o700)
	writeFile(t, f.Path, text)
}

func blockOf(lines ...string) string { return begin + strings.Join(lines, "") + end }

// TestG4FaultAtEveryOperation lets each operation on files fail once, by a full
// disk, a broken disk, a write that is done by half and a kill; also where the
// disk is full anyway and the file is changed in place. After that no foreign
// byte is lost, nothing is revoked by half without being told, and the next
// Apply heals everything.
func TestG4FaultAtEveryOperation(t *testing.T) {
	disks := map[string]func(int, string, string) error{"good": goodDisk, "full": fullDisk}
	for _, c := range faultCases {
		for name, disk := range disks {
			for _, fault := range []error{syscall.ENOSPC, syscall.EIO, errKilled} {
				for _, torn := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s disk/%v/torn=%v", c.name, name, fault, torn), func(t *testing.T) {
						n := 1
						for c.fault(t, n, oneFault(disk, n, fault), torn) {
							n++
						}
						if n < 12 && c.name != "the first block" && c.name != "nothing changes" {
							t.Errorf("only %d operations: this tests too little", n)
						}
					})
				}
			}
		}
	}
}

// TestG4RevokedOnBadDisks: where no new file can be made, the file at hand is
// changed, and where nothing can be changed it is told.
func TestG4RevokedOnBadDisks(t *testing.T) {
	for _, c := range faultCases {
		for _, broken := range []string{"create", "write", "chmod", "rename"} {
			f := quickFile(t)
			c.prepare(t, f)
			f.fs = &faultFS{before: func(_ int, call, _ string) error {
				if call == broken {
					return syscall.EIO
				}
				return nil
			}}
			b := c.block(t)
			if _, err := f.Apply(b); !errors.Is(err, syscall.EIO) {
				if c.name != "nothing changes" && c.name != "modes that sshd refuses" || err != nil {
					t.Errorf("%s, no %s: %v", c.name, broken, err)
				}
			}
			c.nothingRevoked(t, f, b, broken)
		}
		f := quickFile(t)
		c.prepare(t, f)
		f.fs = &faultFS{before: readOnly}
		if _, err := f.Apply(c.block(t)); c.name != "nothing changes" && (!errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "read-only: mount it writable")) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func (c faultCase) nothingRevoked(t *testing.T, f File, b Block, when string) {
	t.Helper()
	if !fileExists(f.Path) {
		return
	}
	text := readFile(t, f.Path)
	for key := byte(1); key < 10; key++ {
		k := fixedKey(key)
		if admits(text, k, expectFrom[key], expires) && !wants(b, k) && !strings.Contains(c.foreign, keyBase64(k)) {
			t.Errorf("%s, %s fails: key %d still enters by\n%s", c.name, when, key, text)
		}
	}
}

// fault runs the change with a fault at operation n; false: there is none.
func (c faultCase) fault(t *testing.T, n int, rule func(int, string, string) error, torn bool) bool {
	f := quickFile(t)
	c.prepare(t, f)
	b := c.block(t)
	disk := &faultFS{before: rule, torn: torn, after: func(call string) { c.foreignStays(t, f, fmt.Sprint(n, call)) }}
	f.fs = disk
	_, err := f.Apply(b)
	c.foreignStays(t, f, fmt.Sprint(n))
	if err == nil {
		c.effective(t, f, b, n)
	}
	f.fs = nil
	apply(t, f, b)
	c.healed(t, f, b, n)
	return disk.calls >= n
}

// foreignStays: apart from lines that are ours, half ones included, the file
// holds what it held.
func (c faultCase) foreignStays(t *testing.T, f File, when string) {
	t.Helper()
	text, err := os.ReadFile(f.Path)
	if err != nil && (!errors.Is(err, os.ErrNotExist) || c.foreign != "") {
		t.Fatalf("operation %s: %v", when, err)
	}
	var left strings.Builder
	for l := range strings.Lines(string(text)) {
		if !strings.Contains(l, " ROLEKEY ") && !strings.Contains(l, commentPrefix) {
			left.WriteString(l)
		}
	}
	if left.String() != c.foreign {
		t.Fatalf("operation %s: foreign lines are\n%q\nwant\n%q", when, left.String(), c.foreign)
	}
}

// effective: Apply says that it is done, so it must be.
func (c faultCase) effective(t *testing.T, f File, b Block, n int) {
	t.Helper()
	text := ""
	if fileExists(f.Path) {
		text = readFile(t, f.Path)
	}
	for key := byte(1); key < 10; key++ {
		k := fixedKey(key)
		if got, want := admits(text, k, expectFrom[key], expires), wants(b, k) || strings.Contains(c.foreign, keyBase64(k)); got != want {
			t.Errorf("operation %d: done, and key %d enters: %v, in\n%s", n, key, got, text)
		}
	}
}

func (c faultCase) healed(t *testing.T, f File, b Block, n int) {
	t.Helper()
	c.foreignStays(t, f, fmt.Sprint(n, " healed"))
	c.effective(t, f, b, n)
	if !fileExists(f.Path) {
		return
	}
	if got := strings.Replace(readFile(t, f.Path), string(b.Bytes()), "", 1); got != c.foreign {
		t.Errorf("operation %d: healed, beside the block there is\n%q\nwant\n%q", n, got, c.foreign)
	}
	if why := strict(f); why != "" {
		t.Errorf("operation %d: healed, and sshd refuses %s", n, why)
	}
	entries, err := os.ReadDir(filepath.Dir(f.Path))
	if err != nil || len(entries) != 1 {
		t.Errorf("operation %d: healed, and the folder holds %v, %v", n, entries, err)
	}
}
