package noded

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/sshkeys"
)

// A root sshd wants an account "sshd" and /run/sshd, and here root has a
// password. A mount namespace of its own gives it that and its own /tmp, as that
// of noded's unit differs from sshd's, and touches nothing outside. An sshd that
// was unpacked below /tmp stays where it is.
const (
	asRoot = `mount --make-rprivate / && mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/shadow" /etc/shadow && ` +
		`mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd /run/test /run/own && mount --bind "$1" /run/test && mount --bind "$2" /run/own && ` +
		`mount --bind /run/test/tmp /tmp && { [ -d "$2" ] || mkdir -p "$2" && mount --bind /run/own "$2"; } && shift 2 && exec "$@"`

	password   = "secret" // its hash:
	passwdHash = "$6$rolekey$5ErMXs31bx9hpAz93dzqQ6QHhPu5OYuLCEIPKX7dpyqy/BLcj6h8Q4AbXZp9JxFHZYtrfJChu5LnCKr1bdfKW/"
)

// realSSHD is an sshd of this account.
type realSSHD struct {
	t       *testing.T
	dir     string
	account string
	addr    netip.AddrPort
	keys    map[string]ssh.Signer
}

// startSSHD runs a real sshd that listens at the address, or skips. It lets in
// the keys of these names.
func startSSHD(t *testing.T, addr string, options string, keys ...string) *realSSHD {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	d := &realSSHD{t: t, dir: t.TempDir(), account: me.Username, keys: map[string]ssh.Signer{}}
	l, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(addr), 0).String())
	if err != nil {
		t.Skip("SKIP: cannot listen at "+addr+":", err)
	}
	d.addr = l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	var lines []string
	for _, name := range keys {
		d.keys[name] = newSSHKey(t)
		lines = append(lines, string(ssh.MarshalAuthorizedKey(d.keys[name].PublicKey())))
	}
	there := d.dir // as sshd sees it
	if os.Geteuid() == 0 {
		there = "/run/test"
	}
	if err := os.Mkdir(filepath.Join(d.dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	host := sshkeys.KeyDir{Path: filepath.Join(d.dir, "host")}
	if _, _, err := host.Ensure(cluster.NewUUID()); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"authorized_keys": strings.Join(lines, ""),
		"passwd":          "root:x:0:0::" + there + ":/bin/sh\nsshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n",
		"shadow":          "root:" + passwdHash + ":19000:0:99999:7:::\n",
		"config": fmt.Sprintf("ListenAddress %s\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\n%s\n",
			d.addr, filepath.Join(there, "host", "id"), filepath.Join(there, "authorized_keys"), options),
	} {
		write(t, filepath.Join(d.dir, name), []byte(text))
	}
	if err := os.Chmod(filepath.Join(d.dir, "passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.run()
	return d
}

// command runs sshd with more arguments.
func (d *realSSHD) command(more ...string) *exec.Cmd {
	d.t.Helper()
	program := ""
	for _, p := range []string{os.Getenv("ROLEKEY_SSHD"), defaultSSHD, "../.cache/openssh/bin/sshd"} {
		if _, err := sshkeys.ProbeSSHD(d.t.Context(), p); p != "" && err == nil {
			program, _ = filepath.Abs(p)
			break
		}
	}
	if program == "" {
		d.t.Skip("SKIP: no sshd that runs; set ROLEKEY_SSHD")
	}
	args := append([]string{program, "-e", "-f", filepath.Join(d.dir, "config")}, more...)
	if os.Geteuid() == 0 {
		args[3] = "/run/test/config"
		args = append([]string{"unshare", "--mount", "sh", "-c", asRoot, "sh", d.dir, filepath.Dir(filepath.Dir(program))}, args...)
	}
	return exec.Command(args[0], args[1:]...)
}

func (d *realSSHD) run() {
	d.t.Helper()
	cmd := d.command("-D")
	out, err := cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Skip("SKIP:", err)
	}
	ready, done := make(chan struct{}), make(chan struct{})
	var log []string
	go func() {
		defer close(done)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			if log = append(log, scan.Text()); strings.HasPrefix(scan.Text(), "Server listening on") {
				close(ready)
			}
		}
	}()
	d.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-done // every session has ended, too
		_ = cmd.Wait()
		if d.t.Failed() {
			d.t.Logf("sshd:\n%s", strings.Join(log, "\n"))
		}
	})
	select {
	case <-ready:
	case <-done:
		d.t.Skipf("SKIP: sshd does not run here: %s", strings.Join(log, "; "))
	}
}

// inetd accepts connections of IPv4 on a socket of IPv6, as systemd's ssh.socket
// does, and has an sshd serve each. It returns its port.
func (d *realSSHD) inetd() uint16 {
	d.t.Helper()
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		d.t.Skip("SKIP: no IPv6:", err)
	}
	served := make(chan struct{})
	d.t.Cleanup(func() { l.Close(); <-served })
	go func() {
		defer close(served)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		f, err := conn.(*net.TCPConn).File()
		conn.Close()
		if err == nil {
			cmd := d.command("-i")
			cmd.Stdin, cmd.Stdout = f, f
			_ = cmd.Start()
			f.Close()
			_ = cmd.Wait()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// sweeper ends sessions of this sshd.
func (d *realSSHD) sweeper() *sessions {
	s := newSweeper(d.t, nil)
	s.sshd = func(context.Context) (sshd, error) { return sshd{d.account, os.Getuid(), d.addr.Port()}, nil }
	return s
}

// public returns a key as the map has it.
func (d *realSSHD) public(name string) cluster.SSHKey { return sshkeys.KeyOf(d.keys[name].PublicKey()) }

// connect logs in from the address, by a key or with the password.
func (d *realSSHD) connect(from string, how ssh.AuthMethod) (*client, error) {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	conn, err := dialer.DialContext(d.t.Context(), "tcp", d.addr.String())
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(func() { conn.Close() })
	c, chans, reqs, err := ssh.NewClientConn(conn, d.addr.String(), &ssh.ClientConfig{
		User: d.account, Auth: []ssh.AuthMethod{how}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return nil, err
	}
	out := &client{t: d.t, Client: ssh.NewClient(c, chans, reqs), ended: make(chan struct{})}
	go func() {
		defer close(out.ended)
		_ = out.Wait()
	}()
	return out, nil
}

func (d *realSSHD) login(from, key string) *client {
	d.t.Helper()
	how := ssh.Password(password)
	if key != "" {
		how = ssh.PublicKeys(d.keys[key])
	}
	c, err := d.connect(from, how)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// client is the other end of a connection.
type client struct {
	*ssh.Client
	t     *testing.T
	ended chan struct{}
}

// runs starts a command, which tells when it is there, and returns what it said.
func (c *client) runs(command string) string {
	c.t.Helper()
	s, err := c.NewSession()
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := s.StdinPipe(); err != nil { // it ends with the connection
		c.t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := s.Start(command); err != nil {
		c.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		c.t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(line)
}

// forwards has a connection forwarded, and no session.
func (c *client) forwards() {
	c.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { l.Close() })
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = io.WriteString(conn, "x")
			c.t.Cleanup(func() { conn.Close() })
		}
	}()
	conn, err := c.Dial("tcp", l.Addr().String())
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		c.t.Fatal(err)
	}
}

// alive asks the other end.
func (c *client) alive() bool {
	_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
	return err == nil
}

// dies waits for the end.
func (c *client) dies() bool {
	select {
	case <-c.ended:
		return true
	case <-time.After(patience):
		return false
	}
}
