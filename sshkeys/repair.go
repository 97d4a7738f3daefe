package sshkeys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// repair puts right what StrictModes refuses: a file or folder that belongs to
// neither root nor the account, or that others may write. Only the file and the
// folders below home are ours to change; home and folders elsewhere are only
// reported. Failing to repair is reported as well, and stops nothing.
func (f File) repair(r *Report, old *state) {
	dirs, below := f.folders()
	for _, dir := range dirs {
		if below {
			f.repairOne(r, dir, 0o700, unix.O_DIRECTORY)
		} else {
			f.inspect(r, dir)
		}
	}
	if below {
		f.inspect(r, f.Account.Home)
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

// complaint says what StrictModes has against info, or "".
func (f File) complaint(info fs.FileInfo) string {
	uid, _ := owner(info)
	switch {
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
