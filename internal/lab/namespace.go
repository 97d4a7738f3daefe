package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Preferences of the routing rules, and the table that leads to the pit.
const (
	prefCut   = 10
	prefLocal = 100
	tablePit  = 77
	pitDevice = "pit0"
)

// namespaceAttr returns how to start the holder in namespaces of its own. Root
// needs none for users; an ordinary user keeps his own id in a user namespace
// and receives the capabilities over that namespace only.
func namespaceAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if os.Geteuid() == 0 {
		return attr
	}
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	// Without these the execve below uid 0 would drop every capability.
	attr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN}
	return attr
}

// enterNamespaces prepares the namespaces in which the holder was started:
// the loopback device, the routing rules and the private files. All errors
// are of kind kindNoNamespaces, since the remedy is to do without.
func enterNamespaces(dir string, u *labUser) (cutter, error) {
	ip, err := findIP()
	if err != nil {
		return nil, err
	}
	// A rule before the table "local" is the only way to cut off an address
	// of this very machine, and that table's rule stands first by default.
	err = runIP(ip, "link set lo up", fmt.Sprintf("rule add pref %d lookup local", prefLocal), "rule del pref 0")
	if err != nil {
		return nil, kindf(kindNoNamespaces, "set up the network namespace: %v", err)
	}
	if err := u.mountPrivateFiles(dir); err != nil {
		return nil, kindf(kindNoNamespaces, "set up the mount namespace: %v", err)
	}
	c := &ruleCutter{ip: ip, action: "blackhole"}
	if err := digPit(ip); err == nil {
		c.action = fmt.Sprintf("lookup %d", tablePit)
	}
	return c, nil
}

// digPit makes a device that swallows packets, so that the sender notices
// nothing. A rule of type blackhole would answer connect(2) with EINVAL at
// once, which no real cut does; it is the fallback for kernels with none of
// these devices.
func digPit(ip string) error {
	if err := makePit(ip); err != nil {
		return err
	}
	// A small MTU would shrink the path MTU of connections that survive.
	_ = runIP(ip, "link set "+pitDevice+" mtu 65535")
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+pitDevice+"/route_localnet", []byte("1"), 0); err != nil {
		return fmt.Errorf("let 127.0.0.0/8 into the pit: %w", err)
	}
	return runIP(ip, fmt.Sprintf("route add default dev %s table %d", pitDevice, tablePit))
}

// makePit makes the device itself.
func makePit(ip string) error {
	var errs []error
	for _, kind := range []string{"dummy", "ifb", "veth peer name pit1"} {
		err := runIP(ip, "link add "+pitDevice+" type "+kind)
		if err == nil {
			return openPit(ip, strings.HasPrefix(kind, "veth"))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func openPit(ip string, pair bool) error {
	lines := []string{"link set " + pitDevice + " arp off up"}
	if pair {
		// The packets die at the other end: they are for nobody there.
		lines = append(lines, "link set pit1 up")
	}
	return runIP(ip, lines...)
}

// findIP finds iproute2, which is often outside an ordinary user's PATH.
func findIP() (string, error) {
	for _, name := range []string{"ip", "/usr/sbin/ip", "/sbin/ip"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", kindf(kindNoNamespaces, "the program ip (package iproute2) is missing")
}

// runIP executes commands of ip(8) in one batch. It uses os/exec and so may
// run only before the spawner reaps.
func runIP(ip string, lines ...string) error {
	cmd := exec.Command(ip, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %q: %w: %s", lines, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// cutter makes and ends the cuts between pairs of nodes; verb is add or del.
type cutter interface {
	apply(s *spawner, verb string, pairs [][2]*node) error
}

// ruleCutter cuts nodes that share a network namespace, by routing rules.
type ruleCutter struct {
	ip     string
	action string
}

func (c *ruleCutter) apply(s *spawner, verb string, pairs [][2]*node) error {
	var b strings.Builder
	for _, p := range pairs {
		for _, way := range [][2]*node{p, {p[1], p[0]}} {
			fmt.Fprintf(&b, "rule %s pref %d from %s to %s %s\n", verb, prefCut, way[0].Address, way[1].Address, c.action)
		}
	}
	return ipBatch(s, c.ip, nil, b.String())
}

// ipBatch executes lines of ip(8), in a node that is a machine or, for nil, in
// the holder's own namespaces.
func ipBatch(s *spawner, ip string, in *machine, lines string) error {
	if lines == "" {
		return nil
	}
	stdin, err := tempFile(lines)
	if err != nil {
		return err
	}
	defer stdin.Close()
	out, err := tempFile("")
	if err != nil {
		return err
	}
	defer out.Close()
	p, err := s.start(command{path: ip, argv: []string{"ip", "-batch", "-"}, files: []*os.File{stdin, out, out}, in: in, privileged: in == nil})
	if err != nil {
		return err
	}
	<-p.done
	if p.code() != 0 {
		text := make([]byte, 4096)
		n, _ := out.ReadAt(text, 0)
		return fmt.Errorf("run ip: %v: %s", p, strings.TrimSpace(string(text[:n])))
	}
	return nil
}

// tempFile returns an anonymous file that holds content, at its start.
func tempFile(content string) (*os.File, error) {
	fd, err := unix.MemfdCreate("lab", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write memory file: %w", err)
	}
	return f, nil
}

// bindFile lays content over the file at path, in this mount namespace only.
func bindFile(dir, path string, content []byte) error {
	own := filepath.Join(privateDir(dir), "etc", filepath.Base(path))
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	if err := os.WriteFile(own, content, 0o644); err != nil {
		return fmt.Errorf("write private copy of %s: %w", path, err)
	}
	if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount private copy of %s: %w", path, err)
	}
	return nil
}

func itoa(n int) string { return strconv.Itoa(n) }
