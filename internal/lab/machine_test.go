package lab

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
)

// machines brings up a cluster of machines, or skips where that is impossible.
func machines(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	cfg.Isolation, cfg.Bare, cfg.Progress = IsolationNetns, true, t.Output()
	if cfg.Bin == "" {
		cfg.Bin = fakeBin(t)
	}
	c, err := Up(testContext(t), cfg)
	if errors.Is(err, ErrNeedsRoot) || errors.Is(err, ErrNoNamespaces) {
		t.Skipf("no machines: %v", err)
	}
	must(t, err)
	return c
}

// on runs a shell's command on a node, which must end well.
func on(t *testing.T, c *Cluster, node, script string) string {
	t.Helper()
	r, err := c.Exec(testContext(t), node, "sh", "-c", script)
	if err != nil || r.Code != 0 {
		t.Fatalf("on %s: %s: %+v, %v", node, script, r, err)
	}
	return strings.TrimSpace(r.Stdout)
}

func TestMachinesAreApart(t *testing.T) {
	c := machines(t, Config{Nodes: 2, Dir: longDir(t)})
	defer func() { must(t, c.Down(testContext(t))) }()
	nodes, err := c.Nodes(testContext(t))
	must(t, err)
	const name = "rolekey-lab-test-mark"
	places := []string{"/etc", "/var", "/usr/sbin", "/tmp", "/run", "/root", "/dev/shm", "/etc/ssh", "/var/lib/rolekey"}
	for _, dir := range places {
		on(t, c, "node1", "echo one >"+dir+"/"+name)
	}
	for _, dir := range places {
		if on(t, c, "node2", "cat "+dir+"/"+name+" 2>/dev/null || echo none") != "none" {
			t.Errorf("node2 has what node1 wrote to %s", dir)
		}
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("this machine has what node1 wrote to %s", dir)
		}
	}
	for script, want := range map[string]string{
		"hostname":                           "node2.example",
		"tr '\\0' ' ' </proc/1/cmdline":      "devcluster-init node2.example",
		"echo $HOME $ROLEKEY_ROOT":           "/root",
		"sshd -T | grep ^strictmodes":        "strictmodes yes",
		"sshd -T | grep ^authorizedkeysfile": "authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2",
		"grep -c node1.example /etc/hosts":   "2",
	} {
		if got := on(t, c, "node2", script); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	if args := on(t, c, "node1", "cat /var/log/rolekey/noded.log"); args != "args []" {
		t.Errorf("noded was started with %q", args)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", nodes[0].PIDs.Masterd))
	must(t, err)
	if strings.Contains(string(status), "Uid:\t0") || !strings.Contains(string(status), "CapEff:\t0000000000000000") {
		t.Errorf("masterd has power over the machine:\n%s", status)
	}
	if r, err := c.Exec(testContext(t), "node1", "sh", "-c", "exit 42"); err != nil || r.Code != 42 {
		t.Errorf("exit code: %+v, %v", r, err)
	}
	if _, err := c.Exec(testContext(t), "node1", "no-such-command"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown command: %v", err)
	}
}

// authorizeMachine is authorize at the real paths, by both families.
func authorizeMachine(t *testing.T, from, to Node) {
	t.Helper()
	must(t, newHostKey(from.File("/root/.ssh/id_ed25519"), "root"))
	pub, err := os.ReadFile(from.File("/root/.ssh/id_ed25519.pub"))
	must(t, err)
	must(t, os.WriteFile(to.AuthorizedKeys(), fmt.Appendf(nil, "from=%q %s", strings.Join(from.Addresses, ","), pub), 0o600))
	host, err := os.ReadFile(to.HostKey() + ".pub")
	must(t, err)
	key, _, _, _, err := ssh.ParseAuthorizedKey(host)
	must(t, err)
	line := strings.Join(to.Addresses, ",") + "," + to.Name + " " + string(ssh.MarshalAuthorizedKey(key))
	must(t, os.WriteFile(from.KnownHosts(), []byte(line), 0o600))
}

func TestMachinesNetwork(t *testing.T) {
	c := machines(t, Config{Nodes: 3})
	defer func() { must(t, c.Down(testContext(t))) }()
	ctx := testContext(t)
	nodes, err := c.Nodes(ctx)
	must(t, err)
	authorizeMachine(t, nodes[0], nodes[1])
	for _, to := range append(nodes[1].Addresses, nodes[1].Name) {
		r, err := c.Exec(ctx, "node1", "ssh", "-o", "BatchMode=yes", to, "hostname; exit 7")
		if err != nil || r.Code != 7 || r.Stdout != "node2.example\n" {
			t.Errorf("ssh %s: %+v, %v\n%s", to, r, err, tail(nodes[1].Log(SSHD), 9))
		}
	}
	if r, err := c.Exec(ctx, "node1", "ssh", "-tt", "-o", "BatchMode=yes", "node2.example", "tty"); err != nil || r.Code != 0 || !strings.HasPrefix(r.Stdout, "/dev/pts/") {
		t.Errorf("ssh -tt: %+v, %v", r, err)
	}
	for i := range nodes[1].Addresses {
		cutAndHeal(t, c, nodes, i)
	}
}

// cutAndHeal cuts node1 off while connections by one family are open.
func cutAndHeal(t *testing.T, c *Cluster, nodes []Node, family int) {
	t.Helper()
	ctx := testContext(t)
	at := make([]Node, len(nodes))
	for i, n := range nodes {
		at[i] = n
		at[i].Address = n.Addresses[family]
	}
	server := startServer(t, c, at[1])
	cutOff := connect(t, c, at[0], server, limit.String())
	patient := connect(t, c, at[0], server, limit.String())
	other := connect(t, c, at[2], server, limit.String())
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
	fresh := connect(t, c, at[0], server, "700ms")
	if line, err := fresh.back.ReadString('\n'); !strings.Contains(line, "i/o timeout") {
		t.Errorf("a connection over a cut: %q, %v", line, err)
	}
	if r, err := c.Exec(ctx, "node1", "echo", "reachable"); err != nil || r.Stdout != "reachable\n" {
		t.Errorf("exec on a node that is cut off: %+v, %v", r, err)
	}
	patient.say("late")
	must(t, c.Heal(ctx))
	patient.expect("back late") // TCP's own retransmission
	conn, err := nodes[2].Dial(ctx, new(net.Dialer), server)
	must(t, err)
	must(t, conn.Close())
}

func TestMachineKeepsNothingAfterKill(t *testing.T) {
	ports := cluster.DefaultPorts
	ports.SSH = 2022
	c := machines(t, Config{Nodes: 2, Ports: ports})
	defer func() { must(t, c.Down(testContext(t))) }()
	ctx := testContext(t)
	// noded asks sshd for its port.
	if port := on(t, c, "node1", "sshd -T | grep ^port; grep -s ports /etc/rolekey/noded.toml || :"); port != "port 2022" {
		t.Errorf("ports: %q", port)
	}
	// An orphan of its own session, as a multiplexing ssh is.
	on(t, c, "node1", "setsid sleep 123457 >/dev/null 2>&1 </dev/null & echo started")
	n, err := c.Node(ctx, "node1")
	must(t, err)
	orphan := func() bool {
		return slices.ContainsFunc(descendants(n.Init), func(p procID) bool { return mentions(p.pid, "123457") })
	}
	eventually(t, "an orphan", orphan)
	must(t, c.Kill(ctx, "node1", All))
	eventually(t, "the end of the orphan", func() bool { return !orphan() })
	must(t, c.Start(ctx, "node1"))
	n, err = c.Node(ctx, "node1")
	must(t, err)
	if n.PIDs.Noded == 0 || n.PIDs.Masterd == 0 || n.PIDs.SSHD == 0 {
		t.Errorf("after start: %+v", n.PIDs)
	}
	must(t, c.Stop(ctx, "node2"))
	must(t, c.Start(ctx, "node2"))
	// Without its first process a node is no more, and says so.
	must(t, syscall.Kill(n.Init, syscall.SIGKILL))
	eventually(t, "a node without namespaces", func() bool {
		_, err := c.Exec(ctx, "node1", "true")
		return err != nil && strings.Contains(err.Error(), "gone")
	})
}

// traces is what a cluster could leave on this machine: mounts on what it mounts
// in its nodes, devices by the names it gives. Other tests may run beside this.
type traces struct {
	mounts, devices string
	spaces          map[string]bool // in which some process is
}

func look(t *testing.T) traces {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	list, err := net.Interfaces()
	must(t, err)
	tr := traces{spaces: map[string]bool{}}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); holdsReplaced(f[4]) || strings.HasPrefix(f[4], "/dev/") || strings.Contains(f[4], ".devcluster") {
			tr.mounts += line
		}
	}
	for _, i := range list {
		if strings.HasPrefix(i.Name, "veth") || i.Name == bridgeDevice || i.Name == pitDevice {
			tr.devices += i.Name + " "
		}
	}
	for _, p := range livingPIDs(t) {
		for _, kind := range []string{"net", "mnt", "pid", "uts", "ipc"} {
			if s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p, kind)); err == nil {
				tr.spaces[s] = true
			}
		}
	}
	return tr
}

