package noded

import (
	"context"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/sshkeys"
)

// Where the sessions of these tests come from.
const (
	lostAddr  = "127.66.0.1" // of the node that lost its authorization
	otherAddr = "127.66.0.2"
	wait      = "echo ready; exec cat" // until its input ends
)

func prefixes(addrs ...string) (list []netip.Prefix) {
	for _, a := range addrs {
		p, _ := netip.MustParseAddr(a).Prefix(netip.MustParseAddr(a).BitLen())
		list = append(list, p)
	}
	return list
}

// TestG4RealSessions opens sessions of all kinds on a real sshd, and then takes
// the authorization of one key and its node's address away. "peer" is the key of
// another candidate, "shared" one that the node had in common with it.
func TestG4RealSessions(t *testing.T) {
	asks := map[bool]string{true: "ExposeAuthInfo yes", false: "ExposeAuthInfo no"}
	for name, c := range map[string]struct {
		hides bool // sshd does not tell keys
		from  string
		key   string // "": the password
		does  func(c *client)
		stays bool
	}{
		"revoked key":                         {from: lostAddr, key: "lost", does: runs(wait)},
		"revoked key, sshd does not tell":     {hides: true, from: lostAddr, key: "lost", does: runs(wait)},
		"revoked key from elsewhere":          {from: otherAddr, key: "lost", does: runs(wait)},
		"the same, sshd does not tell":        {hides: true, from: otherAddr, key: "lost", does: runs(wait), stays: true},
		"many channels":                       {from: lostAddr, key: "lost", does: many},
		"many channels from elsewhere":        {from: otherAddr, key: "lost", does: many},
		"no channel":                          {from: lostAddr, key: "lost", does: func(*client) {}},
		"forwarding without a session":        {from: lostAddr, key: "lost", does: (*client).forwards},
		"the same, sshd does not tell ":       {hides: true, from: lostAddr, key: "lost", does: (*client).forwards},
		"administrator's key":                 {from: lostAddr, key: "admin", does: runs(wait), stays: true},
		"administrator's key, many channels":  {from: lostAddr, key: "admin", does: many, stays: true},
		"administrator's password":            {from: lostAddr, does: runs(wait), stays: true},
		"administrator from elsewhere":        {from: otherAddr, key: "admin", does: runs(wait), stays: true},
		"the same, sshd does not tell  ":      {hides: true, from: otherAddr, key: "admin", does: runs(wait), stays: true},
		"administrator, sshd does not tell":   {hides: true, from: lostAddr, key: "admin", does: runs(wait)},
		"administrator without a session":     {from: lostAddr, key: "admin", does: (*client).forwards},
		"administrator hides the variable":    {from: lostAddr, key: "admin", does: runs("exec env -u SSH_USER_AUTH sh -c '" + wait + "'")},
		"other candidate":                     {from: otherAddr, key: "peer", does: runs(wait), stays: true},
		"other candidate's key from here":     {from: lostAddr, key: "peer", does: runs(wait)},
		"shared key from the node":            {from: lostAddr, key: "shared", does: runs(wait)},
		"shared key from another":             {from: otherAddr, key: "shared", does: runs(wait), stays: true},
		"key that nobody authorizes any more": {from: lostAddr, key: "gone", does: runs(wait)},
		"rewritten statement":                 {from: lostAddr, key: "lost", does: runs(`sleep .2; printf 'password\n' > $SSH_USER_AUTH; echo ready; exec cat`)},
		"statement of its own": {from: lostAddr, key: "gone", does: runs(
			`sleep .2; rm $SSH_USER_AUTH; umask 077; printf 'password\n' > $SSH_USER_AUTH; echo ready; exec cat`)},
		"statement elsewhere": {from: lostAddr, key: "gone", does: runs(
			`printf 'password\n' > "$HOME/fake"; SSH_USER_AUTH="$HOME/fake" exec sh -c '` + wait + "'")},
	} {
		t.Run(strings.TrimSpace(name), func(t *testing.T) {
			t.Parallel()
			if c.key == "" && os.Geteuid() != 0 {
				t.Skip("SKIP: only root can make an sshd that asks for passwords")
			}
			d := startSSHD(t, "127.0.0.1", asks[!c.hides], "lost", "admin", "peer", "shared", "gone")
			one := d.login(c.from, c.key)
			c.does(one)
			s := d.sweeper()
			s.admits = d.admits
			s.add(revocation{From: prefixes(lostAddr), Keys: []string{keyText(d.public("lost"))}})
			if err := s.settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			switch {
			case c.stays && !one.alive():
				t.Error("the session was ended")
			case !c.stays && !one.dies():
				t.Error("the session goes on")
			}
			// sshd was killed, and cannot clean up. Its /tmp is ours where root runs it.
			if left, _ := filepath.Glob(filepath.Join(d.dir, "tmp", "sshauth.*")); name == "revoked key" && len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func runs(command string) func(*client) { return func(c *client) { c.runs(command) } }

func many(c *client) {
	for range 4 {
		c.runs(wait)
	}
	c.forwards()
}

// admits is who may log in once node "lost" has lost its authorization.
func (d *realSSHD) admits(context.Context) access {
	return access{
		ours:    []sshkeys.Authorized{{Node: cluster.NewUUID(), Keys: []cluster.SSHKey{d.public("peer"), d.public("shared")}, From: prefixes(otherAddr)}},
		foreign: []cluster.SSHKey{d.public("admin")},
	}
}

// TestG4BorrowedStatement: a session that points to the statement of another
// one is not spared for it.
func TestG4BorrowedStatement(t *testing.T) {
	t.Parallel()
	d := startSSHD(t, "127.0.0.1", "ExposeAuthInfo yes", "gone", "admin")
	admin := d.login(otherAddr, "admin")
	file := admin.runs("echo $SSH_USER_AUTH; exec cat")
	thief := d.login(lostAddr, "gone")
	thief.runs("SSH_USER_AUTH=" + file + " exec sh -c '" + wait + "'")
	s := d.sweeper()
	s.admits = func(context.Context) access { return access{foreign: []cluster.SSHKey{d.public("admin")}} }
	s.add(revocation{From: prefixes(lostAddr)})
	if err := s.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !thief.dies() || !admin.alive() {
		t.Error("the thief goes on, or the administrator does not")
	}
}

// TestG4LoginUnderWay: a login that has passed the key check and not finished
// when its key is revoked never becomes a session.
func TestG4LoginUnderWay(t *testing.T) {
	t.Parallel()
	d := startSSHD(t, "127.0.0.1", "ExposeAuthInfo yes", "lost")
	held := heldSigner{d.keys["lost"], make(chan struct{}), make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := d.connect(lostAddr, ssh.PublicKeys(held))
		ended <- err
	}()
	<-held.asked // sshd has said that it would take the key
	s := d.sweeper()
	s.add(revocation{From: prefixes(lostAddr), Keys: []string{keyText(d.public("lost"))}})
	if err := s.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(held.signs)
	if err := <-ended; err == nil {
		t.Error("the login went through")
	}
}

// TestG4RealIPv4Mapped: on a socket of IPv6 for both sshd sees IPv4 in it.
func TestG4RealIPv4Mapped(t *testing.T) {
	t.Parallel()
	d := startSSHD(t, "127.0.0.1", "ExposeAuthInfo yes", "lost")
	d.addr = netip.AddrPortFrom(d.addr.Addr(), d.inetd())
	one := d.login(lostAddr, "lost") // no channel: the address tells
	s := d.sweeper()
	s.add(revocation{From: prefixes(lostAddr)})
	if err := s.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !one.dies() {
		t.Error("the session goes on")
	}
}

// TestG4ControlMaster ends connections of ssh(1) that many sessions share, or
// that wait for some.
func TestG4ControlMaster(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("SKIP: no ssh")
	}
	d := startSSHD(t, "127.0.0.1", "", "lost")
	id := filepath.Join(d.dir, "id")
	dir := sshkeys.KeyDir{Path: d.dir}
	pub, _, err := dir.Ensure(cluster.NewUUID())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePublicKey(pub.Blob)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(d.dir, "authorized_keys"), ssh.MarshalAuthorizedKey(key))
	start := func(socket string, args ...string) *exec.Cmd {
		cmd := exec.Command(program, append([]string{
			"-F", "none", "-i", id, "-b", lostAddr, "-p", strconv.Itoa(int(d.addr.Port())), "-S", filepath.Join(d.dir, socket),
			"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
		}, args...)...)
		return cmd
	}
	host := d.account + "@127.0.0.1"
	// With ControlPersist ssh goes to the background once it is connected.
	for _, socket := range []string{"idle", "busy"} {
		if out, err := start(socket, "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", host, "true").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var channels []*exec.Cmd
	for range 3 {
		cmd := start("busy", host, wait)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close() })
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		channels = append(channels, cmd)
	}
	s := d.sweeper()
	s.add(revocation{From: prefixes(lostAddr)})
	if err := s.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range channels {
		if err := cmd.Wait(); err == nil {
			t.Error("a channel ended well")
		}
	}
	for _, socket := range []string{"idle", "busy"} {
		gone := start(socket, "-O", "check", host)
		for tick := time.NewTicker(20 * time.Millisecond); gone.Run() == nil; gone = start(socket, "-O", "check", host) {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatal("the master of " + socket + " goes on")
			}
		}
	}
}

