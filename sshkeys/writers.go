package sshkeys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// writers notices other processes that have a file open for writing, by a read
// lease (fcntl(2), F_SETLEASE): the kernel grants none while there is a writer.
// Programs that write in place, as many editors and configuration managers do,
// would go on writing a file that has no name any more. Where leases do not
// work, such as on NFS, nothing is noticed.
type writers struct {
	path string
	h    *os.File
}

func (f File) watchWriters(old state) *writers {
	if old.info == nil {
		return &writers{}
	}
	return &writers{path: f.Path}
}

// begin fails with ErrWriting if there is a writer.
func (w *writers) begin() error {
	if w.path == "" {
		return nil
	}
	h, err := os.OpenFile(w.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil // the look at the content that follows says so better
	}
	_, err = unix.FcntlInt(h.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		w.h = h
		return nil
	}
	_ = h.Close()
	if errors.Is(err, unix.EAGAIN) {
		return ErrWriting
	}
	return nil
}

// check fails with ErrWriting if somebody wants to write since begin.
func (w *writers) check() error {
	if w.h == nil {
		return nil
	}
	kind, err := unix.FcntlInt(w.h.Fd(), unix.F_GETLEASE, 0)
	if err == nil && kind != unix.F_RDLCK {
		return ErrWriting
	}
	return nil
}

// end lets writers go on.
func (w *writers) end() {
	if w.h != nil {
		_ = w.h.Close()
	}
}
