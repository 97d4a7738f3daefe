package sshkeys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// repair puts right what StrictModes refuses: a file or folder that belongs to
// neither root nor the account, or that others may write. Only the file and the
// folders below home are ours to change; home and folders elsewhere are only
// reported. Failing to repair is reported as well, and stops nothing.
func (f File) repair(r *Report, old *state) {
	dirs, below := f.folders()
	if below {
		for _, dir := range dirs {
			f.repairOne(r, dir, 0o700, unix.O_DIRECTORY)
		}
	}
	for _, dir := range f.others() {
		f.inspect(r, dir)
	}
	if old.info == nil {
		return
	}
	f.repairOne(r, f.Path, 0o600, unix.O_NONBLOCK)
	// What is written next takes owner and mode from here.
	if info, err := f.on().Lstat(f.Path); err == nil {
		old.info = info
	}
}

// others are the folders that StrictModes looks at and that are not ours to
// change: home, or for a file elsewhere all folders up to the root.
func (f File) others() []string {
	if _, below := f.folders(); below {
		return []string{f.Account.Home}
	}
	var list []string
	for dir := filepath.Dir(f.Path); ; dir = filepath.Dir(dir) {
		list = append(list, dir)
		if dir == filepath.Dir(dir) {
			return list
		}
	}
}

// Fit says why no block could be kept in the file so that sshd honours it, apart
// from what Apply puts right; nil if it could.
func (f File) Fit() error {
	if _, err := f.read(); err != nil {
		return err
	}
	if _, below := f.folders(); !below {
		if _, err := os.Stat(filepath.Dir(f.Path)); err != nil {
			return fmt.Errorf("check folder: %w", err)
		}
	}
	var r Report
	for _, dir := range f.others() {
		f.inspect(&r, dir)
	}
	if len(r.Unsafe) > 0 {
		return fmt.Errorf("check %s: %w: %s", f.Path, ErrUnsafe, r.Unsafe[0])
	}
	return nil
}

// Holds reports whether the file holds lines of the cluster's, links followed,
// or cannot be read.
func (f File) Holds(b Block) bool {
	text, err := os.ReadFile(f.Path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EISDIR)
	}
	b.lines = nil
	_, r, err := Splice(text, b)
	return err != nil || r.Changed
}

// complaint says what StrictModes has against info, or "".
func (f File) complaint(info fs.FileInfo) string {
	uid, _ := owner(info)
	switch {
	case f.Lax:
	case uid != 0 && uid != f.Account.UID:
		return fmt.Sprintf("owned by uid %d", uid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Sprintf("mode %04o", info.Mode().Perm())
	}
	return ""
}

func (f File) inspect(r *Report, path string) {
	info, err := os.Stat(path)
	if err != nil {
		return // missing: the write that follows says so better
	}
	if c := f.complaint(info); c != "" {
		r.Unsafe = append(r.Unsafe, path+": "+c)
	}
}

func (f File) repairOne(r *Report, path string, mode os.FileMode, flag int) {
	h, err := f.on().OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|flag, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var info fs.FileInfo
	if err == nil {
		defer func() { _ = h.Close() }()
		info, err = h.Stat()
	}
	if err != nil {
		r.Unsafe = append(r.Unsafe, fmt.Sprintf("%s: %v", path, err))
		return
	}
	c := f.complaint(info)
	if c == "" {
		return
	}
	if uid, _ := owner(info); uid != 0 && uid != f.Account.UID {
		err = h.Chown(f.Account.UID, f.Account.GID)
	}
	if err = errors.Join(err, h.Chmod(mode)); err != nil {
		r.Unsafe = append(r.Unsafe, fmt.Sprintf("%s: %s: %v", path, c, err))
		return
	}
	r.Repaired = append(r.Repaired, path+": was "+c)
}

func owner(info fs.FileInfo) (uid, gid int) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), int(s.Gid)
	}
	return -1, -1
}
