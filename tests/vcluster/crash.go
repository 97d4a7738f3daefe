package vcluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing/synctest"
)

// stop ends the daemons as a service manager does.
func (n *Node) stop() {
	if n.run == nil {
		return
	}
	n.run.cancel()
	n.run.ended.Wait()
	n.run = nil
}

// Stop ends the daemons in order.
func (n *Node) Stop() { n.stop() }

// Crash is what kill -9 of both daemons does at this very moment: nothing that
// they do when they are asked to end reaches the disk or the network. The disk
// is copied first, while every goroutine waits for something, and the copy is
// what Start finds.
func (n *Node) Crash() {
	n.c.t.Helper()
	if n.run == nil {
		n.c.t.Fatalf("%s is down already", n.Short())
	}
	synctest.Wait()
	old := n.at.Root
	n.newRoot()
	n.c.must(copyTree(old, n.at.Root))
	n.Host.Stop()
	n.socks.host.Stop()
	n.stop()
	n.c.must(os.RemoveAll(old))
}

// Restart crashes the node and starts it again at once.
func (n *Node) Restart() {
	n.c.t.Helper()
	n.Crash()
	n.Start()
}

// PowerOff is a crash whose connections nobody hears the end of: the node is
// cut off first, and stays so until Heal.
func (n *Node) PowerOff() {
	n.c.t.Helper()
	n.c.Partition(n)
	n.Crash()
}

// Backup copies the node's disk as it is now.
func (n *Node) Backup(name string) string {
	n.c.t.Helper()
	synctest.Wait()
	to := filepath.Join(n.c.dir, name)
	n.c.must(copyTree(n.at.Root, to))
	return to
}

// RestoreMasterd replaces what masterd keeps on the disk of a node that is
// down by what a backup has.
func (n *Node) RestoreMasterd(backup string) {
	n.c.t.Helper()
	if n.run != nil {
		n.c.t.Fatalf("%s runs", n.Short())
	}
	dir := n.at.MasterdDir()
	rel, err := filepath.Rel(n.at.Root, dir)
	n.c.must(err)
	n.c.must(os.RemoveAll(dir))
	n.c.must(copyTree(filepath.Join(backup, rel), dir))
}

// copyTree copies folders, plain files and their modes and times.
func copyTree(from, to string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, info.Mode().Perm())
		case info.Mode().IsRegular():
			return copyFile(path, target, info)
		default:
			return fmt.Errorf("%s is no plain file", path)
		}
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

func copyFile(from, to string, info fs.FileInfo) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(info.Mode().Perm()), out.Close()); err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return os.Chtimes(to, info.ModTime(), info.ModTime())
}