func TestMachinesLeaveNothing(t *testing.T) {
	before := look(t)
	for name, end := range map[string]func(*Cluster, *State){
		"down":           func(c *Cluster, _ *State) { must(t, c.Down(testContext(t))) },
		"holder killed":  func(_ *Cluster, st *State) { must(t, syscall.Kill(st.Holder, syscall.SIGKILL)) },
		"folder removed": func(_ *Cluster, st *State) { must(t, os.RemoveAll(st.Dir)) },
	} {
		dir := filepath.Join(t.TempDir(), "c")
		c := machines(t, Config{Nodes: 2, Dir: dir})
		st, err := c.State(testContext(t))
		must(t, err)
		own := map[string]bool{}
		for _, pid := range []int{st.Holder, st.Nodes[0].Init, st.Nodes[1].Init} {
			for _, kind := range []string{"net", "mnt"} {
				s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
				must(t, err)
				own[s] = true
			}
		}
		if len(own) != 6 {
			t.Fatalf("%s: namespaces are shared: %v", name, own)
		}
		end(c, st)
		eventually(t, name+": the end of all namespaces", func() bool {
			after := look(t)
			return !slices.ContainsFunc(slices.Collect(maps.Keys(own)), func(s string) bool { return after.spaces[s] })
		})
		after := look(t)
		if after.mounts != before.mounts || after.devices != before.devices {
			t.Errorf("%s left mounts or devices:\n%+v\nbefore\n%+v", name, after, before)
		}
		if err := Sweep(dir); err != nil && !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: Sweep: %v", name, err)
		}
	}
}

