package atomicfile

import (
	"io"
	"os"
)

// FS are the operations on files that a writer makes; paths are absolute. OS
// makes them. Tests put a failure or a crash before each of them.
type FS interface {
	OpenFile(name string, flag int, perm os.FileMode) (File, error)
	Lstat(name string) (os.FileInfo, error)
	Mkdir(name string, perm os.FileMode) error
	Lchown(name string, uid, gid int) error
	Rename(from, to string) error
	Remove(name string) error
}

// File is an open file or folder.
type File interface {
	io.ReadWriteCloser
	io.WriterAt
	Stat() (os.FileInfo, error)
	Chown(uid, gid int) error
	Chmod(mode os.FileMode) error
	Sync() error
}

// OS is the FS of this machine.
type OS struct{}

var _ FS = OS{}

// OpenFile implements FS.
func (OS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return f, nil
}

// Lstat implements FS.
func (OS) Lstat(name string) (os.FileInfo, error) { return os.Lstat(name) }

// Mkdir implements FS.
func (OS) Mkdir(name string, perm os.FileMode) error { return os.Mkdir(name, perm) }

// Lchown implements FS.
func (OS) Lchown(name string, uid, gid int) error { return os.Lchown(name, uid, gid) }

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }
