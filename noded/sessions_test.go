package noded

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

// session is a process that looks like sshd's and holds a connection.
type session struct {
	cmd    *exec.Cmd
	exited chan error
	from   netip.Prefix
}

func newSession(t *testing.T, l net.Listener, title string, from netip.Addr) *session {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	client, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := server.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	s := &session{exited: make(chan error, 1), from: netip.PrefixFrom(from, 32)}
	s.cmd = &exec.Cmd{Path: "/bin/sleep", Args: []string{title, "600"}, ExtraFiles: []*os.File{f}}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	server.Close()
	go func() { s.exited <- s.cmd.Wait() }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	return s
}

func (s *session) alive() bool { return s.cmd.Process.Signal(syscall.Signal(0)) == nil }

// newSweeper looks for sessions of l's port, or of port 22.
func newSweeper(t *testing.T, l net.Listener) *sessions {
	port := uint16(22)
	if l != nil {
		port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	return &sessions{
		proc: "/proc", log: zap.NewNop(), wake: make(chan struct{}, 1),
		file: filepath.Join(t.TempDir(), sweepFile), step: func(string) error { return nil },
		account: func(context.Context) (string, uint16, error) { return "alice", port, nil },
	}
}

// TestG4SessionsEnd: sessions from a revoked node end, those from others, of
// other accounts, and sshd's listener do not.
func TestG4SessionsEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	revoked, good := netip.MustParseAddr("127.66.0.1"), netip.MustParseAddr("127.66.0.2")
	ended := []*session{
		newSession(t, l, "sshd: alice@pts/0", revoked),
		newSession(t, l, "sshd-session: alice [priv]", revoked),
	}
	spared := []*session{
		newSession(t, l, "sshd: alice@pts/1", good),
		newSession(t, l, "sshd: bob@pts/2", revoked),
		newSession(t, l, "sshd: alice [listener] 0 of 10", revoked),
		newSession(t, l, "rsync: alice@pts/0", revoked),
	}
	s := newSweeper(t, l)
	s.add([]netip.Prefix{ended[0].from})
	if err := s.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, e := range ended {
		select {
		case <-e.exited:
		case <-time.After(patience):
			t.Errorf("%q goes on", e.cmd.Args[0])
		}
	}
	for _, o := range spared {
		if !o.alive() {
			t.Errorf("%q was ended", o.cmd.Args[0])
		}
	}
}

func TestSessionsOfOtherAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other := newSession(t, l, "sshd: alice@pts/0", netip.MustParseAddr("127.66.0.1"))
	s := newSweeper(t, l)
	s.local = []netip.Addr{netip.MustParseAddr("127.0.0.9")}
	s.add([]netip.Prefix{other.from})
	if n, err := s.sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("found %d, %v", n, err)
	}
}

