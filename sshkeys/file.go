package sshkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"rolekey/internal/atomicfile"
)

// Account is the account whose SSH files are kept: root, or the daemon's own
// account where it is not root.
type Account struct {
	Name     string
	UID, GID int
	Home     string
}

// File is an authorized_keys or known_hosts file of an account.
type File struct {
	Path    string
	Account Account
	Lax     bool // sshd's StrictModes is off: owners and modes do not matter

	fs atomicfile.FS // nil: this machine's own; tests of failing disks have another
}

func (f File) on() atomicfile.FS {
	if f.fs == nil {
		return atomicfile.OS{}
	}
	return f.fs
}

var (
	// ErrBusy says that somebody else kept changing the file.
	ErrBusy = errors.New("the file keeps changing")
	// ErrUnsafe says that the file or a folder on the way is not what it
	// should be, such as a symbolic link.
	ErrUnsafe = errors.New("not a plain file in plain folders")

	// ErrWriting says that another process has the file open for writing. It
	// was not replaced, since what that process writes next would be lost.
	ErrWriting = errors.New("another process is writing the file")

	errChanged = errors.New("the file changed meanwhile")
)

// tries bounds how often a change by somebody else makes Apply start again.
const tries = 10

// Apply makes the file hold the block, creating it, and its folder, if there is
// something to write. Nothing is written if the bytes are right already.
//
// For authorized_keys the result is durable, and owner and modes that sshd's
// StrictModes would refuse are put right, since sshd would otherwise refuse
// every line. If the file cannot be replaced, say because the disk is full, what
// can be done in place is done, and the error is returned beside a Report that
// tells of it: nothing revoked opens the node then, and what is new may still be
// missing; see makeshift. known_hosts is derived: it is replaced without syncing.
func (f File) Apply(b Block) (Report, error) {
	for range tries {
		report, err := f.apply(b)
		if !errors.Is(err, errChanged) {
			return report, err
		}
	}
	return Report{}, fmt.Errorf("write %s: %w", f.Path, ErrBusy)
}

func (f File) apply(b Block) (Report, error) {
	if !filepath.IsAbs(f.Path) {
		return Report{}, fmt.Errorf("write %q: %w: want an absolute path", f.Path, ErrUnsafe)
	}
	old, err := f.read()
	if err != nil {
		return Report{}, err
	}
	want, report, err := Splice(old.content, b)
	if err != nil {
		return Report{}, fmt.Errorf("write %s: %w", f.Path, err)
	}
	if b.file == authorizedKeys {
		// Before writing: a folder that sshd refuses refuses revocations, too.
		f.repair(&report, &old)
	}
	if !report.Changed {
		f.discardTemp()
		return report, f.settle(old, b.file)
	}
	f.noteLinks(&report, old)
	err = f.write(old, want, b.file)
	if err == nil || errors.Is(err, errChanged) {
		return report, err
	}
	err = f.explain(err)
	report.Changed = false
	if b.file != authorizedKeys {
		return report, err
	}
	return report, errors.Join(err, f.makeshift(old.content, b, &report))
}

// discardTemp removes what a writing that was cut short left beside the file.
// The next write would do it as well, and failing harms nothing.
func (f File) discardTemp() {
	temp := atomicfile.TempName(f.Path)
	if _, err := f.on().Lstat(temp); err == nil {
		_ = f.on().Remove(temp)
	}
}

// settle makes durable what is right already: the call that wrote it may have
// been interrupted before its last sync. A clean file costs next to nothing.
func (f File) settle(old state, kind fileKind) error {
	if kind != authorizedKeys || old.info == nil {
		return nil
	}
	h, err := f.on().OpenFile(f.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		err = errors.Join(h.Sync(), h.Close())
	}
	if err != nil {
		return fmt.Errorf("sync key file: %w", err)
	}
	return atomicfile.SyncDirOn(f.on(), filepath.Dir(f.Path))
}

