package lab

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// authorize lets node from log in on node to, with keys placed by hand.
func authorize(t *testing.T, from, to Node) {
	t.Helper()
	id := filepath.Join(from.Root, "root/.ssh/id_ed25519")
	if _, err := os.Stat(id); err != nil {
		must(t, newHostKey(id, "root@"+from.Name))
	}
	pub, err := os.ReadFile(id + ".pub")
	must(t, err)
	must(t, os.WriteFile(to.AuthorizedKeys(), []byte(fmt.Sprintf("from=%q %s", from.Address, pub)), 0o600))
	host, err := os.ReadFile(to.HostKey() + ".pub")
	must(t, err)
	key, _, _, _, err := ssh.ParseAuthorizedKey(host)
	must(t, err)
	line := fmt.Sprintf("[%s]:%d %s", to.Address, to.SSHPort, ssh.MarshalAuthorizedKey(key))
	must(t, os.WriteFile(from.KnownHosts(), []byte(line), 0o600))
	conf := fmt.Sprintf("Host *.example\n    Port %d\n    BatchMode yes\n    StrictHostKeyChecking yes\n", to.SSHPort)
	must(t, os.WriteFile(filepath.Join(from.Root, "etc/ssh/ssh_config.d/50-test.conf"), []byte(conf), 0o644))
}

// longDir returns a folder of 120 characters with a space.
func longDir(t *testing.T) string {
	t.Helper()
	base := t.TempDir() + "/a b"
	dir := base + strings.Repeat("x", max(0, 120-len(base)))
	must(t, os.Mkdir(dir, 0o755))
	return dir
}

func TestSSHLoginBetweenNodes(t *testing.T) {
	c := up(t, Config{Nodes: 2, Dir: longDir(t), Bare: true})
	ctx := testContext(t)
	nodes, err := c.Nodes(ctx)
	must(t, err)
	authorize(t, nodes[0], nodes[1])
	r, err := c.Exec(ctx, "node1", "ssh", "node2.example", `echo "$SSH_CONNECTION"; echo "$ROLEKEY_ROOT"; echo "$HOME"; exit 7`)
	must(t, err)
	lines := strings.Split(r.Stdout, "\n")
	if r.Code != 7 || len(lines) < 3 || !strings.HasPrefix(lines[0], nodes[0].Address+" ") || lines[1] != nodes[1].Root || lines[2] != filepath.Join(nodes[1].Root, "root") {
		t.Fatalf("ssh: %+v\n%s", r, tail(nodes[1].Log(SSHD), 20))
	}
	// The key's from= names node1 alone: the address of the connection counts.
	must(t, os.RemoveAll(filepath.Join(nodes[1].Root, "root/.ssh/id_ed25519")))
	key, err := os.ReadFile(filepath.Join(nodes[0].Root, "root/.ssh/id_ed25519"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(nodes[1].Root, "root/.ssh/id_ed25519"), key, 0o600))
	r, err = c.Exec(ctx, "node2", "ssh", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "-p", itoa(nodes[1].SSHPort), "node2.example", "true")
	must(t, err)
	if r.Code != 255 {
		t.Errorf("the stolen key worked from another address: %+v", r)
	}
	st, err := c.State(ctx)
	must(t, err)
	if st.Lax != "" {
		t.Logf("StrictModes is off: %s", st.Lax)
		return
	}
	// StrictModes is on: others may write the key's folder, so it is void.
	must(t, os.Chmod(filepath.Dir(nodes[1].AuthorizedKeys()), 0o777))
	r, err = c.Exec(ctx, "node1", "ssh", "node2.example", "true")
	must(t, err)
	if r.Code != 255 {
		t.Errorf("StrictModes let a login through: %+v", r)
	}
}

func TestWrappers(t *testing.T) {
	c := up(t, Config{Nodes: 2, Dir: longDir(t), Bare: true})
	ctx := testContext(t)
	st, err := c.State(ctx)
	must(t, err)
	nodes := st.Nodes
	authorize(t, nodes[0], nodes[1])
	r, err := c.Exec(ctx, "node1", "sshd", "-T")
	if err != nil || r.Code != 0 || !strings.Contains(r.Stdout, "authorizedkeysfile "+nodes[0].AuthorizedKeys()+"\n") || strings.Contains(r.Stdout, "strictmodes yes\n") != (st.Lax == "") {
		t.Errorf("sshd -T: code %d, %v, %s\n%s", r.Code, err, r.Stderr, r.Stdout)
	}
	file := filepath.Join(nodes[0].Root, "root/hello")
	must(t, os.WriteFile(file, []byte("hello\n"), 0o600))
	copied := filepath.Join(nodes[1].Root, "root/copied")
	r, err = c.Exec(ctx, "node1", "scp", "-q", file, "node2.example:"+copied)
	if err != nil || r.Code != 0 {
		t.Fatalf("scp: %+v, %v", r, err)
	}
	if b, err := os.ReadFile(copied); string(b) != "hello\n" || err != nil {
		t.Errorf("copied: %q, %v", b, err)
	}
	if !st.Namespaces {
		return // whose the terminals are is then the host's affair
	}
	r, err = c.Exec(ctx, "node1", "ssh", "-tt", "node2.example", "tty")
	if err != nil || r.Code != 0 || !strings.HasPrefix(r.Stdout, "/dev/pts/") {
		t.Errorf("ssh -tt: %+v, %v\n%s", r, err, tail(nodes[1].Log(SSHD), 10))
	}
}

func TestSessionsOutliveSSHDButNotTheNode(t *testing.T) {
	c := up(t, Config{Nodes: 2, Bare: true})
	ctx := testContext(t)
	nodes, err := c.Nodes(ctx)
	must(t, err)
	authorize(t, nodes[0], nodes[1])
	p, err := c.Spawn(ctx, Cmd{Node: "node1", Args: []string{"ssh", "node2.example", "echo in; cat"}, Stderr: t.Output()})
	must(t, err)
	back := bufio.NewReader(p.Stdout)
	expect := func(want string) {
		t.Helper()
		if got, err := back.ReadString('\n'); got != want || err != nil {
			t.Fatalf("session: got %q, %v; want %q", got, err, want)
		}
	}
	expect("in\n")
	must(t, c.Kill(ctx, "node2", SSHD))
	_, err = fmt.Fprintln(p.Stdin, "still here")
	must(t, err)
	expect("still here\n")
	must(t, c.Kill(ctx, "node2", All))
	if code, err := p.Wait(); code != 255 || err != nil {
		t.Errorf("session of a killed node: code %d, %v", code, err)
	}
}

// echo is a client of the echo server.
type echo struct {
	t    *testing.T
	p    *Process
	back *bufio.Reader
}

func startServer(t *testing.T, c *Cluster, n Node) string {
	t.Helper()
	addr := net.JoinHostPort(n.Address, "7777")
	cmd, err := HelperCmd(n.Name, "echo-server", addr)
	must(t, err)
	cmd.Stderr = t.Output()
	p, err := c.Spawn(testContext(t), cmd)
	must(t, err)
	if line, err := bufio.NewReader(p.Stdout).ReadString('\n'); line != "listening\n" {
		t.Fatalf("echo server: %q, %v", line, err)
	}
	t.Cleanup(func() {
		_ = p.Kill()
		_, _ = p.Wait() // killed
	})
	return addr
}

func connect(t *testing.T, c *Cluster, n Node, server, wait string) *echo {
	t.Helper()
	cmd, err := HelperCmd(n.Name, "echo-client", n.Address, server, wait)
	must(t, err)
	cmd.Stderr = t.Output()
	p, err := c.Spawn(testContext(t), cmd)
	must(t, err)
	t.Cleanup(func() {
		_ = p.Kill()
		_, _ = p.Wait() // killed
	})
	return &echo{t: t, p: p, back: bufio.NewReader(p.Stdout)}
}

func (e *echo) expect(want string) {
	e.t.Helper()
	if line, err := e.back.ReadString('\n'); !strings.HasPrefix(line, want) {
		e.t.Fatalf("echo client: got %q, %v; want %q", line, err, want)
	}
}

func (e *echo) say(text string) {
	e.t.Helper()
	_, err := fmt.Fprintln(e.p.Stdin, text)
	must(e.t, err)
}

