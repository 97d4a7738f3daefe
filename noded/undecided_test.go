package noded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/rpc"
)

var (
	candidateAt = netip.MustParseAddr("127.66.0.1")
	strangerAt  = netip.MustParseAddr("127.66.0.9")
	candidates  = []netip.Prefix{netip.PrefixFrom(candidateAt, 32)}
)

// tcp connects from an address, and says nothing.
func tcp(t *testing.T, from netip.Addr, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	conn, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// wants looks until as many logins are undecided as are wanted.
func (s *sessions) wants(t *testing.T, what string, want int) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		found, err := s.undecided(t.Context(), candidates)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %d logins are not decided, want %d: %v", what, len(found), want, found)
		}
		_ = pause(t.Context(), time.Millisecond, nil)
	}
}

// TestUndecidedLogins: a login to a real sshd counts from its first packet until
// it is decided, and not later, whatever is done with the connection.
func TestUndecidedLogins(t *testing.T) {
	d := startSSHD(t, "127.0.0.1", "", "key")
	s := d.sweeper()
	s.local = []netip.Addr{d.addr.Addr()} // other tests have sshd, too
	s.wants(t, "nobody is there", 0)
	tcp(t, strangerAt, d.addr.String())
	s.wants(t, "somebody from elsewhere", 0)
	silent := tcp(t, candidateAt, d.addr.String())
	s.wants(t, "nothing is said", 1)
	ask := make(chan struct{})
	logged := make(chan *client, 1)
	go func() {
		c, err := d.connect(candidateAt.String(), ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			<-ask
			return []ssh.Signer{d.keys["key"]}, nil
		}))
		if err != nil {
			t.Error(err)
		}
		logged <- c
	}()
	s.wants(t, "a key is to be shown", 2)
	silent.Close()
	s.wants(t, "one has hung up", 1)
	begun, err := s.undecided(t.Context(), candidates)
	if err != nil || len(begun) != 1 {
		t.Fatal(begun, err)
	}
	close(ask)
	c := <-logged
	if c == nil {
		return
	}
	s.wants(t, "it is let in, and does nothing", 0)
	c.forwards()
	s.wants(t, "it forwards", 0)
	c.runs("echo; sleep 600")
	s.wants(t, "it has a session", 0)
	if _, err := d.connect(candidateAt.String(), ssh.PublicKeys(newSSHKey(t))); err == nil {
		t.Error("a key that nobody has is let in")
	}
	s.wants(t, "one is refused", 0)
	if !c.alive() {
		t.Error("the session has ended")
	}
}

// TestUndecidedAtTheDoor: what sshd has not accepted yet counts, and so does what
// is served by anything that does not tell.
func TestUndecidedAtTheDoor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := newSweeper(t, l)
	s.local = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	tcp(t, candidateAt, l.Addr().String())
	s.wants(t, "it is not accepted", 1)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.wants(t, "it is served by no sshd", 1)
	s.local = []netip.Addr{netip.MustParseAddr("127.66.0.77")}
	s.wants(t, "it is to another node of this machine", 0)
}

// TestUndecidedElsewhere: an sshd of this machine on another port or network
// counts as well, before the login.
func TestUndecidedElsewhere(t *testing.T) {
	s := newSweeper(t, nil)
	found := func(cmd *exec.Cmd) bool {
		t.Helper()
		list, err := s.processes()
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.undecided(t.Context(), candidates)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list, func(p process) bool { return p.pid == cmd.Process.Pid })
		return all[list[i].id()]
	}
	titled := func(title string) *exec.Cmd {
		cmd := &exec.Cmd{Path: "/bin/cat", Args: []string{title}}
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
		return cmd
	}
	before, after := titled("sshd: alice [net]"), titled("sshd: alice@pts/0")
	if !found(before) || found(after) {
		t.Errorf("before the login %v, after it %v", found(before), found(after))
	}
	s.local = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	if found(before) {
		t.Error("of another node on this machine it counts, too")
	}
}

