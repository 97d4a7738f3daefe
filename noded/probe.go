package noded

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// loginPause is how long a node waits before it fails to log in to one target
// again: newer sshd shuts out an address after a few failures.
const loginPause = 15 * time.Second

// serveProbe attempts what other nodes must refuse to this one, and tells what
// they did. Where they are and how to know them says this node's own roster.
func (m *member) serveProbe(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.ProbeRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	if len(req.Calls) > rpc.MaxProbeTargets || len(req.Logins) > rpc.MaxProbeTargets {
		return nil, cluster.Errorf(cluster.CodeTooLarge, "at most %d targets in one probe", rpc.MaxProbeTargets)
	}
	stranger, err := rpc.NewClient(rpc.ClientConfig{
		Roots: m.caRoots, View: m.keeper.View, Hints: m.hints.of, LocalAddr: m.cfg.bindAddress(), Dial: m.cfg.Dial, Log: m.log,
	})
	if err != nil {
		return nil, err
	}
	ctx = rpc.WithRequestID(ctx, q.ID)
	reply := rpc.ProbeReply{Calls: make([]rpc.ProbedCall, len(req.Calls)), Logins: make([]rpc.ProbedLogin, len(req.Logins))}
	slots := make(chan struct{}, probesAtOnce)
	var wg sync.WaitGroup
	turn := func(f func()) {
		slots <- struct{}{}
		wg.Go(func() { defer func() { <-slots }(); f() })
	}
	for i, id := range req.Calls {
		turn(func() { reply.Calls[i] = m.probeCall(ctx, stranger, id) })
	}
	for i, id := range req.Logins {
		turn(func() { reply.Logins[i] = m.probeLogin(ctx, id) })
	}
	wg.Wait()
	return reply, stranger.Close()
}

// probeCall reads a node's state as somebody who may not. What it is told, if it
// is told anything, is thrown away.
func (m *member) probeCall(ctx context.Context, stranger *rpc.Client, id cluster.NodeID) rpc.ProbedCall {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	p := rpc.ProbedCall{Node: id}
	attempt := func(c *rpc.Client) cluster.Code {
		err := c.Call(ctx, nodedOf(id), rpc.MethodState, "", nil, new([]byte))
		if err == nil {
			return rpc.ProbeServed
		}
		code := cluster.CodeOf(err)
		if code != cluster.CodeNotInMap && code != cluster.CodeNoCertificate {
			p.Error = oneLine(err)
		}
		return code
	}
	p.Identity, p.Nothing = attempt(m.client), attempt(stranger)
	return p
}

func (m *member) probeLogin(ctx context.Context, id cluster.NodeID) rpc.ProbedLogin {
	var entry *candmap.RosterNode
	if r := m.keeper.View().Roster; r != nil {
		entry = r.Node(id)
	}
	if entry == nil {
		return rpc.ProbedLogin{Node: id, Outcome: rpc.LoginUndecided, Error: "this node's roster does not list it"}
	}
	set, err := m.ssh.finder.get(ctx)
	if err != nil {
		return rpc.ProbedLogin{Node: id, Outcome: rpc.LoginUndecided, Error: oneLine(err)}
	}
	return m.strange.login(id, m.cfg.now(), func() (rpc.LoginOutcome, error) {
		t := rpc.SSHTarget{Node: id, Name: entry.Name, Address: entry.Addresses[0], Port: entry.Ports.SSH, Keys: entry.HostKeys}
		return probeStranger(ctx, t, set.account.Name, m.cfg.bindAddress())
	})
}

// probeStranger offers a key that nobody has seen before.
func probeStranger(ctx context.Context, t rpc.SSHTarget, user string, from netip.Addr) (rpc.LoginOutcome, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return rpc.LoginUndecided, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return rpc.LoginUndecided, err
	}
	asked := false // sshd has shown its host key and wants a public key
	err = probeWith(ctx, t, user, from, ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
		asked = true
		return []ssh.Signer{signer}, nil
	}))
	switch {
	case err == nil:
		return rpc.LoginAdmitted, nil
	case asked && strings.Contains(err.Error(), "unable to authenticate"):
		return rpc.LoginRefused, nil
	case strings.Contains(err.Error(), "unable to authenticate"):
		return rpc.LoginUndecided, errors.New("its sshd takes no public keys from root")
	}
	if strings.HasPrefix(err.Error(), "connect: ") {
		return rpc.LoginCutOff, err
	}
	return rpc.LoginUndecided, err
}

// strangeLogins remembers failed logins, so that none is repeated too soon.
type strangeLogins struct {
	mu   sync.Mutex
	last map[cluster.NodeID]strangeLogin
}

type strangeLogin struct {
	at  time.Time
	out rpc.LoginOutcome // empty while it is under way
}

// login attempts one unless there was one a moment ago, of which it tells then.
func (s *strangeLogins) login(id cluster.NodeID, now time.Time, attempt func() (rpc.LoginOutcome, error)) rpc.ProbedLogin {
	if p, known := s.begin(id, now); known {
		return p
	}
	out, err := attempt()
	s.end(id, now, out)
	p := rpc.ProbedLogin{Node: id, Outcome: out}
	if err != nil {
		p.Error = oneLine(err)
	}
	return p
}

func (s *strangeLogins) begin(id cluster.NodeID, now time.Time) (p rpc.ProbedLogin, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, l := range s.last {
		if l.out != "" && now.Sub(l.at).Abs() >= loginPause {
			delete(s.last, other)
		}
	}
	switch l, ok := s.last[id]; {
	case !ok:
	case l.out == "":
		return rpc.ProbedLogin{Node: id, Outcome: rpc.LoginUndecided, Error: "another attempt is under way"}, true
	default: // rounded up: it was not now
		age := max(now.Sub(l.at).Abs(), 1)
		return rpc.ProbedLogin{Node: id, Outcome: l.out, AgeSeconds: int((age + time.Second - 1) / time.Second)}, true
	}
	if s.last == nil {
		s.last = map[cluster.NodeID]strangeLogin{}
	}
	s.last[id] = strangeLogin{at: now}
	return rpc.ProbedLogin{}, false
}

// end keeps what cost the target's sshd a failure.
func (s *strangeLogins) end(id cluster.NodeID, at time.Time, out rpc.LoginOutcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if out == rpc.LoginRefused {
		s.last[id] = strangeLogin{at, out}
	} else {
		delete(s.last, id)
	}
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// probeWith authenticates to one sshd, which must show one of the host keys that
// the roster lists, and opens no session.
func probeWith(ctx context.Context, t rpc.SSHTarget, user string, from netip.Addr, auth ssh.AuthMethod) error {
	if len(t.Keys) == 0 {
		return errors.New("the roster holds no host key of it")
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	to := netip.AddrPortFrom(t.Address, t.Port)
	var d net.Dialer
	if from.IsValid() && from.Is4() == t.Address.Is4() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	raw, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer raw.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := raw.SetDeadline(end); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	conn, _, _, err := ssh.NewClientConn(raw, to.String(), clientConfig(t, user, auth))
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	return conn.Close()
}
