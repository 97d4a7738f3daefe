package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rolekey/internal/lab"
	"rolekey/internal/sdnotify"
)

// programEnv names what this test binary plays: devcluster or a daemon.
const programEnv = "DEVCLUSTER_TEST_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(programEnv) {
	case "devcluster":
		main()
	case "daemon":
		daemon()
	default:
		lab.Main(nil)
		os.Exit(m.Run())
	}
}

// daemon is ready at once and ends on SIGTERM.
func daemon() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := sdnotify.Ready(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	<-ctx.Done()
}

// bed is a folder for one cluster of stand-ins.
type bed struct {
	t        *testing.T
	dir, bin string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, dir: filepath.Join(t.TempDir(), "with space"), bin: t.TempDir()}
	for _, name := range []string{"noded", "masterd"} {
		script := fmt.Sprintf("#!/bin/sh\nexec env %s=daemon '%s' \"$@\"\n", programEnv, exe)
		if err := os.WriteFile(filepath.Join(b.bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// run runs devcluster as a process and returns what it printed, and its code.
func (b *bed) run(input string, args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = append(os.Environ(), programEnv+"=devcluster", "ROLEKEY_DEVCLUSTER="+b.dir)
	cmd.Stdin = strings.NewReader(input)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// want runs devcluster and checks the code.
func (b *bed) want(code int, args ...string) (stdout, stderr string) {
	b.t.Helper()
	stdout, stderr, got := b.run("", args...)
	if got != code {
		b.t.Fatalf("devcluster %q: code %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	return stdout, stderr
}

func (b *bed) up(args ...string) {
	b.t.Helper()
	b.want(0, append([]string{"up", "--bare", "--bin", b.bin}, args...)...)
	b.t.Cleanup(func() { _, _, _ = b.run("", "down", "--purge") })
}

func TestLifeOfACluster(t *testing.T) {
	b := newBed(t)
	b.up("--nodes", "2")
	// up has returned, and the cluster goes on without it.
	var st lab.State
	out, _ := b.want(0, "status", "--json")
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(b.dir, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	var fromFile map[string]any
	if err := json.Unmarshal(file, &fromFile); err != nil {
		t.Fatal(err)
	}
	node := fromFile["nodes"].([]any)[1].(map[string]any)
	for _, key := range []string{"name", "uuid", "address", "ssh_port", "root", "user", "pids"} {
		if _, ok := node[key]; !ok {
			t.Errorf("cluster.json: no %s in %v", key, node)
		}
	}
	b.want(0, "kill", "node2", "noded")
	out, _ = b.want(0, "status")
	if !strings.Contains(out, "node2.example") || !strings.Contains(out, " - ") {
		t.Errorf("status after kill:\n%s", out)
	}
	b.want(0, "start", "node2")
	b.want(0, "kill", "--signal", "STOP", "node1", "masterd")
	b.want(0, "kill", "node1", "masterd", "--signal", "CONT")
	b.want(0, "stop", "node1,node2")
	b.want(exitFailed, "kill", "node1", "init")
	b.want(exitFailed, "stop", "node7")
	b.want(0, "down")
	if _, err := os.Stat(filepath.Join(b.dir, "node1")); err != nil {
		t.Errorf("down without --purge: %v", err)
	}
	b.want(exitNoCluster, "status")
	b.want(0, "down", "--purge")
	if _, err := os.Stat(b.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("down --purge left the folder: %v", err)
	}
}

func TestExecPassesEverything(t *testing.T) {
	b := newBed(t)
	b.up("--nodes", "1")
	for _, tc := range []struct {
		input, out, err string
		code            int
		args            []string
	}{
		{"in\n", "in\n", "", 0, []string{"exec", "node1", "--", "cat"}},
		{"", "out\n", "err\n", 9, []string{"exec", "node1.example", "--", "sh", "-c", "echo out; echo err >&2; exit 9"}},
		{"", filepath.Join(b.dir, "node1") + "\n", "", 0, []string{"exec", "node1", "sh", "-c", "echo $ROLEKEY_ROOT"}},
		{"", "-n --dir x\n", "", 0, []string{"exec", "node1", "--", "printf", "%s %s %s\\n", "-n", "--dir", "x"}},
	} {
		out, errOut, code := b.run(tc.input, tc.args...)
		if out != tc.out || errOut != tc.err || code != tc.code {
			t.Errorf("%q: got %q, %q, %d", tc.args, out, errOut, code)
		}
	}
	b.want(exitNotFound, "exec", "node1", "--", "no-such-command")
	b.want(exitExecFailed, "exec", "node5", "--", "true")
	b.want(exitFailed, "exec", "node1")
}

func TestExecPassesSignals(t *testing.T) {
	b := newBed(t)
	b.up("--nodes", "1")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "exec", "node1", "--", "sh", "-c", "trap 'echo caught; exit 6' INT; echo set; while :; do sleep 0.01; done")
	cmd.Env = append(os.Environ(), programEnv+"=devcluster", "ROLEKEY_DEVCLUSTER="+b.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "set\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); line != "caught\n" {
		t.Errorf("after SIGINT: got %q, %v", line, err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 6 {
		t.Errorf("after SIGINT: %v", err)
	}
}

func TestPartitionOrSkipped(t *testing.T) {
	b := newBed(t)
	b.up("--nodes", "2")
	out, _ := b.want(0, "status")
	if strings.Contains(out, "no partitions:") {
		_, stderr := b.want(exitSkipped, "partition", "node1")
		if !strings.HasPrefix(stderr, "SKIPPED: ") {
			t.Errorf("stderr: %q", stderr)
		}
		return
	}
	b.want(0, "partition", "node1")
	if out, _ := b.want(0, "status"); !strings.Contains(out, "cut: node1.example - node2.example") {
		t.Errorf("status: %s", out)
	}
	b.want(0, "exec", "node1", "--", "true")
	b.want(0, "heal")
	if out, _ := b.want(0, "status"); strings.Contains(out, "cut:") {
		t.Errorf("status after heal: %s", out)
	}
}

func TestMachines(t *testing.T) {
	b := newBed(t)
	_, stderr, code := b.run("", "up", "--bare", "--bin", b.bin, "--isolation", "netns", "--nodes", "2")
	if code == exitSkipped || os.Geteuid() != 0 {
		t.Skip(stderr)
	}
	if code != 0 {
		t.Fatal(stderr)
	}
	t.Cleanup(func() { _, _, _ = b.run("", "down", "--purge") })
	var st lab.State
	out, _ := b.want(0, "status", "--json")
	if err := json.Unmarshal([]byte(out), &st); err != nil || st.Isolation != "netns" || len(st.Nodes) != 2 || st.Nodes[1].SSHPort != 22 || len(st.Nodes[1].Addresses) != 2 {
		t.Errorf("status: %s, %v", out, err)
	}
	if out, _ := b.want(0, "exec", "node2", "--", "hostname"); out != "node2.example\n" {
		t.Errorf("host name %q", out)
	}
	b.want(9, "exec", "node2", "--", "sh", "-c", "exit 9")
	b.want(exitNotFound, "exec", "node1", "--", "no-such-command")
	b.want(0, "partition", "node1")
	b.want(0, "heal")
	b.want(0, "kill", "node1", "all")
	b.want(0, "start", "node1")
	b.want(0, "down")
	b.want(exitNoCluster, "status")
}

func TestRefusals(t *testing.T) {
	b := newBed(t)
	if _, stderr := b.want(exitFailed, "up", "--isolation", "moon"); !strings.Contains(stderr, "want loopback or netns") {
		t.Errorf("unknown isolation: %q", stderr)
	}
	if os.Geteuid() != 0 {
		if _, stderr := b.want(exitFailed, "up", "--isolation", "netns"); !strings.Contains(stderr, "needs root") || !strings.Contains(stderr, "use isolation loopback") {
			t.Errorf("netns: %q", stderr)
		}
	}
	b.want(exitNoCluster, "down")
	b.want(exitFailed, "kill", "--signal", "NOPE", "node1", "noded")
	if out, _ := b.want(0, "--version"); !strings.HasPrefix(out, "devcluster ") {
		t.Errorf("version: %q", out)
	}
	if out, _ := b.want(0, "--help"); !strings.Contains(out, "partition") {
		t.Errorf("help: %q", out)
	}
}
