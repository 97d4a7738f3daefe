package noded

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sshdTitle is how sshd names its processes that serve a connection; since 9.8
// they are a program of their own.
var sshdTitle = regexp.MustCompile(`^sshd(-session|-auth)?: `)

// isSession reports whether a process serves the account, or a connection whose
// login is not decided.
func isSession(title, account string) bool {
	rest := sshdTitle.ReplaceAllString(title, "")
	if rest == title || strings.Contains(title, "[listener]") {
		return false
	}
	name, _, _ := strings.Cut(rest, "@")
	name, _, _ = strings.Cut(name, " ")
	return name == account
}

// process is a running process.
type process struct {
	pid, parent int
	title       string
}

func (s *sessions) processes() ([]process, error) {
	entries, err := os.ReadDir(s.proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		title, err1 := os.ReadFile(filepath.Join(s.proc, e.Name(), "cmdline"))
		stat, err2 := os.ReadFile(filepath.Join(s.proc, e.Name(), "stat"))
		if errors.Join(err1, err2) != nil {
			continue // it has ended
		}
		title = bytes.TrimRight(bytes.ReplaceAll(title, []byte{0}, []byte{' '}), " ")
		list = append(list, process{pid, parentOf(stat), string(title)})
	}
	return list, nil
}

// parentOf reads proc(5)'s stat, in which the name may hold anything.
func parentOf(stat []byte) int {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(fields[1])
	return n
}

func descendants(pid int, list []process) []process {
	var found []process
	for _, p := range list {
		if p.parent == pid {
			found = append(append(found, p), descendants(p.pid, list)...)
		}
	}
	return found
}

// holds reports whether a process has one of the sockets open.
func (s *sessions) holds(pid int, inodes map[string]bool) bool {
	dir := filepath.Join(s.proc, strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil && inodes[target] {
			return true
		}
	}
	return false
}

// connections lists the sockets of established connections to the port from
// the addresses, as links in /proc name them.
func (s *sessions) connections(port uint16, from []netip.Prefix) (map[string]bool, error) {
	list, err := diagConnections(port)
	if err != nil { // a kernel without it
		if list, err = s.readConnections(port); err != nil {
			return nil, fmt.Errorf("list connections: %w", err)
		}
	}
	found := map[string]bool{}
	for _, c := range list {
		if s.concerns(c, from) {
			found["socket:["+c.inode+"]"] = true
		}
	}
	return found, nil
}

// readConnections lists the established connections to a port of this machine,
// on any kernel.
func (s *sessions) readConnections(port uint16) (list []connection, err error) {
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(s.proc, "net", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a machine without IPv6
		}
		if err != nil {
			return nil, err
		}
		scan := bufio.NewScanner(f)
		for scan.Scan() {
			if c, ok := parseConnection(scan.Text()); ok && c.local.Port() == port {
				list = append(list, c)
			}
		}
		if err := errors.Join(scan.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (s *sessions) concerns(c connection, from []netip.Prefix) bool {
	here := len(s.local) == 0 || slices.Contains(s.local, c.local.Addr())
	return here && slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Contains(c.remote.Addr()) })
}

type connection struct {
	local, remote netip.AddrPort
	inode         string
}

// parseConnection reads a line of proc(5)'s net/tcp that tells of an
// established connection.
func parseConnection(line string) (connection, bool) {
	const established = "01"
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != established {
		return connection{}, false
	}
	local, ok1 := parseEndpoint(f[1])
	remote, ok2 := parseEndpoint(f[2])
	return connection{local, remote, f[9]}, ok1 && ok2
}

// parseEndpoint reads an address whose words of four bytes are in the order of
// the machine: little-endian, wherever this program is built for.
func parseEndpoint(text string) (netip.AddrPort, bool) {
	addr, port, ok := strings.Cut(text, ":")
	b, err := hex.DecodeString(addr)
	n, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}
