// Package atomicfile replaces files so that a reader, and a machine that lost
// power at any instant, sees either the whole old content or the whole new
// content.
//
// The new content goes to a temporary file with a fixed name beside the
// target, which is then renamed over it (rename(2) is atomic within one
// folder). A fixed name means that an interrupted write leaves at most one
// file behind, that the next write of the same target removes it, and that
// RemoveTemp finds it without guessing. With Sync set the content is on disk
// before the name points to it, and the name is on disk before Write returns.
//
// The operations go through [FS], so that tests can let any of them fail.
//
// Different targets may be written concurrently. Writers of one target must
// be serialised by the caller: the target's owner is one daemon.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	tempPrefix = "."
	tempSuffix = ".rolekey-tmp"
)

// Options say how the new file looks and how much must survive power loss.
// Start from Durable or Derived: the zero Options hand the file to uid 0.
type Options struct {
	Mode os.FileMode // permission bits, exact: the umask does not apply; 0 means 0600
	UID  int         // owner, -1 leaves it to the kernel
	GID  int         // group, -1 leaves it to the kernel
	Sync bool        // fsync the file and its folder

	// Check, if set, is asked just before the rename. Its error keeps the old
	// file in place, and is returned.
	Check func() error
	// FS makes the operations; nil means OS.
	FS FS
}

func (o Options) fs() FS {
	if o.FS == nil {
		return OS{}
	}
	return o.FS
}

// Durable are the options for state: synced, owned by the writer.
func Durable(mode os.FileMode) Options { return Options{Mode: mode, UID: -1, GID: -1, Sync: true} }

// Derived are the options for files that are rebuilt at start: atomic, but not
// synced.
func Derived(mode os.FileMode) Options { return Options{Mode: mode, UID: -1, GID: -1} }

// Write makes data the content of path. On error the old file is untouched,
// unless the error comes from syncing the folder after the rename: then the
// new content is in place but may not survive power loss.
func Write(path string, data []byte, opts Options) error {
	if err := write(path, data, opts); err != nil {
		return fmt.Errorf("write file %s: %w", path, err)
	}
	return nil
}

func write(path string, data []byte, opts Options) error {
	temp := TempName(path)
	if err := discard(opts.fs(), temp); err != nil {
		return fmt.Errorf("remove leftover: %w", err)
	}
	err := fill(temp, data, opts)
	if err == nil && opts.Check != nil {
		err = opts.Check()
	}
	if err == nil {
		err = opts.fs().Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, discard(opts.fs(), temp))
	}
	if !opts.Sync {
		return nil
	}
	return SyncDirOn(opts.fs(), filepath.Dir(path))
}

// fill creates temp, which must not exist, with its final owner and mode.
func fill(temp string, data []byte, opts Options) (err error) {
	// O_EXCL refuses a symbolic link as well; O_NOFOLLOW says so once more.
	// The file is private until content and owner are in place.
	f, err := opts.fs().OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if opts.UID != -1 || opts.GID != -1 {
		if err := f.Chown(opts.UID, opts.GID); err != nil {
			return err
		}
	}
	// After chown, which may clear mode bits.
	if err := f.Chmod(opts.mode()); err != nil {
		return err
	}
	if !opts.Sync {
		return nil
	}
	return f.Sync()
}

func (o Options) mode() os.FileMode {
	if o.Mode == 0 {
		return 0o600
	}
	return o.Mode.Perm()
}

// discard removes a temporary file that may never have been created.
func discard(on FS, temp string) error {
	if err := on.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// TempName returns the name of the temporary file of path.
func TempName(path string) string {
	return filepath.Join(filepath.Dir(path), tempPrefix+filepath.Base(path)+tempSuffix)
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error { return SyncDirOn(OS{}, dir) }

// SyncDirOn is SyncDir on any FS.
func SyncDirOn(on FS, dir string) error {
	d, err := on.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// Remove deletes path and makes that durable. A missing file, or a missing
// folder, is success: what must be gone is gone.
func Remove(path string) error {
	err := os.Remove(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	// The folder is synced even if the file was missing: an earlier removal
	// may have been interrupted before its own sync.
	if err := SyncDir(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file %s: %w", path, err)
	}
	return nil
}

// RemoveTemp deletes what interrupted writes left in dir, not in folders below
// it. Call it at start, before the first Write. A missing dir is success.
func RemoveTemp(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove leftovers: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() && isTemp(e.Name()) {
			errs = append(errs, discard(OS{}, filepath.Join(dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove leftovers in %s: %w", dir, err)
	}
	return nil
}

func isTemp(name string) bool {
	return len(name) > len(tempPrefix)+len(tempSuffix) &&
		strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix)
}
