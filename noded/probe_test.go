package noded

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// TestG1ProbeIsRefused: a node that is no candidate attempts to read what only
// candidates may, and to log in with a stranger's key, and tells the truth about
// the answers.
func TestG1ProbeIsRefused(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	second := joined(t, w)
	to, from := first.member().id.Node, second.member().id.Node
	w.mustPush(to)
	w.mustPush(from)
	var reply rpc.ProbeReply
	if err := w.call(from, rpc.MethodProbe, "", rpc.ProbeRequest{Calls: []cluster.NodeID{to, {9}}, Logins: []cluster.NodeID{{9}}}, &reply); err != nil {
		t.Fatal(err)
	}
	if c := reply.Calls[0]; c.Node != to || c.Identity != cluster.CodeNotInMap || c.Nothing != cluster.CodeNoCertificate || c.Error != "" {
		t.Errorf("%+v", c)
	}
	if c := reply.Calls[1]; c.Identity == rpc.ProbeServed || c.Nothing == rpc.ProbeServed || c.Error == "" {
		t.Errorf("a node that there is not: %+v", c)
	}
	if l := reply.Logins[0]; l.Outcome != rpc.LoginUndecided || l.Error == "" {
		t.Errorf("a node that there is not: %+v", l)
	}
	caller := w.caller(second.member().certs[identityPair].tls)
	wantCode(t, "a node asks", caller.Call(t.Context(), nodedOf(to), rpc.MethodProbe, "", rpc.ProbeRequest{}, nil), cluster.CodeNotInMap)
}

func TestProbeIsBounded(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	id := first.member().id.Node
	err := w.call(id, rpc.MethodProbe, "", rpc.ProbeRequest{Logins: make([]cluster.NodeID, rpc.MaxProbeTargets+1)}, nil)
	wantCode(t, "too many", err, cluster.CodeTooLarge)
	err = w.call(id, rpc.MethodProbe, "", map[string]any{"calls": []string{}, "logins": []string{}, "command": "x"}, nil)
	wantCode(t, "unknown field", err, cluster.CodeBadFormat)
}

func TestProbeStranger(t *testing.T) {
	t.Parallel()
	host := newSSHKey(t)
	closed := sshServer(t, host, cluster.SSHKey{})
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hangUp := make(chan struct{})
	go func() {
		defer close(hangUp)
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { silent.Close(); <-hangUp })
	target := func(at netip.AddrPort, keys ...cluster.SSHKey) rpc.SSHTarget {
		return rpc.SSHTarget{Address: at.Addr(), Port: at.Port(), Keys: keys}
	}
	key, other := sshkeys.KeyOf(host.PublicKey()), sshkeys.KeyOf(newSSHKey(t).PublicKey())
	open := openSSHServer(t, host)
	for _, c := range []struct {
		name string
		to   rpc.SSHTarget
		want rpc.LoginOutcome
		text string
	}{
		{"closed", target(closed, key), rpc.LoginRefused, ""},
		{"open to all", target(open, key), rpc.LoginAdmitted, ""},
		{"another host", target(closed, other), rpc.LoginUndecided, "not in the roster"},
		{"hangs up", target(silent.Addr().(*net.TCPAddr).AddrPort(), key), rpc.LoginUndecided, "log in"},
		{"nobody listens", target(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 1), key), rpc.LoginCutOff, "connect"},
		{"no host key", target(closed), rpc.LoginUndecided, "no host key"},
	} {
		got, err := probeStranger(t.Context(), c.to, "root", netip.Addr{})
		if got != c.want || (c.text == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %s, %v; want %s, %q", c.name, got, err, c.want, c.text)
		}
	}
}

// TestStrangeLoginsAreRare: a target sees at most one failing login in 15 s.
func TestStrangeLoginsAreRare(t *testing.T) {
	var s strangeLogins
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	attempts := 0
	out := rpc.LoginRefused
	attempt := func() (rpc.LoginOutcome, error) {
		attempts++
		if p := s.login(cluster.NodeID{1}, now, nil); p.Outcome != rpc.LoginUndecided {
			t.Errorf("while one is under way: %+v", p)
		}
		return out, nil
	}
	for _, c := range []struct {
		after time.Duration
		want  int
		age   int
	}{{0, 1, 0}, {0, 1, 1}, {time.Second, 1, 1}, {13 * time.Second, 1, 14}, {time.Second, 2, 0}, {14 * time.Second, 2, 14}} {
		now = now.Add(c.after)
		if p := s.login(cluster.NodeID{1}, now, attempt); attempts != c.want || p.Outcome != rpc.LoginRefused || p.AgeSeconds != c.age {
			t.Errorf("after %s: %d attempts, %+v", c.after, attempts, p)
		}
	}
	now, out = now.Add(loginPause), rpc.LoginUndecided
	s.login(cluster.NodeID{1}, now, attempt)
	s.login(cluster.NodeID{1}, now, attempt)
	if attempts != 4 || len(s.last) != 0 {
		t.Errorf("what cost the target nothing is remembered: %d attempts, %v", attempts, s.last)
	}
}
