package noded

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/rpc"
)

var preModify = rpc.HooksRequest{Hook: rpc.HookNodeModify, Phase: rpc.HooksPre, Vars: map[string]string{"NODE_NAME": "node2.example"}}

// hookDir makes the folder of node-modify's pre phase.
func hookDir(t *testing.T, at paths.Layout) string {
	t.Helper()
	dir := filepath.Join(at.HooksDir(), "node-modify-pre.d")
	for _, d := range []string{at.ConfigDir(), at.HooksDir(), dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func direct(f func() error) error { return f() }

func testHooks(t *testing.T) (h *hooks, dir string) {
	t.Helper()
	at := paths.Layout{Root: t.TempDir()}
	h = newHooks(at)
	t.Cleanup(h.wait)
	return h, hookDir(t, at)
}

func runAll(t *testing.T, h *hooks) []rpc.HookResult {
	t.Helper()
	reply, err := h.run(t.Context(), preModify, direct)
	if err != nil {
		t.Fatal(err)
	}
	return reply.Results
}

func TestHooksRunInOrder(t *testing.T) {
	t.Setenv("ROLEKEY_SECRET", "not for scripts")
	h, dir := testHooks(t)
	script(t, filepath.Join(dir, "20-env"), `/usr/bin/env | /usr/bin/sort; pwd; read x || echo no input`)
	script(t, filepath.Join(dir, "30-fails"), `echo said; echo more >&2; exit 3`)
	script(t, filepath.Join(dir, "10-quiet"), ``)
	script(t, filepath.Join(dir, "40-copy.bak"), `echo never`)
	write(t, filepath.Join(dir, "README"), []byte("a text"))
	got := runAll(t, h)
	if len(got) != 3 || got[0] != (rpc.HookResult{Script: "10-quiet", Status: rpc.HookSucceeded}) ||
		got[2] != (rpc.HookResult{Script: "30-fails", Status: rpc.HookFailed, Reason: "exit code 3", Output: "said\nmore"}) {
		t.Fatalf("%+v", got)
	}
	var env []string
	for line := range strings.SplitSeq(got[1].Output, "\n") {
		// The shell sets these by itself.
		if !strings.HasPrefix(line, "PWD=") && !strings.HasPrefix(line, "_=") && !strings.HasPrefix(line, "SHLVL=") && !strings.HasPrefix(line, "OLDPWD=") {
			env = append(env, line)
		}
	}
	if want := append(preModify.Environ(), "/", "no input"); !slices.Equal(env, want) {
		t.Errorf("environment %q, want %q", env, want)
	}
}

func TestHooksThatOthersCouldWriteAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(h *hooks, dir string) error
		want  string
	}{
		"file for all":   {func(_ *hooks, dir string) error { return os.Chmod(filepath.Join(dir, "a"), 0o757) }, "is writable by others than its owner"},
		"file for group": {func(_ *hooks, dir string) error { return os.Chmod(filepath.Join(dir, "a"), 0o775) }, "is writable by others than its owner"},
		"folder":         {func(_ *hooks, dir string) error { return os.Chmod(dir, 0o777) }, "is writable by others than its owner"},
		"folder above":   {func(h *hooks, _ string) error { return os.Chmod(h.above[0], 0o777) }, "is writable by others than its owner"},
		"owner":          {func(h *hooks, _ string) error { h.owners = nil; return nil }, "is not owned by root"},
		"symbolic link": {func(_ *hooks, dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "a"), filepath.Join(filepath.Dir(dir), "a")), os.Symlink("../a", filepath.Join(dir, "a")))
		}, "is not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			h, dir := testHooks(t)
			proof := filepath.Join(t.TempDir(), "ran")
			script(t, filepath.Join(dir, "a"), "echo >"+proof)
			if err := c.spoil(h, dir); err != nil {
				t.Fatal(err)
			}
			got := runAll(t, h)
			if len(got) != 1 || got[0].Status != rpc.HookRefused || !strings.HasSuffix(got[0].Reason, c.want) {
				t.Errorf("%+v", got)
			}
			if _, err := os.Stat(proof); err == nil {
				t.Error("it was run all the same")
			}
		})
	}
}