func TestDecided(t *testing.T) {
	for titles, want := range map[string][2]bool{
		"":                                   {false, false},
		"sshd: [accepted]":                   {false, false},
		"sshd: [net]":                        {false, false},
		"sshd: root [priv]|sshd: root [net]": {false, false},
		"sshd: unknown [priv]|sshd: unknown [net]":                 {false, false},
		"sshd: root [pam]":                                         {false, false},
		"sshd: root [priv]":                                        {true, false},
		"sshd: root":                                               {true, false},
		"sshd: root@pts/0":                                         {true, true},
		"sshd: root@notty":                                         {true, true},
		"sshd: bob [priv]|sshd: bob@pts/1":                         {true, true},
		"sshd-session: root@notty":                                 {true, true},
		"sshd-session: root [priv]|sshd-session: root [net]":       {false, false},
		"sshd-session: root [priv]|sshd-auth: root [net]":          {false, false},
		"sshd-session: [accepted]|sshd-auth: [session-auth early]": {false, false},
		"sshd-session: root [priv]|sshd-auth: root":                {false, false},
		"sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups":  {false, false},
		"sshd: something [else]":                                   {false, false},
	} {
		var serve []process
		for _, title := range strings.Split(titles, "|") {
			if title != "" {
				serve = append(serve, process{title: title})
			}
		}
		if got, sure := decided(serve); got != want[0] || got && sure != want[1] {
			t.Errorf("%q: %v, %v", titles, got, sure)
		}
	}
}

// TestSSHConnects: an ssh counts until it has connected to a sshd, and so does
// none that another account runs, or that is no ssh.
func TestSSHConnects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	s, me := newSweeper(t, l), os.Getuid()
	// Other tests run ssh on this machine as well.
	counts := func(uid int, cmd *exec.Cmd) bool {
		found, err := s.connecting(uid, []uint16{port})
		if err != nil {
			t.Fatal(err)
		}
		for id := range found {
			if strings.HasPrefix(id, fmt.Sprintf("process %d of ", cmd.Process.Pid)) {
				return true
			}
		}
		return false
	}
	program := filepath.Join(t.TempDir(), "ssh")
	text, err := os.ReadFile("/bin/sleep")
	if err == nil {
		err = os.WriteFile(program, text, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(program string, files ...*os.File) *exec.Cmd {
		cmd := &exec.Cmd{Path: program, Args: []string{"ssh", "600"}, ExtraFiles: files}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	other := run("/bin/sleep")
	f, err := tcp(t, candidateAt, l.Addr().String()).(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	connected, waits := run(program, f), run(program)
	if counts(me, other) || counts(me, connected) {
		t.Error("one counts that has connected, or is no ssh")
	}
	if !counts(me, waits) {
		t.Error("one that is about to connect does not count")
	}
	if counts(me+1, waits) {
		t.Error("it counts for another account")
	}
	_ = waits.Process.Kill()
	_ = waits.Wait()
	if counts(me, waits) {
		t.Error("it counts when it has ended")
	}
}

// TestSettle: only what the first look finds is waited for, so that no end of
// new logins makes it longer.
func TestSettle(t *testing.T) {
	looks := 0
	settled, err := settle(t.Context(), patience, func() (map[string]bool, error) {
		looks++
		found := map[string]bool{fmt.Sprint("login ", looks): true}
		if looks < 4 {
			found["old"] = true
		}
		return found, nil
	})
	if !settled || err != nil || looks != 4 {
		t.Errorf("%v, %v after %d looks", settled, err, looks)
	}
	for _, wait := range []time.Duration{-time.Second, 0, 3 * settlePause} {
		settled, err = settle(t.Context(), wait, func() (map[string]bool, error) { return map[string]bool{"old": true}, nil })
		if settled || err != nil {
			t.Errorf("within %s: %v, %v", wait, settled, err)
		}
	}
	blind := errors.New("nothing can be seen")
	if settled, err = settle(t.Context(), patience, func() (map[string]bool, error) { return nil, blind }); settled || !errors.Is(err, blind) {
		t.Errorf("%v, %v", settled, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	settled, err = settle(ctx, patience, func() (map[string]bool, error) { cancel(); return map[string]bool{"old": true}, nil })
	if settled || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", settled, err)
	}
}

// TestSettleByMap: a node answers by the map that is asked about, or a newer one,
// and not by one that it has yet to hear of.
func TestSettleByMap(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	id := first.member().id.Node
	w.mustPush(id)
	caller := w.caller(first.masterd.certificate)
	for _, clients := range []bool{false, true} {
		at := first.member().keeper.View().At()
		req := rpc.SSHSettleRequest{Version: at, Clients: clients, WaitMS: patience.Milliseconds()}
		var reply rpc.SSHSettleReply
		if err := caller.Call(t.Context(), nodedOf(id), rpc.MethodSSHSettle, "", req, &reply); err != nil || !reply.Settled {
			t.Errorf("clients %v: %+v, %v", clients, reply, err)
		}
		req.Version.Version++
		wantCode(t, "a map to come", caller.Call(t.Context(), nodedOf(id), rpc.MethodSSHSettle, "", req, &reply), cluster.CodeConflict)
	}
}
