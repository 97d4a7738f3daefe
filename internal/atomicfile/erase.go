package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Erase unlinks what has one of the names in the folder dir, in their order,
// and then all that interrupted writes left there, and makes that durable. It
// follows no link, neither dir nor what is in it, whoever may change it
// meanwhile; a folder goes with all that it holds. It returns the paths that
// are gone, and one error for each that remains, naming it: the others do not
// wait for it. A folder that is not there holds nothing.
func Erase(dir string, names ...string) (removed []string, remains []error) {
	d, err := openFolder(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, []error{fmt.Errorf("remove files: open folder %s: %w", dir, err)}
	}
	defer func() { _ = d.Close() }()
	left, err := leftovers(d)
	if err != nil {
		remains = append(remains, fmt.Errorf("remove files: list folder %s: %w", dir, err))
	}
	for _, name := range slices.Concat(names, left) {
		path := filepath.Join(dir, name)
		switch err := unlink(d, name); {
		case err == nil:
			removed = append(removed, path)
		case !errors.Is(err, fs.ErrNotExist):
			remains = append(remains, fmt.Errorf("remove %s: %w", path, explain(err)))
		}
	}
	// Also when nothing was removed: an earlier call may have been interrupted
	// between the removal and its own sync.
	if err := d.Sync(); err != nil {
		remains = append(remains, fmt.Errorf("remove files: sync folder %s: %w", dir, err))
	}
	return removed, remains
}

// Leftovers lists what interrupted writes left in dir. A missing dir has none.
func Leftovers(dir string) ([]string, error) {
	d, err := openFolder(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for leftovers in %s: %w", dir, err)
	}
	defer func() { _ = d.Close() }()
	names, err := leftovers(d)
	if err != nil {
		return nil, fmt.Errorf("look for leftovers in %s: %w", dir, err)
	}
	for i, name := range names {
		names[i] = filepath.Join(dir, name)
	}
	return names, nil
}

func leftovers(d *os.File) ([]string, error) {
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool { return !isTemp(name) }), err
}

func openFolder(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// unlink removes one entry of an open folder.
func unlink(d *os.File, name string) error {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return fmt.Errorf("%q is no name of a file", name)
	}
	at := int(d.Fd())
	err := unix.Unlinkat(at, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := empty(os.NewFile(uintptr(fd), name)); err != nil {
		return err
	}
	return unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
}

// empty removes all that a folder holds, and closes it.
func empty(d *os.File) error {
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	errs := []error{err}
	for _, name := range names {
		if err := unlink(d, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// explain says what keeps root from removing a file.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) && os.Geteuid() == 0 {
		return fmt.Errorf("%w (if lsattr shows it or its folder as immutable: chattr -i)", err)
	}
	return err
}
