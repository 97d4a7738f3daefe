package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rolekey/internal/paths"
)

// playEnv makes this test binary masterd itself: hardening is for a whole
// process.
const playEnv = "MASTERD_TEST_PLAY"

func TestMain(m *testing.M) {
	if os.Getenv(playEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

func runHere(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(context.Background(), args, &out, &err)
	return code, out.String(), err.String()
}

func TestCheckConfig(t *testing.T) {
	at := paths.Layout{Root: t.TempDir()}
	if code, out, err := runHere("--root", at.Root, "--check-config"); code != 0 || out+err != "" {
		t.Errorf("no file: %d %s%s", code, out, err)
	}
	if err := os.MkdirAll(at.ConfigDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"log_level = \"warn\"\n":  "",
		"log_level = \"loud\"\n":  "log_level",
		"log_lovel = \"warn\"\n":  "log_lovel",
		"addresses = [\"x\"]\n":   "masterd.toml",
		"addresses = \"1.2.3.4\"": "masterd.toml",
	} {
		if err := os.WriteFile(at.MasterdConfig(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		code, out, err := runHere("--root", at.Root, "--check-config")
		if (code == 0) != (want == "") || !strings.Contains(err, want) || out != "" {
			t.Errorf("%q: %d %q %q", text, code, out, err)
		}
	}
}

func TestUsage(t *testing.T) {
	if code, out, _ := runHere("--version"); code != 0 || !strings.HasPrefix(out, "masterd (Rolekey) ") {
		t.Errorf("--version: %d %q", code, out)
	}
	if code, out, _ := runHere("--help"); code != 0 || !strings.Contains(out, "--check-config") {
		t.Errorf("--help: %d %q", code, out)
	}
	for _, args := range [][]string{{"--nosuch"}, {"extra"}} {
		if code, _, err := runHere(args...); code != 1 || !strings.HasPrefix(err, "masterd: ") {
			t.Errorf("%v: %d %q", args, code, err)
		}
	}
}

// The daemon tells the service manager when it serves, leaves no core, logs
// JSON, and ends well on SIGTERM.
func TestLife(t *testing.T) {
	at := paths.Layout{Root: t.TempDir()}
	for _, dir := range []string{at.RunDir(), at.MasterdDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	notify := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(os.Args[0], "--root", at.Root)
	cmd.Env = append(os.Environ(), playEnv+"=1", "NOTIFY_SOCKET="+notify)
	lines, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() //nolint:errcheck // it has ended, unless the test failed
	var log bytes.Buffer
	scan := bufio.NewScanner(io.TeeReader(lines, &log))
	told := make([]byte, 64)
	if err := l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := l.Read(told)
	if err != nil || string(told[:n]) != "READY=1" {
		t.Fatalf("told %q, %v; log:\n%s", told[:n], err, log.String())
	}
	conn, err := paths.DialUnix(t.Context(), at.MasterdSock())
	if err != nil {
		t.Fatalf("ready, and does not serve: %v", err)
	}
	conn.Close()
	if core := limit(t, cmd.Process.Pid, "Max core file size"); core != "0 0 bytes" {
		t.Errorf("core files: %s", core)
	}
	// A reload, as the service manager orders it, ends nothing.
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !scanFor(scan, `"msg":"audit log opened anew`) {
		t.Fatalf("after SIGHUP; log:\n%s", log.String())
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for scan.Scan() { // to the end, before Wait
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v; log:\n%s", err, log.String())
	}
	for line := range strings.Lines(log.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry["time"] == nil || entry["level"] == nil {
			t.Errorf("log line %q: %v", line, err)
		}
	}
	if !strings.Contains(log.String(), `"msg":"stopped"`) {
		t.Errorf("log:\n%s", log.String())
	}
}

// scanFor reads lines until one has the text; false at the end.
func scanFor(scan *bufio.Scanner, text string) bool {
	for scan.Scan() {
		if strings.Contains(scan.Text(), text) {
			return true
		}
	}
	return false
}

// limit reads a line of /proc/PID/limits.
func limit(t *testing.T, pid int, name string) string {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	t.Fatalf("no limit %q", name)
	return ""
}