// TestG4WhoMayLogIn: what can spare a session are the map's keys from their
// addresses until they expire, and keys in lines of others that no map has taken
// away.
func TestG4WhoMayLogIn(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	second := joined(t, w)
	w.promote(second, true)
	m := first.member()
	w.mustPush(m.id.Node)
	lost, _ := second.d.keys.load(nil)
	own, _ := first.d.keys.load(nil)
	admin := sshkeys.KeyOf(newSSHKey(t).PublicKey())
	file := first.cfg.SSH.AuthorizedKeys
	text := first.authorizedKeys() + "# a comment\nfrom=\"192.0.2.0/24\",restrict " + keyLine(admin) + "\n" + keyLine(*lost) + "\n"
	write(t, file, []byte(text))
	check := func(when string, want map[string]bool) {
		t.Helper()
		a := m.ssh.access(t.Context(), m.keeper.View())
		for name, c := range map[string]struct {
			key  cluster.SSHKey
			from netip.Addr
		}{
			"admin": {admin, second.addr()}, "own": {*own, first.addr()}, "own from another": {*own, second.addr()},
			"lost": {*lost, second.addr()}, "unknown": {sshkeys.KeyOf(newSSHKey(t).PublicKey()), first.addr()},
		} {
			if got := a.lets(c.key, c.from); got != want[name] {
				t.Errorf("%s: %s: %v", when, name, got)
			}
		}
	}
	check("before", map[string]bool{"admin": true, "own": true, "lost": true})
	w.demote(second.member().id.Node)
	w.mustPush(m.id.Node)
	check("after", map[string]bool{"admin": true, "own": true})
	m.ssh.mu.Lock()
	m.ssh.until = m.cfg.now().Add(-time.Second)
	m.ssh.mu.Unlock()
	check("expired", map[string]bool{"admin": true})
}

func keyLine(k cluster.SSHKey) string { return k.Type + " " + keyText(k) }

// heldSigner signs once it may.
type heldSigner struct {
	ssh.Signer
	asked, signs chan struct{}
}

func (h heldSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	close(h.asked)
	<-h.signs
	return h.Signer.Sign(rand, data)
}
