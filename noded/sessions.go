package noded

import (
	"bufio"
	"bytes"
	"context"
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
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
)

// Sessions of sshd
//
// sshd asks authorized_keys at the login only, so a session outlives the key
// that opened it. sshd does not tell which key that was; but every key of ours
// works from its node's addresses alone. So what is ended are the sessions of
// the account from the addresses of a node that is no longer authorized:
// possibly also one that somebody opened from there with a key of his own.
//
// A login may pass the key check right before authorized_keys is replaced, and
// become a session after a sweep. Therefore sweeps go on until two in a row,
// some time apart, find none.

const (
	sessionPause = time.Second           // between sweeps that find none
	sessionRetry = 10 * time.Millisecond // after a sweep that found some
	sessionLimit = 2 * time.Second       // a map's acknowledgement waits no longer
)

// sessions ends sshd's sessions from addresses that lost their authorization.
type sessions struct {
	proc    string       // /proc
	local   []netip.Addr // where this node's sshd answers; empty: wherever this machine does
	log     *zap.Logger
	account func(ctx context.Context) (account string, port uint16, err error)

	sweeping sync.Mutex

	mu      sync.Mutex
	pending []netip.Prefix
	clean   int // sweeps in a row that found none
	wake    chan struct{}
}

// add has the sessions from these addresses ended by the next sweeps.
func (s *sessions) add(from []netip.Prefix) {
	if len(from) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range from {
		if !slices.Contains(s.pending, p) {
			s.pending = append(s.pending, p)
		}
	}
	s.clean = 0
}

// unauthorized lists from where keys worked by the old map of nodes that the
// next one does not authorize at all.
func unauthorized(old, next *candmap.View) []netip.Prefix {
	if old.Map == nil {
		return nil
	}
	still := map[cluster.NodeID]bool{}
	for _, a := range authorized(next.Map.Map) {
		still[a.Node] = true
	}
	var from []netip.Prefix
	for _, a := range authorized(old.Map.Map) {
		if !still[a.Node] {
			from = append(from, a.From...)
		}
	}
	return from
}

// settle sweeps until one sweep finds nothing, before a map is acknowledged;
// run does the rest.
func (s *sessions) settle(ctx context.Context) error {
	defer poke(s.wake)
	ctx, cancel := context.WithTimeout(ctx, sessionLimit)
	defer cancel()
	for {
		found, err := s.sweep(ctx)
		if found == 0 || err != nil {
			return err
		}
		if err := pause(ctx, sessionRetry, nil); err != nil {
			return fmt.Errorf("%d SSH sessions of a revoked node still run", found)
		}
	}
}

// run sweeps until two sweeps in a row find nothing, whenever there is cause.
func (s *sessions) run(ctx context.Context) error {
	for {
		found, err := s.sweep(ctx)
		wait := sessionPause
		switch {
		case err != nil && ctx.Err() == nil:
			s.log.Warn("SSH sessions of a revoked node may still run", zap.Error(err))
		case found > 0:
			wait = sessionRetry
		case s.done():
			wait = time.Hour
		}
		if err := pause(ctx, wait, s.wake); err != nil {
			return err
		}
	}
}

// done counts a sweep that found nothing, and reports whether that is enough.
func (s *sessions) done() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clean++; s.clean >= 2 {
		s.pending = nil
	}
	return len(s.pending) == 0
}

// sweep ends what it finds, and returns how many sessions that were.
func (s *sessions) sweep(ctx context.Context) (found int, err error) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.mu.Lock()
	from := slices.Clone(s.pending)
	s.mu.Unlock()
	if len(from) == 0 {
		return 0, nil
	}
	account, port, err := s.account(ctx)
	if err != nil {
		return 0, err
	}
	inodes, err := s.connections(port, from)
	if err != nil || len(inodes) == 0 {
		return 0, err
	}
	list, err := s.processes()
	if err != nil {
		return 0, err
	}
	for _, p := range list {
		if !isSession(p.title, account) || !s.holds(p.pid, inodes) {
			continue
		}
		found++
		s.end(p, list)
	}
	return found, nil
}

// end hangs up on a session: what runs in it hears so, as from a terminal that
// was closed, and sshd itself is killed.
func (s *sessions) end(p process, list []process) {
	s.log.Warn("ending an SSH session of a node that lost its authorization", zap.Int("pid", p.pid), zap.String("title", p.title))
	for _, child := range descendants(p.pid, list) {
		sig := syscall.SIGHUP
		if sshdTitle.MatchString(child.title) {
			sig = syscall.SIGKILL
		}
		_ = syscall.Kill(child.pid, sig) // it may end by itself at any time
	}
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
}

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
	found := map[string]bool{}
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(s.proc, "net", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a machine without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("list connections: %w", err)
		}
		scan := bufio.NewScanner(f)
		for scan.Scan() {
			if c, ok := parseConnection(scan.Text()); ok && c.local.Port() == port && s.concerns(c, from) {
				found["socket:["+c.inode+"]"] = true
			}
		}
		if err := errors.Join(scan.Err(), f.Close()); err != nil {
			return nil, fmt.Errorf("list connections: %w", err)
		}
	}
	return found, nil
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
