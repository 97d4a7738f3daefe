package lab

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestUpFormsClusterAndDownLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	var progress strings.Builder
	c, err := Up(testContext(t), Config{Nodes: 3, Dir: dir, Bin: fakeBin(t), Progress: &progress})
	must(t, err)
	st, err := ReadState(dir)
	must(t, err)
	var pids []int
	for i, n := range st.Nodes {
		if n.Name != []string{"node1.example", "node2.example", "node3.example"}[i] || n.UUID == "" || n.Root != filepath.Join(c.Dir(), n.Short()) {
			t.Errorf("node %d of cluster.json: %+v", i, n)
		}
		for _, d := range daemonNames {
			if !mentions(n.PIDs.Get(d), n.Root) {
				t.Errorf("%s %s: pid %d does not run", n.Name, d, n.PIDs.Get(d))
			}
			pids = append(pids, n.PIDs.Get(d))
		}
	}
	// A node that was added again has another UUID.
	identity := st.Nodes[2].File("/var/lib/rolekey/node/identity.json")
	must(t, os.MkdirAll(filepath.Dir(identity), 0o755))
	must(t, os.WriteFile(identity, []byte(`{"node":"another"}`), 0o600))
	if n, err := c.Node(testContext(t), "node3"); err != nil || n.UUID != "another" {
		t.Errorf("node3: %+v, %v", n, err)
	}
	pids = append(pids, st.Holder)
	must(t, c.Down(testContext(t)))
	for _, pid := range pids {
		if mentions(pid, dir) {
			t.Errorf("process %d outlived Down", pid)
		}
	}
	// The stand-ins' own file is not the cluster's, so it stays.
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 1 {
		t.Errorf("Down left %v", left)
	}
	if !strings.Contains(progress.String(), "node3.example: join") {
		t.Errorf("progress: %q", progress.String())
	}
}

func TestShutdownKeepsFilesAndUpReplacesThem(t *testing.T) {
	dir, bin := t.TempDir(), fakeBin(t)
	c, err := Up(testContext(t), Config{Nodes: 1, Dir: dir, Bin: bin, Bare: true})
	must(t, err)
	if _, err := Up(testContext(t), Config{Nodes: 1, Dir: dir, Bin: bin, Bare: true}); err == nil {
		t.Error("Up in the folder of a running cluster succeeded")
	}
	must(t, c.Shutdown(testContext(t)))
	if _, err := os.Stat(filepath.Join(dir, "node1/var/log/rolekey/noded.log")); err != nil {
		t.Error(err)
	}
	if _, err := Open(testContext(t), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Open after Shutdown: %v", err)
	}
	mark := filepath.Join(dir, "node1/etc/mark")
	must(t, os.WriteFile(mark, nil, 0o644))
	c, err = Up(testContext(t), Config{Nodes: 2, Dir: dir, Bin: bin, Bare: true})
	must(t, err)
	if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of the earlier cluster is still there: %v", err)
	}
	must(t, c.Shutdown(testContext(t)))
	must(t, Purge(dir))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Purge left %s: %v", dir, err)
	}
}

func TestPurgeRefusesForeignFolder(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "cluster.json"), nil, 0o644))
	if err := Purge(dir); err == nil {
		t.Error("Purge of a folder without a cluster succeeded")
	}
	if _, err := os.Stat(filepath.Join(dir, "cluster.json")); err != nil {
		t.Error(err)
	}
}

func TestUpRefusesForeignFolder(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "node1"), 0o755))
	if _, err := Up(testContext(t), Config{Nodes: 1, Dir: dir, Bin: fakeBin(t), Bare: true}); err == nil {
		t.Error("Up over a foreign node1 succeeded")
	}
}

func TestClustersSideBySide(t *testing.T) {
	bin := fakeBin(t)
	a := up(t, Config{Nodes: 2, Bare: true, Bin: bin})
	b := up(t, Config{Nodes: 2, Bare: true, Bin: bin})
	ctx := testContext(t)
	must(t, a.Kill(ctx, "node1", All))
	na, err := a.Node(ctx, "node1")
	must(t, err)
	nb, err := b.Node(ctx, "node1")
	must(t, err)
	if na.PIDs != (PIDs{}) || nb.PIDs.Noded == 0 || na.Root == nb.Root {
		t.Errorf("after a kill in one of two clusters: %+v and %+v", na, nb)
	}
}

func TestCommandsHaveNoCapabilities(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root keeps his capabilities")
	}
	c := up(t, Config{Nodes: 1, Bare: true})
	n, err := c.Node(testContext(t), "node1")
	must(t, err)
	for _, pid := range []string{"self", itoa(n.PIDs.Noded), itoa(n.PIDs.SSHD)} {
		r, err := c.Exec(testContext(t), "node1", "grep", "CapEff", "/proc/"+pid+"/status")
		if err != nil || strings.TrimSpace(r.Stdout) != "CapEff:\t0000000000000000" {
			t.Errorf("capabilities of %s: %+v, %v", pid, r, err)
		}
	}
}