func TestHooksAreBounded(t *testing.T) {
	h, dir := testHooks(t)
	h.phase = time.Hour
	alive := lifeline(t)
	script(t, filepath.Join(dir, "a-hangs"), `exec 3>`+alive.path+`; echo began >&3; /bin/sleep 1000 & wait`)
	script(t, filepath.Join(dir, "b-talks"), `i=0; while [ $i -lt 200 ]; do echo 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'; i=$((i+1)); done`)
	script(t, filepath.Join(dir, "c-tricks"), `printf '\033[2J\377'`)
	h.script = 3 * time.Second
	got := runAll(t, h)
	if got[0].Status != rpc.HookFailed || got[0].Reason != "killed after 3s" {
		t.Errorf("%+v", got[0])
	}
	if n := len(got[1].Output); n > maxScriptOutput+10 || n < maxScriptOutput/2 {
		t.Errorf("%d bytes of output", n)
	}
	if got[2].Output != "?[2J?" {
		t.Errorf("%q", got[2].Output)
	}
	alive.begun()
	alive.awaitEnd() // of the script and of what it started
	h.phase = 0
	for _, r := range runAll(t, h) {
		if r.Status != rpc.HookFailed || !strings.HasPrefix(r.Reason, "not run") {
			t.Errorf("without time: %+v", r)
		}
	}
}

// TestHooksStartByTheMap: each start is an effect of the call, and without it
// nothing runs; a folder without scripts needs none.
func TestHooksStartByTheMap(t *testing.T) {
	h, dir := testHooks(t)
	never := errors.New("no longer the master")
	refuse := func(func() error) error { return never }
	if reply, err := h.run(t.Context(), preModify, refuse); err != nil || len(reply.Results) > 0 || !reply.NoPost {
		t.Errorf("empty folder: %v, %v", reply, err)
	}
	post := filepath.Join(filepath.Dir(dir), "node-modify-post.d")
	if err := os.Mkdir(post, 0o755); err != nil {
		t.Fatal(err)
	}
	script(t, filepath.Join(post, "a"), "")
	if reply, err := h.run(t.Context(), preModify, refuse); err != nil || reply.NoPost {
		t.Errorf("scripts for the post phase alone: %v, %v", reply, err)
	}
	proof := filepath.Join(t.TempDir(), "ran")
	script(t, filepath.Join(dir, "a"), "echo >"+proof)
	if _, err := h.run(t.Context(), preModify, refuse); !errors.Is(err, never) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(proof); err == nil {
		t.Error("it ran")
	}
	for range hookTurns {
		h.turns <- struct{}{}
	}
	_, err := h.run(t.Context(), preModify, direct)
	wantCode(t, "too many", err, cluster.CodeBusy)
}

// TestG4NoMapWaitsForAHook: a node acknowledges the map that deposes the master
// while a script of that master hangs, and the script is killed.
func TestG4NoMapWaitsForAHook(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	second := joined(t, w)
	w.promote(second, false)
	to := second.member().id.Node
	w.mustPush(to)
	dir, alive, proof := hookDir(t, second.cfg.Paths), lifeline(t), filepath.Join(t.TempDir(), "ran")
	script(t, filepath.Join(dir, "hangs"), `exec 3>`+alive.path+`; echo began >&3; /bin/sleep 1000`)
	script(t, filepath.Join(dir, "later"), `echo >`+proof)
	ended := make(chan error, 1)
	go func() { ended <- w.call(to, rpc.MethodHooks, "", preModify, new(rpc.HooksReply)) }()
	alive.begun()
	w.next(func(m *candmap.Map) { m.Master = to })
	started := time.Now()
	ack := w.mustPush(to)
	if took := time.Since(started); took > rpc.DefaultLimits.Drain {
		t.Errorf("the acknowledgement took %s", took)
	}
	if ack.Version != w.at() || len(ack.Problems) > 0 {
		t.Errorf("ack %+v", ack)
	}
	if err := <-ended; err == nil {
		t.Error("the hooks of the deposed master succeeded")
	}
	alive.awaitEnd()
	if _, err := os.Stat(proof); err == nil {
		t.Error("a script started after the master was deposed")
	}
}

// life is a named pipe that tells when a script has begun, and when the last
// process that it started has ended.
type life struct {
	t    *testing.T
	path string
	read chan string // what came until the first line's end, then the end
}

func lifeline(t *testing.T) *life {
	t.Helper()
	l := &life{t, filepath.Join(t.TempDir(), "alive"), make(chan string, 2)}
	if err := syscall.Mkfifo(l.path, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		f, err := os.Open(l.path)
		if err != nil {
			return
		}
		defer f.Close()
		r := bufio.NewReader(f)
		line, _ := r.ReadString('\n')
		l.read <- line
		_, _ = io.Copy(io.Discard, r)
		l.read <- ""
	}()
	return l
}

func (l *life) begun() { l.await("began\n") }

func (l *life) awaitEnd() { l.await("") }

func (l *life) await(want string) {
	l.t.Helper()
	select {
	case got := <-l.read:
		if got != want {
			l.t.Fatalf("the script says %q, want %q", got, want)
		}
	case <-time.After(patience):
		l.t.Fatalf("no %q from the script", want)
	}
}
