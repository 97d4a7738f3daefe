package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// injection is strace(1) on a running daemon.
type injection struct {
	cmd  *exec.Cmd
	log  string
	done chan error
}

// inject attaches strace to a daemon. Tests are skipped where that is not
// permitted.
func (w *world) inject(pid int, what string) *injection {
	w.t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		w.t.Skip("strace is not installed")
	}
	calls, _, _ := strings.Cut(what, ":")
	i := &injection{log: filepath.Join(w.t.TempDir(), "strace"), done: make(chan error, 1)}
	i.cmd = exec.Command(path, "-f", "-o", i.log, "-e", "trace="+calls, "-e", "inject="+what, "-p", fmt.Sprint(pid))
	stderr, err := i.cmd.StderrPipe()
	w.must(err)
	w.must(i.cmd.Start())
	attached := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			select {
			case attached <- lines.Text():
			default:
			}
		}
		i.done <- i.cmd.Wait()
	}()
	w.t.Cleanup(i.end)
	select {
	case line := <-attached:
		if !strings.Contains(line, "attached") {
			i.end()
			w.t.Skipf("strace is not permitted here: %s", line)
		}
	case err := <-i.done:
		i.done <- err
		w.t.Skipf("strace is not permitted here: %v", err)
	case <-time.After(limit):
		w.t.Fatal("strace does not attach")
	}
	return i
}

// end detaches strace; the daemon lives on if it still lives. Now and then
// strace 6.1 does not notice that a daemon with many threads has been killed.
func (i *injection) end() {
	_ = i.cmd.Process.Signal(syscall.SIGINT) // it may have ended with the daemon
	select {
	case err := <-i.done:
		i.done <- err
	case <-time.After(5 * time.Second):
		_ = i.cmd.Process.Kill()
		i.done <- <-i.done
	}
}

// hits is how often the injection took effect; call it after end.
func (w *world) hits(i *injection) int {
	w.t.Helper()
	b, err := os.ReadFile(i.log)
	w.must(err)
	return strings.Count(string(b), "(INJECTED)")
}

// TestG7KillAtEveryFsync ends daemons at their Nth attempt to make something
// durable, while a node is promoted.
func TestG7KillAtEveryFsync(t *testing.T) {
	w := rested(t)
	for _, victim := range []struct {
		daemon string
		node   func() string
		calls  string
	}{
		{lab.Noded, func() string { return "node4.example" }, "fsync"},
		{lab.Masterd, func() string { return "node4.example" }, "fsync"},
		{lab.Masterd, w.master, "fdatasync"},
		{lab.Noded, w.master, "fsync"},
	} {
		for n := 1; n <= 4; n++ {
			name := victim.node()
			i := w.inject(w.node(name).PIDs.Get(victim.daemon), fmt.Sprintf("%s:signal=KILL:when=%d", victim.calls, n))
			r, err := w.tryAdmin("gnt-node", "modify", "-C", "yes", "node4")
			w.must(err)
			i.end()
			killed := w.node(name).PIDs.Get(victim.daemon) == 0
			t.Logf("%s of %s at %s number %d: killed %v, exit code %d", victim.daemon, name, victim.calls, n, killed, r.Code)
			w.startAll()
			w.settle()
			w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
			w.admin(0, "gnt-node", "modify", "-C", "no", "node4")
			if !killed {
				break // it makes no more than that durable
			}
		}
	}
	w.settle()
	w.clean()
	w.until("node4 has destroyed its keys", func(context.Context) error { return left(w.node("node4")) })
}

// TestG7FullDisk: a node whose disk is full enforces a demotion all the same,
// because enforcing comes before persisting.
func TestG7FullDisk(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	w.settle()
	l, node5 := w.rob("node4"), w.node("node5")
	w.must(w.served(w.ctx, l.Caller(l.Candidate), node5))
	i := w.inject(node5.PIDs.Noded, "fsync,fdatasync,rename,renameat,renameat2:error=ENOSPC")
	r, err := w.tryAdmin("gnt-node", "modify", "-C", "no", "node4")
	w.must(err)
	t.Logf("exit code %d: %s", r.Code, strings.TrimSpace(r.Stderr))
	if r.Code != 0 && r.Code != 3 {
		t.Errorf("exit code %d", r.Code)
	}
	a, err := l.Caller(l.Candidate).Call(w.ctx, w.Noded(node5), http.MethodGet, "/v1/state", nil, nil)
	if err != nil || a.Code != "not_in_map" {
		t.Errorf("node5 with a full disk answers the demoted node: %s, %v", a, err)
	}
	key := filepath.Join(t.TempDir(), "stolen")
	w.must(os.WriteFile(key, l.SSHKey, 0o600))
	login := w.LoginWith(w.ctx, key, w.node("node4"), node5)
	if login == nil && (r.Code == 0 || !strings.Contains(r.Stderr, "node5")) {
		t.Errorf("the demoted node's SSH key opens node5, and the command with exit code %d does not say so: %s", r.Code, r.Stderr)
	}
	i.end()
	if w.hits(i) == 0 {
		t.Error("the disk was never full")
	}
	w.settle()
	w.until("the SSH key is refused", func(context.Context) error {
		return kit.Denied(w.LoginWith(w.ctx, key, w.node("node4"), node5))
	})
	w.clean()
}
