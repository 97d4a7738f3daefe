package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// fakeSSH puts an ssh on PATH that runs commands here, with the host's name in
// $HOST, and notes the arguments that it was given. node3 does not answer.
func fakeSSH(t *testing.T) (seen string) {
	t.Helper()
	dir := t.TempDir()
	seen = filepath.Join(dir, "seen")
	text := `#!/bin/sh
printf '%s|' "$@" >>` + seen + `; echo >>` + seen + `
while [ "$1" != -- ]; do shift; done
HOST=$2; export HOST
[ "$HOST" = node3.lab.test ] && { echo "ssh: connect to host $HOST: no route" >&2; exit 255; }
shift 2
exec sh -c "$*"
`
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return seen
}

func TestCommand(t *testing.T) {
	seen := fakeSSH(t)
	m := master(t, 3)
	m.b.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), Flags: &state.FlagPatch{Offline: new(true)}})
	r := m.run(Cluster, "command", "echo", "on $HOST;", "echo 'to stderr' >&2; exit", `$(case $HOST in node1*) echo 4;; esac)`)
	want := "node: node3.lab.test\nssh: connect to host node3.lab.test: no route\nreturn code = 255\n\n" +
		"node: node1.lab.test\non node1.lab.test\nto stderr\nreturn code = 4\n"
	if r.code != ExitFailed || r.out != want || r.err != "Left out, because offline: node2.lab.test\nThe command failed on 2 of 2 node(s)\n" {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	line, err := os.ReadFile(seen)
	if err != nil || !strings.Contains(string(line), "-o|BatchMode=yes|-o|ConnectTimeout=10|-o|ServerAliveInterval=15|-o|ControlPath=none|-T|--|node1.lab.test|echo on $HOST; echo 'to stderr' >&2; exit $(case") {
		t.Errorf("%s, %v", line, err)
	}
	if out := m.want(Cluster, "command", "-n", "node1", "-n", "node1.lab.test", "true", "-n", "--json"); out != "node: node1.lab.test\nreturn code = 0\n" {
		t.Errorf("%q", out)
	}
	r = m.run(Cluster, "command", "-M", "--failure-only", "printf 'a\nb'; exit 0")
	if r.out != "node3.lab.test: ssh: connect to host node3.lab.test: no route\nnode3.lab.test: return code = 255\n" {
		t.Errorf("%q", r.out)
	}
	if out := m.want(Cluster, "command", "-M", "-n", "node1", `printf 'a\nb'`); out != "node1.lab.test: a\nnode1.lab.test: b\nnode1.lab.test: return code = 0\n" {
		t.Errorf("%q", out)
	}
	var report commandReport
	m.wantJSON(&report, Cluster, "command", "--json", "-n", "node1", "-n", "node2", "echo hi")
	if fmt.Sprint(report) != "{echo hi [{node1.lab.test 0 hi\n false}] [node2.lab.test]}" {
		t.Errorf("%+v", report)
	}
	m.fail(ExitFailed, "Node 'node9' not known", Cluster, "command", "-n", "node9", "true")
	m.fail(ExitFailed, "unknown shorthand flag: 'g'", Cluster, "command", "-g", "default", "true")
	m.fail(ExitFailed, "usage:", Cluster, "command")
	m.fail(ExitFailed, "usage:", Cluster, "copyfile")
}

// TestCommandIsParallelAndBounded: the nodes run at the same time, their output
// stays in order, and what is too long is cut.
func TestCommandIsParallelAndBounded(t *testing.T) {
	fakeSSH(t)
	m := master(t, 3)
	m.b.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(3), Flags: &state.FlagPatch{Offline: new(true)}})
	// node2's part ends when node1's, which is printed last, has begun.
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	r := m.run(Cluster, "command", `case $HOST in node1*) echo hello >`+pipe+`;; *) cat `+pipe+`; yes | head -c 2000000;; esac`)
	if r.code != ExitOK || !strings.HasPrefix(r.out, "node: node2.lab.test\nhello\ny\n") || len(r.out) > maxSSHOutput+200 || len(r.out) < maxSSHOutput {
		t.Errorf("exit code %d, %d bytes: %.100s", r.code, len(r.out), r.out)
	}
	if !strings.Contains(r.err, "Node node2.lab.test said more than 1024 KiB") {
		t.Errorf("%q", r.err)
	}
}

