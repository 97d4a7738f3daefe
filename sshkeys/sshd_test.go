package sshkeys

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rolekey/cluster"
)

// findSSHD returns the sshd to test against, or skips.
func findSSHD(t *testing.T) string {
	t.Helper()
	cached, err := filepath.Abs("../.cache/openssh/usr/sbin/sshd")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{os.Getenv("ROLEKEY_SSHD"), "/usr/sbin/sshd", cached} {
		if path == "" {
			continue
		}
		if _, err := ProbeSSHD(t.Context(), path); err != nil {
			continue
		}
		if _, err := exec.LookPath("ssh"); err != nil {
			t.Skip("SKIP: no ssh program for the test against a real sshd")
		}
		return path
	}
	t.Skip("SKIP: no sshd that runs; set ROLEKEY_SSHD, or unpack openssh-server and libwrap0 into .cache/openssh")
	return ""
}

// TestMain lets the libraries of an unpacked openssh-server be found.
func TestMain(m *testing.M) {
	dirs, _ := filepath.Glob("../.cache/openssh/*/lib/*")
	more, _ := filepath.Glob("../.cache/openssh/lib/*")
	for _, dir := range append(dirs, more...) {
		if abs, err := filepath.Abs(dir); err == nil && strings.HasSuffix(dir, "linux-gnu") {
			_ = os.Setenv("LD_LIBRARY_PATH", abs+":"+os.Getenv("LD_LIBRARY_PATH"))
		}
	}
	os.Exit(m.Run())
}

// A root sshd wants an account "sshd" and /run/sshd, and its root account a home
// that is ours. A mount namespace of its own gives it all that, and touches
// nothing outside.
const asRoot = `mount --make-rprivate / && mount --bind "$1" /etc/passwd && mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd && shift && exec "$@"`

// node is a node with a real sshd.
type node struct {
	t       *testing.T
	sshd    string
	dir     string // configuration
	account Account
	addr    netip.AddrPort
	hostKey cluster.SSHKey
	authKey File
	zone    string // TZ of sshd; "": the machine's

	mu  sync.Mutex
	log bytes.Buffer
}

// startNode runs sshd with StrictModes on. Its account's home is a folder with
// an awkward name beneath the real home: StrictModes would refuse /tmp.
func startNode(t *testing.T) *node {
	t.Helper()
	return startNodeIn(t, "")
}