func TestPartition(t *testing.T) {
	c := up(t, Config{Nodes: 3, Bare: true})
	needNamespaces(t, c)
	ctx := testContext(t)
	nodes, err := c.Nodes(ctx)
	must(t, err)
	server := startServer(t, c, nodes[1])
	cutOff := connect(t, c, nodes[0], server, limit.String())
	patient := connect(t, c, nodes[0], server, limit.String())
	other := connect(t, c, nodes[2], server, limit.String())
	for _, e := range []*echo{cutOff, patient, other} {
		e.expect("connected")
		e.say("before")
		e.expect("back before")
	}

	must(t, c.Partition(ctx, "node1"))
	cutOff.say("lost")
	cutOff.expect("silence")
	other.say("during")
	other.expect("back during")
	fresh := connect(t, c, nodes[0], server, "700ms")
	fresh.expect("no connection") // and no error from the kernel before the time is up
	if r, err := c.Exec(ctx, "node1", "echo", "reachable"); err != nil || r.Stdout != "reachable\n" {
		t.Errorf("exec on a partitioned node: %+v, %v", r, err)
	}
	st, err := c.State(ctx)
	must(t, err)
	if len(st.Cuts) != 2 {
		t.Errorf("cuts in the state: %v", st.Cuts)
	}

	// node1 and node3 were cut from each other too; a second cut adds up.
	must(t, c.Partition(ctx, "node1", "node2"))
	st, err = c.State(ctx)
	must(t, err)
	if len(st.Cuts) != 3 {
		t.Errorf("cuts in the state: %v", st.Cuts)
	}

	patient.say("late")
	must(t, c.Heal(ctx))
	patient.expect("back late") // TCP's own retransmission
	again := connect(t, c, nodes[0], server, limit.String())
	again.expect("connected")
	again.say("after")
	again.expect("back after")
	must(t, c.Heal(ctx)) // nothing to heal
	if err := c.Partition(ctx, "node9"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("partition of an unknown node: %v", err)
	}
}

func TestPartitionIsSilent(t *testing.T) {
	c := up(t, Config{Nodes: 2, Bare: true})
	needNamespaces(t, c)
	ctx := testContext(t)
	nodes, err := c.Nodes(ctx)
	must(t, err)
	server := startServer(t, c, nodes[1])
	must(t, c.Partition(ctx, "node2"))
	e := connect(t, c, nodes[0], server, "700ms")
	line, err := e.back.ReadString('\n')
	if err != nil || !strings.Contains(line, "i/o timeout") {
		t.Errorf("connection over a cut: got %q, %v; want a timeout", line, err)
	}
}

func TestWithoutNamespaces(t *testing.T) {
	home, err := os.UserHomeDir()
	must(t, err)
	// Not below /tmp: here StrictModes looks at the real folders.
	dir, err := os.MkdirTemp(home, ".rolekey-lab-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	c, err := Up(testContext(t), Config{Nodes: 2, Dir: dir, Bin: fakeBin(t), Bare: true, NoNamespaces: true})
	if os.Getuid() == 0 && err != nil && strings.Contains(err.Error(), "install openssh-server") {
		t.Skip(err) // sshd's account can come from nowhere
	}
	must(t, err)
	t.Cleanup(func() { must(t, c.Down(testContext(t))) })
	ctx := testContext(t)
	nodes, err := c.Nodes(ctx)
	must(t, err)
	authorize(t, nodes[0], nodes[1])
	if r, err := c.Exec(ctx, "node1", "ssh", "node2.example", "exit 3"); err != nil || r.Code != 3 {
		t.Errorf("ssh: %+v, %v", r, err)
	}
	if err := c.Partition(ctx, "node1"); !errors.Is(err, ErrNoNamespaces) {
		t.Errorf("partition: %v", err)
	}
	// Below a folder that others may write StrictModes cannot stay on.
	open := filepath.Join(t.TempDir(), "open")
	must(t, os.Mkdir(open, 0o755))
	must(t, os.Chmod(open, 0o777))
	lax := up(t, Config{Nodes: 2, Dir: filepath.Join(open, "c"), Bare: true, NoNamespaces: true})
	st, err := lax.State(ctx)
	must(t, err)
	if !strings.Contains(st.Lax, "may be written") {
		t.Errorf("StrictModes below a folder of everybody: %q", st.Lax)
	}
	authorize(t, st.Nodes[0], st.Nodes[1])
	if r, err := lax.Exec(ctx, "node1", "ssh", "node2.example", "exit 3"); err != nil || r.Code != 3 {
		t.Errorf("ssh: %+v, %v", r, err)
	}
}