// TestCommandEndsWithItsCaller: nothing is left behind.
func TestCommandEndsWithItsCaller(t *testing.T) {
	fakeSSH(t)
	m := master(t, 1)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	var stdout, stderr bytes.Buffer
	go func() {
		ended <- Run(ctx, Cluster, []string{"--root", m.at.Root, "command", "exec 3>" + pipe + "; exec sleep 1000"}, &stdout, &stderr)
	}()
	f, err := os.Open(pipe) // when the command has begun
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cancel()
	select {
	case code := <-ended:
		if code != ExitFailed {
			t.Errorf("exit code %d: %s", code, &stderr)
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	if n, err := f.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestCopyfile(t *testing.T) {
	seen := fakeSSH(t)
	m := master(t, 3)
	m.serveNoded(rpc.LocalStatusReply{State: "member", Name: "node1.lab.test", Master: "node1.lab.test", Role: "master"})
	path := filepath.Join(t.TempDir(), "it's a $file")
	write := func(text string) os.FileInfo {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o751); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	old := write("content\n")
	m.want(Cluster, "copyfile", "-n", "node1", "-n", "node2", path)
	text, err := os.ReadFile(path)
	info, err2 := os.Stat(path)
	if err != nil || err2 != nil || string(text) != "content\n" || info.Mode() != old.Mode() || os.SameFile(info, old) {
		t.Errorf("%q, mode %v, same file %v, %v, %v", text, info.Mode(), os.SameFile(info, old), err, err2)
	}
	r := m.run(Cluster, "copyfile", "--json", path)
	if r.code != ExitFailed || !strings.Contains(r.err, "Copy of "+path+" to node node3.lab.test failed: ssh: connect to host node3.lab.test: no route\n") ||
		!strings.Contains(r.out, `"node": "node2.lab.test",`+"\n      \"ok\": true") || strings.Contains(r.out, "node1") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	m.want(Cluster, "copyfile", "--use-replication-network", "-n", "node2", path)
	if line, _ := os.ReadFile(seen); !strings.Contains(string(line), "|--|10.77.0.2|exec sh -c ") {
		t.Errorf("%s", line)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".rolekey*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestCopyfileTakesAllOrNothing: a connection that breaks looks like the end.
func TestCopyfileTakesAllOrNothing(t *testing.T) {
	fakeSSH(t)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &copyFile{path: path, owner: fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()), mode: 0o644, size: 100}
	var got done
	if err := overSSH(t.Context(), []remote{{to: "node2", command: c.command(), stdin: strings.NewReader("half")}}, func(d done) { got = d }); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); !got.failed() || copyFailure(got) != "the file has not arrived whole" || string(text) != "old" || err != nil {
		t.Errorf("%+v: %q, %v", got, text, err)
	}
	c.path = filepath.Dir(path)
	if err := overSSH(t.Context(), []remote{{to: "node2", command: c.command(), stdin: strings.NewReader("")}}, func(d done) { got = d }); err != nil || !strings.HasSuffix(copyFailure(got), "is a folder there") {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestG5CopyfileRefusesPrivateFiles, by whatever name.
func TestG5CopyfileRefusesPrivateFiles(t *testing.T) {
	fakeSSH(t)
	m := master(t, 2)
	key := m.at.SSHKey()
	if err := os.MkdirAll(filepath.Dir(key), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte("PRIVATE"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "innocent")
	if err := os.Symlink(filepath.Dir(key), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{key, link + "/id", filepath.Dir(key) + "/../ssh/id"} {
		m.fail(ExitFailed, "is this node's own state", Cluster, "copyfile", path)
	}
	m.fail(ExitFailed, "want an absolute path", Cluster, "copyfile", "etc/motd")
	m.fail(ExitFailed, "is not a regular file", Cluster, "copyfile", filepath.Dir(link))
	m.fail(ExitFailed, "no such file", Cluster, "copyfile", link+"-not")
	pipe := filepath.Join(filepath.Dir(link), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	m.fail(ExitFailed, "is not a regular file", Cluster, "copyfile", pipe)
}

func FuzzQuoted(f *testing.F) {
	for _, s := range []string{"", "a b", "it's", "$(reboot)", "a\nb", `\'`, "-n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsRune(s, 0) {
			return
		}
		q := quoted(s)
		if !strings.HasPrefix(q, "'") || !strings.HasSuffix(q, "'") || strings.ReplaceAll(strings.ReplaceAll(q[1:len(q)-1], `'\''`, "\x00"), "\x00", "'") != s ||
			strings.Contains(strings.ReplaceAll(q[1:len(q)-1], `'\''`, ""), "'") {
			t.Errorf("%q becomes %q", s, q)
		}
	})
}
