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
	ticks       uint64 // of its start, since the machine's
	title       string
}

func (s *sessions) processes() ([]process, error) { return s.processesOf("") }

// processesOf lists those that run a program; "": any.
func (s *sessions) processesOf(program string) ([]process, error) {
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
		stat, err := os.ReadFile(filepath.Join(s.proc, e.Name(), "stat"))
		if err != nil || program != "" && programOf(stat) != program {
			continue // it may have ended
		}
		title, err := os.ReadFile(filepath.Join(s.proc, e.Name(), "cmdline"))
		if err != nil {
			continue
		}
		title = bytes.TrimRight(bytes.ReplaceAll(title, []byte{0}, []byte{' '}), " ")
		parent, ticks := parseStat(stat)
		list = append(list, process{pid, parent, ticks, string(title)})
	}
	return list, nil
}

// parseStat reads proc(5)'s stat, in which the name may hold anything.
func parseStat(stat []byte) (parent int, ticks uint64) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(fields[1])
	ticks, _ = strconv.ParseUint(fields[19], 10, 64)
	return parent, ticks
}

// programOf is the name in proc(5)'s stat.
func programOf(stat []byte) string {
	from, to := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if from < 0 || to < from {
		return ""
	}
	return string(stat[from+1 : to])
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

// login is a connection to sshd of the account, and who serves it.
type login struct {
	conn   connection
	serves []process
	tells  statement
}

// logins finds who serves the connections.
func (s *sessions) logins(list []process, account string, open map[string]connection) []*login {
	found := map[string]*login{}
	var ordered []*login
	for _, p := range list {
		if !isSession(p.title, account) {
			continue
		}
		for _, link := range s.sockets(p.pid) {
			c, ok := open[link]
			if !ok {
				continue
			}
			if found[link] == nil {
				found[link] = &login{conn: c}
				ordered = append(ordered, found[link])
			}
			if l := found[link]; !slices.ContainsFunc(l.serves, func(o process) bool { return o.pid == p.pid }) {
				l.serves = append(l.serves, p)
			}
		}
	}
	return ordered
}

// sockets lists the sockets that a process has open, as /proc names them.
func (s *sessions) sockets(pid int) []string {
	dir := filepath.Join(s.proc, strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(target, "socket:[") {
			found = append(found, target)
		}
	}
	return found
}

// connections lists the established connections to the port of this node's
// sshd, by their sockets as links in /proc name them.
func (s *sessions) connections(port uint16) (map[string]connection, error) {
	list, err := s.list(wanted{local: port})
	if err != nil {
		return nil, err
	}
	found := map[string]connection{}
	for _, c := range list {
		if len(s.local) == 0 || slices.Contains(s.local, c.local.Addr()) {
			found[c.link()] = c
		}
	}
	return found, nil
}

// list asks the kernel for connections.
func (s *sessions) list(w wanted) ([]connection, error) {
	list, err := diagConnections(w)
	if err != nil { // a kernel without it
		if list, err = readConnections(filepath.Join(s.proc, "net"), w); err != nil {
			return nil, fmt.Errorf("list connections: %w", err)
		}
	}
	return list, nil
}

// addElsewhere adds the connections of sessions in other network namespaces: of
// an sshd for a management network, say. One with another root folder is of a
// container, and so of another machine.
func (s *sessions) addElsewhere(list []process, account string, port uint16, open map[string]connection) error {
	here, err := os.Readlink(filepath.Join(s.proc, "thread-self", "ns", "net"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without such namespaces
	}
	if err != nil {
		return fmt.Errorf("look at network namespaces: %w", err)
	}
	root, err := os.Stat("/")
	if err != nil {
		return fmt.Errorf("look at network namespaces: %w", err)
	}
	seen := map[string]bool{here: true}
	for _, p := range list {
		dir := filepath.Join(s.proc, strconv.Itoa(p.pid))
		if !isSession(p.title, account) {
			continue
		}
		space, err := os.Readlink(filepath.Join(dir, "ns", "net"))
		theirs, rootErr := os.Stat(filepath.Join(dir, "root"))
		if err != nil || rootErr != nil || seen[space] || !os.SameFile(root, theirs) {
			continue // also one that has ended
		}
		conns, err := readConnections(filepath.Join(dir, "net"), wanted{local: port})
		if err != nil {
			continue
		}
		seen[space] = true
		for _, c := range conns {
			open[c.link()] = c
		}
	}
	return nil
}

// readConnections lists connections from a net folder of proc(5), on any kernel.
func readConnections(dir string, w wanted) (list []connection, err error) {
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a machine without IPv6
		}
		if err != nil {
			return nil, err
		}
		scan := bufio.NewScanner(f)
		for scan.Scan() {
			if c, state, ok := parseConnection(scan.Text()); ok && w.state(state) && w.ends(c) {
				list = append(list, c)
			}
		}
		if err := errors.Join(scan.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	return list, nil
}

type connection struct {
	local, remote netip.AddrPort
	inode         string // "0": no process has it yet
}

// link is the socket as a link in /proc names it.
func (c connection) link() string { return "socket:[" + c.inode + "]" }

// wanted says which connections are looked for.
type wanted struct {
	local, remote uint16 // ports; 0: any
	opening       bool   // also those that the other end may think are established
}

// States of TCP, as the kernel numbers them.
const (
	tcpEstablished = 1
	tcpOpening     = 3 // SYN-RECEIVED
)

func (w wanted) state(n uint64) bool { return n == tcpEstablished || n == tcpOpening && w.opening }

func (w wanted) ends(c connection) bool {
	return (w.local == 0 || w.local == c.local.Port()) && (w.remote == 0 || w.remote == c.remote.Port())
}

// parseConnection reads a line of proc(5)'s net/tcp.
func parseConnection(line string) (c connection, state uint64, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return c, 0, false
	}
	local, ok1 := parseEndpoint(f[1])
	remote, ok2 := parseEndpoint(f[2])
	state, err := strconv.ParseUint(f[3], 16, 8)
	return connection{local, remote, f[9]}, state, ok1 && ok2 && err == nil
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
