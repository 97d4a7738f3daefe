package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// TestG4RunningSessionsEnd: an SSH session that a candidate has open ends with
// its role; neither expiry nor a missing line in authorized_keys would end it.
func TestG4RunningSessionsEnd(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	w.settle()
	ended := map[string]<-chan int{}
	for _, n := range w.others("node4") {
		p, err := w.Spawn(w.ctx, lab.Cmd{Node: "node4", Args: []string{"ssh", "-o", "BatchMode=yes", n.Name, "echo in; exec sleep 300"}})
		w.must(err)
		greeting := make([]byte, 3)
		if _, err := p.Stdout.Read(greeting); err != nil || string(greeting) != "in\n" {
			t.Fatalf("session to %s: %q, %v", n.Name, greeting, err)
		}
		code := make(chan int, 1)
		ended[n.Name] = code
		go func() {
			c, _ := p.Wait() // the code says all
			code <- c
		}()
	}
	w.admin(0, "gnt-node", "modify", "-C", "no", "node4")
	for name, code := range ended {
		select {
		case c := <-code:
			if c == 0 {
				t.Errorf("the session on %s ended by itself", name)
			}
		case <-w.ctx.Done():
			t.Errorf("the session on %s goes on", name)
		}
	}
}

// TestG6NothingSecretLeaks looks for secrets where everybody looks: logs, the
// answers of commands, and the arguments and limits of the daemons.
func TestG6NothingSecretLeaks(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	w.settle()
	token := w.token("node9.example")
	secrets := map[string][]byte{"an admission string": []byte(token), "a private key": []byte("PRIVATE KEY")}
	for _, n := range w.nodes() {
		l := w.rob(n.Name)
		secrets["the gossip key"] = l.Gossip
		if l.Signing != nil {
			secrets["the signing key of "+n.Name] = l.Signing.Seed()
		}
	}
	w.admin(0, "gnt-node", "modify", "-C", "no", "node4")
	var said bytes.Buffer
	for _, args := range [][]string{
		{"gnt-cluster", "info", "--json"},
		{"gnt-cluster", "map", "--json"},
		{"gnt-node", "list", "--json"},
		{"gnt-node", "info", "node1"},
		{"gnt-node", "tokens", "list", "--json"},
		{"gnt-job", "list"},
	} {
		r := w.admin(0, args...)
		said.WriteString(r.Stdout + r.Stderr)
	}
	places := map[string][]byte{"what the commands print": said.Bytes()}
	for _, n := range w.nodes() {
		for _, d := range []string{lab.Noded, lab.Masterd} {
			b, err := os.ReadFile(n.Log(d))
			w.must(err)
			places[n.Log(d)] = b
			if places[auditLog(n, d)], err = os.ReadFile(auditLog(n, d)); err != nil {
				t.Error(err)
			}
			w.checkProcess(n.PIDs.Get(d), d, places)
		}
	}
	for where, text := range places {
		for what, secret := range secrets {
			for _, form := range forms(secret) {
				if bytes.Contains(text, form) {
					t.Errorf("%s holds %s", where, what)
				}
			}
		}
	}
}

// checkProcess adds what every user may see of a daemon, and checks that it
// leaves no core.
func (w *world) checkProcess(pid int, name string, places map[string][]byte) {
	w.t.Helper()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	w.must(err)
	for line := range strings.SplitSeq(string(limits), "\n") {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && f[4] != "0" {
			w.t.Errorf("%s may leave a core: %s", name, line)
		}
	}
	for _, file := range []string{"cmdline", "environ"} {
		path := fmt.Sprintf("/proc/%d/%s", pid, file)
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrPermission) { // not even its own user may read it
			w.t.Error(err)
		}
		places[path] = b
	}
}

// forms are the ways in which a secret may have been printed.
func forms(secret []byte) [][]byte {
	if len(secret) == 0 {
		return nil
	}
	return [][]byte{
		secret, []byte(hex.EncodeToString(secret)), []byte(base64.StdEncoding.EncodeToString(secret)),
		[]byte(base64.RawURLEncoding.EncodeToString(secret)), []byte(strings.Trim(fmt.Sprint(secret), "[]")),
	}
}

// TestG8ForeignLinesStay: what the administrator wrote into root's files stays
// as and where it is, whatever roles do.
func TestG8ForeignLinesStay(t *testing.T) {
	w := rested(t)
	node5 := w.node("node5")
	before := "# the administrator's\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDummyDummyDummyDummyDummyDummyDummyDummyDumm admin@desk\n\n"
	after := "\n  # indented, and without a newline at the end: \xff\xfe"
	files := []string{node5.AuthorizedKeys(), node5.KnownHosts()}
	for _, path := range files {
		b, err := os.ReadFile(path)
		w.must(err)
		w.must(os.WriteFile(path, []byte(before+string(b)+after), 0o600))
		t.Cleanup(func() { strip(t, path, before, after) })
	}
	own := filepath.Join(node5.Root, "root/.ssh/id_ed25519")
	w.must(kit.NewSSHKey(own))
	key, err := os.ReadFile(own)
	w.must(err)
	for _, want := range []string{"yes", "no"} {
		w.admin(0, "gnt-node", "modify", "-C", want, "node5")
		w.admin(0, "gnt-node", "modify", "-C", want, "node4")
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		w.must(err)
		if !strings.HasPrefix(string(b), before) || !strings.HasSuffix(string(b), after) {
			t.Errorf("%s has changed around the managed block:\n%s", path, b)
		}
	}
	if now, err := os.ReadFile(own); err != nil || !bytes.Equal(now, key) {
		t.Errorf("the administrator's own key has changed: %v", err)
	}
	w.must(os.Remove(own))
}

// strip takes out what the test has added.
func strip(t *testing.T, path, before, after string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	text := strings.Replace(strings.Replace(string(b), before, "", 1), after, "", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Error(err)
	}
}

// reachOfMaster is a step of the small cluster, which is founded with
// --ssh-reach master: only the master's key opens any node, and at a change of
// master the new map brings the new key.
func reachOfMaster(w *world) {
	old := w.master()
	w.onlyLogin(old)
	w.must(w.Kill(w.ctx, old, lab.Masterd))
	name, _, err := w.AwaitMaster(w.ctx, limit, old)
	w.must(err)
	w.onlyLogin(name)
	w.must(w.Start(w.ctx, old))
	w.settle()
}

// onlyLogin checks that one node logs in everywhere and the others nowhere.
func (w *world) onlyLogin(master string) {
	w.t.Helper()
	for _, from := range w.nodes() {
		for _, to := range w.others(from.Name) {
			want := func(context.Context) error { return kit.Denied(w.Login(w.ctx, from, to)) }
			if from.Name == master {
				want = func(context.Context) error { return w.Login(w.ctx, from, to) }
			}
			w.until(fmt.Sprintf("only %s logs in: %s to %s", master, from.Name, to.Name), want)
		}
	}
}
