package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// overlaid are the machine's folders that a node sees as they are, and changes
// for itself alone: what it writes is in memory, and goes with it.
var overlaid = []string{"/etc", "/var", "/usr/sbin"}

// nodesOwn are the folders that come from the node's tree, so that they can be
// read and written from outside, below Node.Root. A parent is before its child.
var nodesOwn = []string{
	"/root", "/run", "/tmp", "/etc/ssh", "/etc/rolekey", "/var/lib/rolekey", "/var/log/rolekey",
}

// programDir is where a node has the programs of the cluster: masterd's user
// could not pass the folders above the real place if that is in root's home.
const programDir = "/run/devcluster/bin"

// systemSSHD is where a machine has its sshd, and where noded asks it.
const systemSSHD = "/usr/sbin/sshd"

// mountAll replaces the folders in which a machine differs from others. What
// the nodes need from the hidden ones appears in its old place.
func (s *machineSpec) mountAll() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	var own, kept places
	defer own.close()
	defer kept.close()
	for _, p := range nodesOwn {
		if err := own.open(filepath.Join(s.Node.Root, p), p); err != nil {
			return err
		}
	}
	for _, p := range s.kept() {
		if err := kept.open(p, p); err != nil {
			return err
		}
	}
	if err := own.open(s.Bin, programDir); err != nil {
		return err
	}
	if err := overlay(filepath.Join(privateDir(s.Dir), "over")); err != nil {
		return err
	}
	for _, p := range own {
		if err := p.bind(); err != nil {
			return err
		}
	}
	for _, p := range kept {
		if err := p.reappear(); err != nil {
			return err
		}
	}
	return mountKernelFiles()
}

// kept lists what tests and tools may name on a node by its path here. What is a
// replaced folder itself is left out.
func (s *machineSpec) kept() []string {
	list := append([]string{s.Dir, s.Bin}, sshdFolders(s.Tools)...)
	if exe, err := os.Executable(); err == nil {
		list = append(list, exe) // for helpers
	}
	for _, p := range s.Tools.Client {
		list = append(list, p)
	}
	return slices.DeleteFunc(list, holdsReplaced)
}

// sshdFolders are the folders of an sshd that is not installed.
func sshdFolders(t *sshTools) []string {
	if t.SSHD == systemSSHD {
		return nil
	}
	list := []string{t.SSHD}
	dir := filepath.Dir(t.SSHD)
	for range 2 { // …/bin/sshd, or …/usr/sbin/sshd with its libraries
		dir = filepath.Dir(dir)
		list = append(list, dir)
	}
	return list
}

// holdsReplaced reports whether a folder is one of those that are replaced, or
// above one: it cannot be shown in the old place.
func holdsReplaced(dir string) bool {
	for _, p := range append([]string{"/proc", "/dev/pts"}, append(overlaid, nodesOwn...)...) {
		if dir == p || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") {
			return true
		}
	}
	return false
}

// places are files and folders that were opened before mounts hid them.
type places []place

type place struct {
	fd   int
	path string // where it is to be
}

func (l *places) open(source, path string) error {
	fd, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", source, err)
	}
	*l = append(*l, place{fd, path})
	return nil
}

func (l places) close() {
	for _, p := range l {
		unix.Close(p.fd)
	}
}

// bind mounts the place at its path, which exists or can be made.
func (p place) bind() error {
	if err := p.makeMountPoint(); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", p.fd), p.path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the node's own %s: %w", p.path, err)
	}
	return nil
}

// reappear mounts the place where it was, if it is hidden there.
func (p place) reappear() error {
	var was, is unix.Stat_t
	if err := unix.Fstat(p.fd, &was); err != nil {
		return fmt.Errorf("look at %s: %w", p.path, err)
	}
	if err := unix.Stat(p.path, &is); err == nil && was.Dev == is.Dev && was.Ino == is.Ino {
		return nil
	}
	return p.bind()
}

func (p place) makeMountPoint() error {
	var st unix.Stat_t
	if err := unix.Fstat(p.fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return os.MkdirAll(p.path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(p.path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(p.path, os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// overlay lays a writable layer in memory, mounted at base, over folders.
func overlay(base string) error {
	if err := unix.Mount("tmpfs", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount memory for the node's changes: %w", err)
	}
	// Options of a mount have no quotes, so the names in them are short.
	if err := os.Chdir(base); err != nil {
		return fmt.Errorf("enter the node's layer: %w", err)
	}
	defer os.Chdir("/")
	for i, dir := range overlaid {
		dir, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return fmt.Errorf("find %s: %w", overlaid[i], err)
		}
		st, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		upper, work := fmt.Sprintf("upper%d", i), fmt.Sprintf("work%d", i)
		if err := errors.Join(os.Mkdir(upper, 0o755), os.Chmod(upper, st.Mode().Perm()), os.Mkdir(work, 0o700)); err != nil {
			return fmt.Errorf("make the node's layer: %w", err)
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
		if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
			return fmt.Errorf("lay the node's layer over %s: %w", dir, err)
		}
	}
	return nil
}

// mountKernelFiles gives the node its own view of processes, and terminals.
func mountKernelFiles() error {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	err := unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
	if err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	if real, err := filepath.EvalSymlinks("/dev/ptmx"); err == nil && real != "/dev/pts/ptmx" {
		if err := unix.Mount("/dev/pts/ptmx", "/dev/ptmx", "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount /dev/ptmx: %w", err)
		}
	}
	if st, err := os.Stat("/dev/shm"); err != nil || !st.IsDir() {
		return nil
	}
	if err := unix.Mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("mount /dev/shm: %w", err)
	}
	return nil
}

// installPrograms puts Rolekey's programs and OpenSSH where a machine has them.
func (s *machineSpec) installPrograms() error {
	for _, name := range programs {
		if _, err := os.Stat(filepath.Join(programDir, name)); err != nil {
			continue // a test brings what it needs
		}
		if err := replace("/usr/sbin/"+name, func(path string) error { return os.Symlink(filepath.Join(programDir, name), path) }); err != nil {
			return err
		}
	}
	for name, path := range s.Tools.Client {
		if _, err := os.Stat(filepath.Join("/usr/bin", name)); err == nil {
			continue
		}
		if err := replace("/usr/sbin/"+name, func(to string) error { return os.Symlink(path, to) }); err != nil {
			return err
		}
	}
	if s.Tools.SSHD == systemSSHD {
		return nil
	}
	lib := ""
	if s.Tools.SSHDLib != "" {
		lib = "LD_LIBRARY_PATH=" + shellQuote(s.Tools.SSHDLib) + " "
	}
	script := fmt.Sprintf("#!/bin/sh\n%sexec %s \"$@\"\n", lib, shellQuote(s.Tools.SSHD))
	return replace(systemSSHD, func(path string) error { return os.WriteFile(path, []byte(script), 0o755) })
}

// programs are what an installation brings.
var programs = []string{"noded", "masterd", "gnt-cluster", "gnt-node", "gnt-job"}

func replace(path string, write func(path string) error) error {
	if err := removeIfThere(path); err != nil {
		return err
	}
	if err := write(path); err != nil {
		return fmt.Errorf("install %s: %w", path, err)
	}
	return nil
}