func TestUpExplainsFailureAndCleansUp(t *testing.T) {
	t.Setenv("LAB_TEST_BREAK", "masterd")
	dir := filepath.Join(t.TempDir(), "c")
	_, err := Up(testContext(t), Config{Nodes: 2, Dir: dir, Bin: fakeBin(t)})
	if err == nil || !strings.Contains(err.Error(), "the stand-in is broken") || !strings.Contains(err.Error(), "exit code 3") {
		t.Fatalf("Up with a broken masterd: %v", err)
	}
	for _, pid := range livingPIDs(t) {
		if mentions(pid, dir) {
			t.Errorf("process %d was left behind", pid)
		}
	}
}

func TestUpShowsLogsOfFailedStep(t *testing.T) {
	bin := fakeBin(t)
	must(t, os.WriteFile(filepath.Join(bin, "gnt-node"), []byte("#!/bin/sh\necho no quorum >&2; exit 4\n"), 0o755))
	var progress strings.Builder
	_, err := Up(testContext(t), Config{Nodes: 2, Bin: bin, Progress: &progress})
	if err == nil || !strings.Contains(err.Error(), "gnt-node add node2.example: exit code 4: no quorum") {
		t.Errorf("Up with a failing gnt-node: %v", err)
	}
	if !strings.Contains(progress.String(), "args [--root") {
		t.Errorf("no log in progress: %q", progress.String())
	}
}

func TestUpRefusesBadConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no nodes":          {},
		"too many":          {Nodes: MaxNodes + 1},
		"unknown isolation": {Nodes: 1, Isolation: "moon"},
		"quote in folder":   {Nodes: 1, Dir: filepath.Join(t.TempDir(), `a"b`)},
	} {
		cfg.Bin = t.TempDir()
		if _, err := Up(testContext(t), cfg); err == nil {
			t.Errorf("%s: Up succeeded", name)
		}
	}
}

func TestClusterEndsWithItsCaller(t *testing.T) {
	dir, bin := t.TempDir(), fakeBin(t)
	exe, err := os.Executable()
	must(t, err)
	caller := exec.Command(exe, dir, bin)
	caller.Env = append(os.Environ(), programEnv+"=caller")
	out, err := caller.StdoutPipe()
	must(t, err)
	must(t, caller.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "up") {
		t.Fatalf("caller said %q, %v", line, err)
	}
	st, err := ReadState(dir)
	must(t, err)
	must(t, caller.Process.Kill())
	_ = caller.Wait() // killed
	for _, pid := range []int{st.Holder, st.Nodes[0].PIDs.Noded, st.Nodes[0].PIDs.SSHD} {
		eventually(t, "the end of all processes", func() bool { return !mentions(pid, dir) })
	}
}

func TestClusterEndsWithItsFolder(t *testing.T) {
	dir := t.TempDir()
	c, err := Up(testContext(t), Config{Nodes: 1, Dir: dir, Bin: fakeBin(t), Bare: true})
	must(t, err)
	st, err := c.State(testContext(t))
	must(t, err)
	must(t, os.RemoveAll(dir))
	for _, pid := range []int{st.Holder, st.Nodes[0].PIDs.Noded, st.Nodes[0].PIDs.SSHD} {
		eventually(t, "the end of all processes", func() bool { return !mentions(pid, dir) })
	}
}

func TestDaemonsDieWithKilledHolderAndSweepCleans(t *testing.T) {
	dir := t.TempDir()
	c, err := Up(testContext(t), Config{Nodes: 1, Dir: dir, Bin: fakeBin(t), Bare: true})
	must(t, err)
	st, err := c.State(testContext(t))
	must(t, err)
	must(t, syscall.Kill(st.Holder, syscall.SIGKILL))
	for _, d := range daemonNames {
		eventually(t, "the end of "+d, func() bool { return !mentions(st.Nodes[0].PIDs.Get(d), dir) })
	}
	eventually(t, "the end of the holder", func() bool {
		_, err := c.State(testContext(t))
		return errors.Is(err, ErrNotRunning)
	})
	must(t, Sweep(dir))
	if err := Sweep(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("second Sweep: %v", err)
	}
}