func TestMachinesLeaveNothingOfAFailedStart(t *testing.T) {
	must(t, machines(t, Config{Nodes: 1}).Down(testContext(t))) // or skip
	t.Setenv("LAB_TEST_BREAK", "masterd")
	before := look(t)
	dir := filepath.Join(t.TempDir(), "c")
	t.Setenv("LAB_TEST_MARK", dir) // which all of the cluster inherits
	_, err := Up(testContext(t), Config{Nodes: 3, Dir: dir, Bin: fakeBin(t), Isolation: IsolationNetns})
	if err == nil || !strings.Contains(err.Error(), "the stand-in is broken") {
		t.Fatalf("Up with a broken masterd: %v", err)
	}
	for _, pid := range livingPIDs(t) {
		if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err == nil && strings.Contains(string(env), "LAB_TEST_MARK="+dir) && pid != os.Getpid() {
			t.Errorf("process %d was left behind", pid)
		}
	}
	if after := look(t); after.mounts != before.mounts || after.devices != before.devices {
		t.Errorf("left mounts or devices:\n%+v\nbefore\n%+v", after, before)
	}
}

func TestMachinesNeedRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		if _, err := Up(testContext(t), Config{Nodes: 1, Isolation: IsolationNetns}); !errors.Is(err, ErrNeedsRoot) {
			t.Errorf("Up: %v", err)
		}
		return
	}
	// This program as an ordinary user, wherever it lies.
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir, cmd.Env = "/", append(os.Environ(), programEnv+"=netns-caller")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "use isolation loopback true") {
		t.Errorf("%v: %s", err, out)
	}
}
