package noded

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

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
		sshd: func(context.Context) (sshd, error) { return sshd{"alice", os.Getuid(), port}, nil },
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
	s.add(revocation{From: []netip.Prefix{ended[0].from}})
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

// TestG4SessionsInOtherNamespace: an sshd of this machine that listens on
// another network is found as well, after the map is acknowledged.
func TestG4SessionsInOtherNamespace(t *testing.T) {
	revoked, good := netip.MustParseAddr("127.66.0.1"), netip.MustParseAddr("127.66.0.2")
	var l net.Listener
	var ended, spared *session
	made := make(chan error)
	var within func()
	within = func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if unix.Gettid() == unix.Getpid() {
			// The namespace of the first thread is what /proc shows of this
			// process. Another one does it, while this waits.
			go within()
			<-t.Context().Done()
			runtime.UnlockOSThread()
			return
		}
		defer close(made)
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNET), loopbackUp()); err != nil {
			made <- err
			return
		}
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			ended, spared = newSession(t, l, "sshd: alice@pts/0", revoked), newSession(t, l, "sshd: alice@pts/1", good)
			l.Close()
		}
		made <- err
	}
	go within()
	if err := <-made; err != nil {
		t.Skip("SKIP: no network namespace here:", err)
	}
	s := newSweeper(t, l)
	s.add(revocation{From: []netip.Prefix{ended.from}})
	if err := s.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.round(t.Context()) != sessionRetry {
		t.Error("nothing was found")
	}
	select {
	case <-ended.exited:
	case <-time.After(patience):
		t.Error("the session goes on")
	}
	if !spared.alive() {
		t.Error("another session was ended")
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// The titles of sshd's processes, also since 9.8.
func TestIsSession(t *testing.T) {
	for title, want := range map[string]bool{
		"sshd: root@pts/0": true, "sshd: root@notty": true, "sshd: root": true, "sshd: root [priv]": true, "sshd: root [net]": true,
		"sshd: root@pts/0,pts/1": true, "sshd-session: root@pts/0": true, "sshd-session: root [priv]": true, "sshd-auth: root [net]": true,
		"sshd: bob@pts/0": false, "sshd: rooted@pts/0": false, "sshd-session: bob [priv]": false, "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups": false,
		"sshd: [accepted]": false, "sshd-session: unknown [priv]": false, "sshd-sessions: root": false, "bash": false, "": false,
	} {
		if got := isSession(title, "root"); got != want {
			t.Errorf("%q: %v", title, got)
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
	s.add(revocation{From: []netip.Prefix{other.from}})
	if n, err := s.sweep(t.Context(), false); n != 0 || err != nil {
		t.Errorf("found %d, %v", n, err)
	}
}

// Two sweeps in a row that find nothing end the search.
func TestSweepsEnd(t *testing.T) {
	s := &sessions{wake: make(chan struct{}, 1)}
	s.add(revocation{From: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.1/32")}})
	if len(s.pending.From) != 1 {
		t.Errorf("pending %v", s.pending)
	}
	if s.done() {
		t.Error("one sweep is enough")
	}
	if s.again(); s.done() {
		t.Error("two sweeps that are not in a row are enough")
	}
	s.add(revocation{Keys: []string{"AAAA"}})
	if s.done() || !s.done() || !s.pending.empty() {
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
		want := revocation{[]netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, []string{"AAAA"}}
		s.add(want)
		if err := s.settle(t.Context()); !errors.Is(err, found) {
			t.Fatal(err)
		}
		next := newSweeper(t, nil)
		next.proc, next.file = s.proc, s.file
		next.load()
		if !next.pending.equal(want) {
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
		var want revocation
		for _, n := range c.want {
			e := ct.Candidate(n, true)
			want.From = append(want.From, e.From...)
			want.Keys = append(want.Keys, keyText(e.SSH[0]))
		}
		if got := unauthorized(c.old, c.next); !got.equal(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// TestG4UnauthorizedKeys: of a change of master under ssh_reach=master, and
// where candidates have a key in common, now or until now.
func TestG4UnauthorizedKeys(t *testing.T) {
	view := func(reach cluster.SSHReach, master int, keys map[int]int) *candmap.View {
		m := &candmap.Map{SSHReach: reach, Master: ct.Candidate(master, true).UUID}
		for _, n := range slices.Sorted(maps.Keys(keys)) {
			c := ct.Candidate(n, true)
			c.SSH = ct.Candidate(keys[n], true).SSH
			m.Candidates = append(m.Candidates, c)
		}
		return &candmap.View{Map: &candmap.Verified{Map: m}}
	}
	all, own := cluster.ReachCandidates, map[int]int{1: 1, 2: 2}
	for name, c := range map[string]struct {
		old, next *candmap.View
		from      int
		key       bool
	}{
		"change of master":             {view(cluster.ReachMaster, 1, own), view(cluster.ReachMaster, 2, own), 1, true},
		"shared key":                   {view(all, 2, map[int]int{1: 9, 2: 9}), view(all, 2, map[int]int{2: 9}), 1, false},
		"shared key, rotated at once":  {view(all, 2, map[int]int{1: 9, 2: 9}), view(all, 2, map[int]int{2: 8}), 1, false},
		"own keys, another renews his": {view(all, 2, own), view(all, 2, map[int]int{2: 7}), 1, true},
	} {
		want := revocation{From: ct.Candidate(c.from, true).From}
		if c.key {
			want.Keys = []string{keyText(ct.Candidate(c.from, true).SSH[0])}
		}
		if got := unauthorized(c.old, c.next); !got.equal(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// TestSweepFileOfBefore: what an older release noted is ended.
func TestSweepFileOfBefore(t *testing.T) {
	s := newSweeper(t, nil)
	write(t, s.file, []byte(`["192.0.2.1/32"]`))
	s.load()
	if want := (revocation{From: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}); !s.pending.equal(want) {
		t.Errorf("pending %v", s.pending)
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
		got, state, ok := parseConnection(line)
		ok = ok && wanted{}.state(state)
		if ok != (want.inode != "") || ok && got != want {
			t.Errorf("%q: %+v, %v", line, got, ok)
		}
	}
}