func TestExec(t *testing.T) {
	c := up(t, Config{Nodes: 2, Bare: true})
	ctx := testContext(t)
	for _, tc := range []struct {
		argv []string
		want Result
	}{
		{[]string{"true"}, Result{}},
		{[]string{"sh", "-c", "echo out; echo err >&2; exit 42"}, Result{Stdout: "out\n", Stderr: "err\n", Code: 42}},
		{[]string{"sh", "-c", "kill -9 $$"}, Result{Code: 137}},
		{[]string{"sh", "-c", "basename \"$ROLEKEY_ROOT\""}, Result{Stdout: "node2\n"}},
		{[]string{"sh", "-c", "command -v ssh | grep -c /node2/bin/ssh"}, Result{Stdout: "1\n"}},
		{[]string{"sh", "-c", "command -v noded >/dev/null && cat"}, Result{}},
		{[]string{"sh", "-c", "(sleep 1000 &) ; echo gone"}, Result{Stdout: "gone\n"}},
	} {
		if testing.Short() && strings.Contains(tc.argv[len(tc.argv)-1], "sleep") {
			continue // waits for outputDelay
		}
		got, err := c.Exec(ctx, "node2", tc.argv...)
		if err != nil || got != tc.want {
			t.Errorf("exec %q: got %+v, %v; want %+v", tc.argv, got, err, tc.want)
		}
	}
	if _, err := c.Exec(ctx, "node2", "no-such-command"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown command: %v", err)
	}
	if _, err := c.Exec(ctx, "node3", "true"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("unknown node: %v", err)
	}
	big := strings.Repeat("0123456789abcdef", 64<<10)
	got, err := c.Run(ctx, Cmd{Node: "node1", Args: []string{"cat"}, Stdin: strings.NewReader(big)})
	if err != nil || got.Stdout != big {
		t.Errorf("a megabyte through cat: %d bytes, %v", len(got.Stdout), err)
	}
}

func TestSpawn(t *testing.T) {
	c := up(t, Config{Nodes: 1, Bare: true})
	p, err := c.Spawn(testContext(t), Cmd{Node: "node1", Args: []string{"cat"}})
	must(t, err)
	back := bufio.NewReader(p.Stdout)
	for _, line := range []string{"one\n", "two\n"} {
		_, err := io.WriteString(p.Stdin, line)
		must(t, err)
		if got, err := back.ReadString('\n'); got != line || err != nil {
			t.Errorf("cat: got %q, %v", got, err)
		}
	}
	if code, err := p.Wait(); code != 0 || err != nil {
		t.Errorf("cat after the end of its input: code %d, %v", code, err)
	}

	p, err = c.Spawn(testContext(t), Cmd{Args: []string{"sleep", "1000"}})
	must(t, err)
	must(t, p.Signal(syscall.SIGTERM))
	if code, err := p.Wait(); code != 143 || err != nil {
		t.Errorf("sleep after SIGTERM: code %d, %v", code, err)
	}
}

func TestExecEndsWithItsContext(t *testing.T) {
	c := up(t, Config{Nodes: 1, Bare: true})
	ctx, cancel := context.WithCancel(testContext(t))
	p, err := c.Spawn(ctx, Cmd{Node: "node1", Args: []string{"sleep", "123456"}})
	must(t, err)
	cancel()
	if _, err := p.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	eventually(t, "the end of the command", func() bool { return !mentions(p.PID(), "123456") })
}

func TestKillStopStart(t *testing.T) {
	c := up(t, Config{Nodes: 2, Bare: true})
	ctx := testContext(t)
	pids := func() PIDs {
		n, err := c.Node(ctx, "node1")
		must(t, err)
		return n.PIDs
	}
	first := pids()
	must(t, c.Kill(ctx, "node1", Noded))
	if got, want := pids(), (PIDs{Masterd: first.Masterd, SSHD: first.SSHD}); got != want {
		t.Errorf("after kill noded: %+v, want %+v", got, want)
	}
	must(t, c.Start(ctx, "node1"))
	second := pids()
	if second.Noded == 0 || second.Noded == first.Noded || second.Masterd != first.Masterd {
		t.Errorf("after start: %+v, before the kill %+v", second, first)
	}
	must(t, c.Kill(ctx, "node1.example", All))
	if got := pids(); got != (PIDs{}) {
		t.Errorf("after kill all: %+v", got)
	}
	must(t, c.Start(ctx, "node1"))
	third := pids()
	must(t, c.Signal(ctx, "node1", Masterd, syscall.SIGSTOP))
	eventually(t, "a stopped masterd", func() bool { return procState(t, third.Masterd) == "T" })
	must(t, c.Signal(ctx, "node1", Masterd, syscall.SIGCONT))
	eventually(t, "a running masterd", func() bool { return procState(t, third.Masterd) != "T" })
	must(t, c.Signal(ctx, "node1", All, syscall.SIGSTOP))
	must(t, c.Stop(ctx, "node1"))
	if got := pids(); got != (PIDs{}) {
		t.Errorf("after stop: %+v", got)
	}
	if n, err := c.Node(ctx, "node2"); err != nil || n.PIDs.Noded == 0 {
		t.Errorf("node2 was touched: %+v, %v", n, err)
	}
	if err := c.Kill(ctx, "node1", "cron"); err == nil {
		t.Error("kill of an unknown daemon succeeded")
	}
}

func procState(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
	must(t, err)
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]
}

func livingPIDs(t *testing.T) []int {
	t.Helper()
	var pids []int
	for _, p := range descendants(1) {
		pids = append(pids, p.pid)
	}
	if len(pids) == 0 {
		t.Fatal("no processes at all")
	}
	return pids
}
