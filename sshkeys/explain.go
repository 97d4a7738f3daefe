package sshkeys

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// noteLinks tells of a file that has other names as well. It is replaced by a
// file of its own; the other names keep what they have.
func (f File) noteLinks(r *Report, old state) {
	if old.info == nil {
		return
	}
	if s, ok := old.info.Sys().(*syscall.Stat_t); ok && s.Nlink > 1 {
		r.Repaired = append(r.Repaired, fmt.Sprintf("%s: was one of %d names of a file (hard links); the others keep what they have", f.Path, s.Nlink))
	}
}

// explain adds to an error of writing what the administrator can do about it.
func (f File) explain(err error) error {
	if why := f.why(err); why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return err
}

func (f File) why(err error) string {
	dir := filepath.Dir(f.Path)
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "the disk is full, or a quota is used up: make room in " + dir
	case errors.Is(err, unix.EROFS):
		return "the file system of " + dir + " is mounted read-only: mount it writable"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		for _, path := range []string{f.Path, dir} {
			if flag := attribute(path); flag != "" {
				return fmt.Sprintf("%s has the attribute %s: chattr -%s '%s'", path, attributeNames[flag], flag, path)
			}
		}
		return "the system lets noded not change " + dir + "; see the journal of SELinux or AppArmor, if they are in use"
	}
	return ""
}

var attributeNames = map[string]string{"i": "immutable", "a": "append only"}

// attribute returns the letter by which chattr(1) knows what keeps root from
// changing a file or folder; "" if there is nothing.
func attribute(path string) string {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st); err != nil {
		return ""
	}
	switch {
	case st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0:
		return "i"
	case st.Attributes&unix.STATX_ATTR_APPEND != 0:
		return "a"
	}
	return ""
}