// state is the file as it was read.
type state struct {
	content []byte
	info    fs.FileInfo // nil if there is no file
}

// read reads the file, following no link at the end of any folder below home.
func (f File) read() (state, error) {
	if err := f.checkFolders(); err != nil {
		return state{}, err
	}
	h, err := f.on().OpenFile(f.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state{}, nil
	case errors.Is(err, unix.ELOOP):
		return state{}, fmt.Errorf("read %s: %w: it is a symbolic link", f.Path, ErrUnsafe)
	case err != nil:
		return state{}, fmt.Errorf("read key file: %w", err)
	}
	defer func() { _ = h.Close() }()
	info, err := h.Stat()
	if err != nil {
		return state{}, fmt.Errorf("read key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return state{}, fmt.Errorf("read %s: %w: it is a %s", f.Path, ErrUnsafe, info.Mode().Type())
	}
	content, err := io.ReadAll(io.LimitReader(h, MaxFile+1))
	if err != nil {
		return state{}, fmt.Errorf("read key file: %w", err)
	}
	return state{content, info}, nil
}

// folders are the folders from just below home down to the file. If the file is
// not below home, that is only its own folder, and below is false.
func (f File) folders() (dirs []string, below bool) {
	dir := filepath.Dir(f.Path)
	rel, err := filepath.Rel(f.Account.Home, dir)
	if f.Account.Home == "" || err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return []string{dir}, false
	}
	if rel == "." {
		return nil, true
	}
	path := f.Account.Home
	for part := range strings.SplitSeq(rel, "/") {
		path = filepath.Join(path, part)
		dirs = append(dirs, path)
	}
	return dirs, true
}

func (f File) checkFolders() error {
	dirs, _ := f.folders()
	for _, dir := range dirs {
		info, err := f.on().Lstat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("check folder: %w", err)
		}
		if !info.IsDir() {
			return fmt.Errorf("check folder %s: %w: it is a %s", dir, ErrUnsafe, info.Mode().Type())
		}
	}
	return nil
}

// write replaces the file, unless it is no longer what was read.
func (f File) write(old state, data []byte, kind fileKind) error {
	if old.info == nil {
		if err := f.makeFolders(); err != nil {
			return err
		}
	}
	o := f.options(old)
	o.Sync = kind == authorizedKeys
	watch := f.watchWriters(old)
	defer watch.end()
	// What is left between the check and the rename are a few microseconds.
	o.Check = func() error { return errors.Join(watch.begin(), f.same(old), watch.check()) }
	return atomicfile.Write(f.Path, data, o)
}

// options keep owner and mode of what is there. A new file belongs to the
// account. Only root can give files away; for others the kernel decides.
func (f File) options(old state) atomicfile.Options {
	o := atomicfile.Durable(0o600)
	o.FS = f.on()
	if old.info != nil {
		o.Mode = old.info.Mode().Perm()
	}
	switch root := os.Geteuid() == 0; {
	case root && old.info != nil:
		o.UID, o.GID = owner(old.info)
	case root:
		o.UID, o.GID = f.Account.UID, f.Account.GID
	}
	return o
}

func (f File) makeFolders() error {
	dirs, _ := f.folders()
	for _, dir := range dirs {
		err := f.on().Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil && os.Geteuid() == 0 {
			err = f.on().Lchown(dir, f.Account.UID, f.Account.GID)
		}
		if err == nil {
			err = atomicfile.SyncDirOn(f.on(), filepath.Dir(dir))
		}
		if err != nil {
			return fmt.Errorf("make folder for %s: %w", f.Path, err)
		}
	}
	return nil
}

// same fails if the file is not, or no longer holds, what was read.
func (f File) same(old state) error {
	now, err := f.read()
	if err != nil {
		return err
	}
	if (now.info == nil) != (old.info == nil) || !bytes.Equal(now.content, old.content) {
		return errChanged
	}
	return nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}