// Two sweeps in a row that find nothing end the search.
func TestSweepsEnd(t *testing.T) {
	s := &sessions{wake: make(chan struct{}, 1)}
	s.add([]netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.1/32")})
	if len(s.pending) != 1 {
		t.Errorf("pending %v", s.pending)
	}
	if s.done() {
		t.Error("one sweep is enough")
	}
	if s.again(); s.done() {
		t.Error("two sweeps that are not in a row are enough")
	}
	s.add([]netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")})
	if s.done() || !s.done() || len(s.pending) != 0 {
		t.Errorf("after two clean sweeps: %v", s.pending)
	}
}

// TestG4SessionsAfterCrash: a node that crashes after authorized_keys and the
// map were written, and before it ended the sessions, ends them when it starts.
func TestG4SessionsAfterCrash(t *testing.T) {
	t.Parallel()
	first := newHost(t)
	l, err := net.Listen("tcp", netip.AddrPortFrom(first.addr(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first.cfg.Ports.SSH = l.Addr().(*net.TCPAddr).AddrPort().Port()
	w := foundedOn(t, first)
	second := joined(t, w)
	w.promote(second, true)
	id := first.member().id.Node
	w.mustPush(id)
	set, err := first.d.ssh.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open := newSession(t, l, "sshd: "+set.account.Name+"@pts/0", second.addr())

	crashed := errors.New("crash")
	first.upWith(func(step string) error {
		if step == "sweep" {
			return crashed
		}
		return nil
	})
	w.demote(second.member().id.Node)
	if ack := w.mustPush(id); !ack.Durable || len(ack.Problems) != 1 || !strings.Contains(ack.Problems[0], "crash") {
		t.Fatalf("ack %+v", ack)
	}
	if strings.Contains(first.authorizedKeys(), second.member().id.Node.String()) || !open.alive() {
		t.Fatal("the crash did not come between authorized_keys and the sweep")
	}
	first.up()
	select {
	case <-open.exited:
	case <-time.After(patience):
		t.Error("the session goes on after the restart")
	}
}

// What is left to sweep survives until two sweeps in a row found nothing.
func TestSweepFile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSweeper(t, nil)
		s.proc = t.TempDir()
		found := errors.New("crash")
		s.step = func(string) error { return found }
		want := netip.MustParsePrefix("192.0.2.1/32")
		s.add([]netip.Prefix{want})
		if err := s.settle(t.Context()); !errors.Is(err, found) {
			t.Fatal(err)
		}
		next := newSweeper(t, nil)
		next.proc, next.file = s.proc, s.file
		next.load()
		if !slices.Equal(next.pending, []netip.Prefix{want}) {
			t.Fatalf("after a crash: %v", next.pending)
		}
		sweeps := 0
		next.step = func(string) error {
			if sweeps++; !exists(s.file) {
				t.Errorf("before sweep %d the file is gone", sweeps)
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := next.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if sweeps != 2 || exists(s.file) {
			t.Errorf("after %d sweeps the file is there: %v", sweeps, exists(s.file))
		}
	})
}

func TestSweepFileDamaged(t *testing.T) {
	s := newSweeper(t, nil)
	s.proc = t.TempDir()
	write(t, s.file, []byte("junk"))
	s.load()
	if s.round(t.Context()); exists(s.file) {
		t.Error("a file that cannot be read is kept")
	}
}

func TestUnauthorized(t *testing.T) {
	view := func(reach cluster.SSHReach, nodes ...int) *candmap.View {
		m := ct.Map(nodes...)
		m.SSHReach = reach
		env := ct.Seal(m, nodes...)
		return &candmap.View{Map: mustVerify(t, env)}
	}
	all := view(cluster.ReachCandidates, 1, 2, 3)
	for name, c := range map[string]struct {
		old, next *candmap.View
		want      []int
	}{
		"nothing changed": {all, all, nil},
		"first map":       {&candmap.View{}, all, nil},
		"one demoted":     {all, view(cluster.ReachCandidates, 1, 3), []int{2}},
		"narrower reach":  {all, view(cluster.ReachMaster, 1, 2, 3), []int{2, 3}},
		"one promoted":    {view(cluster.ReachCandidates, 1), all, nil},
	} {
		var want []netip.Prefix
		for _, n := range c.want {
			want = append(want, ct.Candidate(n, true).From...)
		}
		got := unauthorized(c.old, c.next)
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
	}
}

func TestParseConnection(t *testing.T) {
	for line, want := range map[string]connection{
		"   0: 0100007F:0016 0201A8C0:D431 01 00000000:00000000 00:00000000 00000000     0        0 4711 1": {
			netip.MustParseAddrPort("127.0.0.1:22"), netip.MustParseAddrPort("192.168.1.2:54321"), "4711",
		},
		"   1: 0000000000000000FFFF00000100007F:0016 B80D0120000000000000000001000000:0050 01 0:0 00:0 0 0 0 12 1": {
			netip.MustParseAddrPort("127.0.0.1:22"), netip.MustParseAddrPort("[2001:db8::1]:80"), "12",
		},
		"   2: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1": {},
		"  sl  local_address rem_address   st tx_queue rx_queue":                                         {},
		"   3: 01:0016 zz:0016 01 0 0 0 0 0 9 1":                                                         {},
	} {
		got, ok := parseConnection(line)
		if ok != (want.inode != "") || ok && got != want {
			t.Errorf("%q: %+v, %v", line, got, ok)
		}
	}
}