func startNodeIn(t *testing.T, zone string) *node {
	t.Helper()
	n := &node{t: t, sshd: findSSHD(t), zone: zone}
	me := currentUser(t)
	base, err := os.MkdirTemp(me.HomeDir, ".rolekey-test-")
	if err != nil {
		t.Skip("SKIP: cannot make a folder beneath the home folder:", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	n.dir = filepath.Join(base, "d")
	n.account = Account{Name: me.Username, UID: os.Getuid(), GID: os.Getgid(), Home: filepath.Join(base, awkward)}
	mkdir(t, n.dir, 0o700)
	mkdir(t, n.account.Home, 0o755)
	n.addr = freePort(t)
	n.configure()
	n.authKey = File{Path: n.keyPath(), Account: n.account}
	n.run()
	return n
}

func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.77.0.5:0")
	if err != nil {
		t.Skip("SKIP: cannot listen on 127.77.0.5:", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func (n *node) configure() {
	hostKey := KeyDir{Path: filepath.Join(n.dir, "hostkey")}
	key, _, err := hostKey.Ensure(nodeA)
	if err != nil {
		n.t.Fatal(err)
	}
	n.hostKey = key
	text := fmt.Sprintf("ListenAddress %s\nHostKey %s\nStrictModes yes\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\nLogLevel VERBOSE\n",
		n.addr, hostKey.PrivateFile())
	if n.account.UID != 0 {
		text += fmt.Sprintf("AuthorizedKeysFile \"%s/.ssh/authorized_keys\"\n", strings.ReplaceAll(n.account.Home, "%", "%%"))
	}
	writeFile(n.t, n.config(), text)
	writeFile(n.t, n.passwd(), "root:x:0:0::"+n.account.Home+":/bin/sh\nsshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
	if err := os.Chmod(n.passwd(), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) config() string { return filepath.Join(n.dir, "sshd_config") }
func (n *node) passwd() string { return filepath.Join(n.dir, "passwd") }

// keyPath asks sshd where it reads the keys. Its answer does not quote, so that
// only root's default place below the home can be asked for.
func (n *node) keyPath() string {
	if n.account.UID != 0 {
		return filepath.Join(n.account.Home, ".ssh", "authorized_keys")
	}
	cmd := n.command("-T", "-f", n.config())
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Skipf("SKIP: cannot run sshd as root in a mount namespace: %v: %s", err, out)
	}
	path, err := Path(string(out), n.account)
	if err != nil {
		n.t.Fatal(err)
	}
	c := ParseConfig(string(out))
	if keys, err := c.HostKeys(); err != nil || len(keys) != 1 || string(keys[0].Blob) != string(n.hostKey.Blob) {
		n.t.Errorf("host keys from sshd -T: %v, %v", keys, err)
	}
	if !c.StrictModes || len(c.Port) == 0 {
		n.t.Errorf("sshd -T: %+v", c)
	}
	return path
}

func (n *node) command(args ...string) *exec.Cmd {
	args = append([]string{n.sshd}, args...)
	if n.account.UID == 0 {
		args = append([]string{"unshare", "--mount", "sh", "-c", asRoot, "sh", n.passwd()}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	if n.zone != "" {
		cmd.Env = append(os.Environ(), "TZ="+n.zone)
	}
	return cmd
}

// run starts sshd and returns once it says that it listens.
func (n *node) run() {
	n.t.Helper()
	cmd := n.command("-D", "-e", "-f", n.config())
	out, err := cmd.StderrPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan struct{})
	go n.keepLog(bufio.NewScanner(out), ready, done)
	n.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-done
		_ = cmd.Wait() // it was told to end
		if n.t.Failed() {
			n.t.Logf("sshd:\n%s", n.logText())
		}
	})
	select {
	case <-ready:
	case <-done:
		n.t.Fatalf("sshd ended:\n%s", n.logText())
	case <-time.After(30 * time.Second):
		n.t.Fatalf("sshd does not listen:\n%s", n.logText())
	}
}

func (n *node) keepLog(lines *bufio.Scanner, ready, done chan struct{}) {
	defer close(done)
	for lines.Scan() {
		n.mu.Lock()
		n.log.WriteString(lines.Text() + "\n")
		n.mu.Unlock()
		if strings.HasPrefix(lines.Text(), "Server listening on") && ready != nil {
			close(ready)
			ready = nil
		}
	}
}

func (n *node) logText() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.String()
}

const nodeName = "node5.example"

func (n *node) host(key cluster.SSHKey) Host {
	return Host{Node: nodeA, Name: nodeName, Addresses: []netip.Addr{n.addr.Addr()}, Port: n.addr.Port(), Keys: []cluster.SSHKey{key}}
}

// client is a candidate that logs in with plain "ssh node5.example".
type client struct {
	t      *testing.T
	config string
	key    cluster.SSHKey
	node   cluster.NodeID
	known  File
}

func newClient(n *node, id cluster.NodeID, bind string) *client {
	n.t.Helper()
	dir := filepath.Join(n.account.Home, id.String())
	keys := KeyDir{Path: filepath.Join(dir, "ssh keys")}
	key, _, err := keys.Ensure(id)
	if err != nil {
		n.t.Fatal(err)
	}
	c := &client{t: n.t, config: filepath.Join(dir, "config"), key: key, node: id}
	c.known = File{Path: filepath.Join(dir, "known hosts"), Account: n.account}
	c.trust(n.host(n.hostKey))
	cc := ClientConfig{LocalUser: n.account.Name, User: n.account.Name, Identities: []string{keys.PrivateFile()}, KnownHosts: c.known.Path, Bind: func(netip.Addr) netip.Addr { return netip.MustParseAddr(bind) }}
	text, err := cc.Render([]Host{n.host(n.hostKey)})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := WriteClientConfig(c.config, text); err != nil {
		n.t.Fatal(err)
	}
	return c
}

func (c *client) trust(h Host) {
	c.t.Helper()
	b, err := KnownHostsBlock(ourID, []Host{h})
	if err != nil {
		c.t.Fatal(err)
	}
	apply(c.t, c.known, b)
}

// login runs a command on dest and returns what ssh said.
func (c *client) login(dest string) error {
	cmd := exec.CommandContext(c.t.Context(), "ssh", "-F", c.config, "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", dest, "echo works")
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
	out, err := cmd.CombinedOutput()
	if err == nil && strings.TrimSpace(string(out)) != "works" {
		err = errors.New("no answer")
	}
	if err != nil {
		return fmt.Errorf("ssh %s: %w: %s", dest, err, out)
	}
	return nil
}

func (c *client) authorized(from string) Authorized {
	return Authorized{Node: c.node, Keys: []cluster.SSHKey{c.key}, From: []netip.Prefix{netip.MustParsePrefix(from)}}
}

func (c *client) opens(what string) {
	c.t.Helper()
	for _, dest := range []string{nodeName, "127.77.0.5"} {
		if err := c.login(dest); err != nil {
			c.t.Errorf("%s: %v", what, err)
		}
	}
}

func (c *client) refused(what, why string) {
	c.t.Helper()
	if err := c.login(nodeName); err == nil || !strings.Contains(err.Error(), why) {
		c.t.Errorf("%s: want a refusal with %q, got %v", what, why, err)
	}
}

// set makes the node authorize the list.
func (n *node) set(until time.Time, list ...Authorized) {
	n.t.Helper()
	v, err := ProbeSSHD(n.t.Context(), n.sshd)
	if err != nil {
		n.t.Fatal(err)
	}
	n.setWith(OptionsFor(v), until, list...)
}

func (n *node) setWith(o Options, until time.Time, list ...Authorized) {
	n.t.Helper()
	b, err := AuthorizedBlock(ourID, list, until, o)
	if err != nil {
		n.t.Fatal(err)
	}
	apply(n.t, n.authKey, b)
}

const denied = "Permission denied (publickey)"

func TestG4RealSSHD(t *testing.T) {
	n := startNode(t)
	master := newClient(n, nodeB, "127.77.0.9")
	admin := newClient(n, mustUUID("cccccccc-cccc-4ccc-8ccc-cccccccccccc"), "127.77.0.10")
	mkdir(t, filepath.Dir(n.authKey.Path), 0o777) // StrictModes refuses that; Apply repairs it
	adminLine := strings.Join(strings.Fields(keyText(admin.key, admin.node))[:2], " ") + " admin@desk"
	writeFile(t, n.authKey.Path, "# ours\r\n"+adminLine) // no newline at the end
	later := time.Now().Add(time.Hour)

	master.refused("before", denied)
	n.set(later, master.authorized("127.77.0.9/32"))
	master.opens("authorized")
	admin.opens("a foreign line beside the block")
	n.set(later, master.authorized("127.77.0.8/29"))
	master.opens("a prefix that holds the address")
	n.set(later, master.authorized("127.77.1.0/24"))
	master.refused("another prefix", denied)
	n.set(time.Now().Add(-2*time.Second), master.authorized("127.77.0.9/32"))
	master.refused("expired", denied)
	n.setWith(Options{NoExpiry: true}, later, master.authorized("127.77.0.9/32"))
	master.opens("without expiry")
	n.setWith(Options{}, later, master.authorized("127.77.0.9/32"))
	master.opens("expiry in local time")
	n.setWith(Options{}, time.Now().Add(-2*time.Second), master.authorized("127.77.0.9/32"))
	master.refused("expired in local time", denied)

	n.set(later, master.authorized("127.77.0.9/32"))
	var r Report
	if err := n.authKey.makeshift([]byte(readFile(t, n.authKey.Path)), block(t), &r); err != nil || r.Disabled != 1 {
		t.Fatalf("makeshift: %+v, %v", r, err)
	}
	master.refused("disabled in place", denied)
	admin.opens("a foreign line after the disabling")
	n.set(later, master.authorized("127.77.0.9/32"))
	master.opens("authorized again")
	n.set(time.Time{})
	master.refused("removed", denied)
	admin.opens("a foreign line after the removal")
	if got := readFile(t, n.authKey.Path); got != "# ours\r\n"+adminLine {
		t.Errorf("file is %q", got)
	}
}

// TestG4ExpiryInAnyZone: sshd's own time zone does not matter to an expiry in
// UTC, and one in local time is right if the zone is known.
func TestG4ExpiryInAnyZone(t *testing.T) {
	for zone, offset := range map[string]int{"XXX-5:30": 5*3600 + 1800, "XXX+9": -9 * 3600} {
		t.Run(zone, func(t *testing.T) {
			n := startNodeIn(t, zone)
			signer, key := newSigner(t)
			a := Authorized{Node: nodeB, Keys: []cluster.SSHKey{key}, From: from("127.77.0.9/32")}
			for form, o := range map[string]Options{"UTC": {ExpiryZ: true}, "local": {Location: time.FixedZone("", offset)}} {
				n.setWith(o, time.Now().Add(time.Minute), a)
				if err := tryKey(t, n, signer, "127.77.0.9"); err != nil {
					t.Errorf("%s, before the expiry: %v", form, err)
				}
				n.setWith(o, time.Now().Add(-2*time.Second), a)
				if err := tryKey(t, n, signer, "127.77.0.9"); err == nil {
					t.Errorf("%s, after the expiry: sshd lets it in", form)
				}
			}
		})
	}
}

// TestG4ExpiresByItself: nobody touches the file any more, as where noded is
// dead, and sshd itself refuses the key after the expiry, not before.
func TestG4ExpiresByItself(t *testing.T) {
	n := startNode(t)
	signer, key := newSigner(t)
	until := time.Now().Add(3 * time.Second).Truncate(time.Second)
	n.set(until, Authorized{Node: nodeB, Keys: []cluster.SSHKey{key}, From: from("127.77.0.9/32")})
	logins := 0
	for end := time.Now().Add(time.Minute); ; logins++ {
		if err := tryKey(t, n, signer, "127.77.0.9"); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("sshd lets it in for ever")
		}
	}
	if time.Now().Before(until) || logins == 0 {
		t.Errorf("refused at %s after %d logins, the expiry is %s", time.Now(), logins, until)
	}
}

func TestRealSSHChecksHostKey(t *testing.T) {
	n := startNode(t)
	c := newClient(n, nodeB, "127.77.0.9")
	n.set(time.Now().Add(time.Hour), c.authorized("127.77.0.9/32"))
	c.opens("the right host key")
	c.trust(n.host(newKey(t)))
	c.refused("another host key", "Host key verification failed")
	other := n.host(n.hostKey)
	other.Name, other.Addresses = "node6.example", []netip.Addr{netip.MustParseAddr("127.77.0.6")}
	c.trust(other)
	c.refused("no host key", "Host key verification failed")
}

// TestRealTools lets OpenSSH read what was written.
func TestRealTools(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("SKIP: no ssh-keygen program")
	}
	d := KeyDir{Path: t.TempDir()}
	k, _, err := d.Ensure(nodeA)
	if err != nil {
		t.Fatal(err)
	}
	want := "256 " + Fingerprint(k) + " " + Comment(nodeA) + " (ED25519)\n"
	for _, path := range []string{d.PrivateFile(), filepath.Join(d.Path, publicName)} {
		out, err := exec.CommandContext(t.Context(), keygen, "-l", "-f", path).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("ssh-keygen -l: %v\n%s\nwant\n%s", err, out, want)
		}
	}
	f := testFile(t)
	b, err := KnownHostsBlock(ourID, []Host{host("b.example", 2222, "2001:db8::2"), host("a.example", 22, "2001:db8::1")})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, f, b)
	for _, name := range []string{"a.example", "2001:db8::1", "b.example", "[b.example]:2222", "[2001:db8::2]:2222"} {
		out, err := exec.CommandContext(t.Context(), keygen, "-F", name, "-f", f.Path).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(keyA64)) {
			t.Errorf("ssh-keygen -F %s: %v\n%s", name, err, out)
		}
	}
}
