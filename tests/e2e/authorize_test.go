package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"rolekey/internal/lab"
	"rolekey/internal/paths"
	"rolekey/sshkeys"
	"rolekey/tests/kit"
)

// asking is the large cluster with ssh_authorize=command, for one test.
type asking struct {
	*world
	master string
	own    string // the administrator's private key, authorized on node5 by his own line
}

// asks has sshd of all nodes ask noded, and makes it as it was in the end.
func asks(t *testing.T) *asking {
	w := rested(t)
	if err := sshkeys.CheckProgram(program(w)); err != nil {
		t.Skip("SKIP: sshd would run noded only where it is root's, as on a real node:", err)
	}
	a := &asking{world: w, master: w.master(), own: filepath.Join(t.TempDir(), "own")}
	w.must(kit.NewSSHKey(a.own))
	text, err := os.ReadFile(a.own)
	w.must(err)
	key, err := ssh.ParsePrivateKey(text)
	w.must(err)
	node5 := w.node("node5")
	before, err := os.ReadFile(node5.AuthorizedKeys())
	w.must(err)
	w.must(os.WriteFile(node5.AuthorizedKeys(), append(before, ssh.MarshalAuthorizedKey(key.PublicKey())...), 0o600))
	t.Cleanup(func() {
		w.startAll()
		w.settle()
		w.admin(0, "gnt-cluster", "modify", "--ssh-authorize=file")
		for _, n := range w.nodes() {
			if a.blocks(n) == 0 || a.dropIn(n) {
				t.Errorf("%s does not follow authorized_keys again", n.Name)
			}
		}
		w.clean()
	})
	w.admin(0, "gnt-cluster", "modify", "--ssh-authorize=command")
	return a
}

func program(w *world) string {
	st, err := w.State(w.ctx)
	w.must(err)
	return filepath.Join(st.Bin, "noded")
}

func (a *asking) blocks(n lab.Node) int {
	a.t.Helper()
	text, err := os.ReadFile(n.AuthorizedKeys())
	a.must(err)
	return strings.Count(string(text), "rolekey:")
}

func (a *asking) dropIn(n lab.Node) bool {
	_, err := os.Stat(paths.Layout{Root: n.Root}.SSHDDropIn())
	return err == nil
}

// opens checks that the key of one node opens another.
func (a *asking) opens(from, to string) {
	a.t.Helper()
	if err := a.Login(a.ctx, a.node(from), a.node(to)); err != nil {
		a.t.Errorf("ssh from %s to %s: %v", from, to, err)
	}
}

// shut checks that it does not, and that the administrator's own key does.
func (a *asking) shut(what, from string) {
	a.t.Helper()
	if err := kit.ShutOut(a.Login(a.ctx, a.node(from), a.node("node5"))); err != nil {
		a.t.Errorf("%s: %v", what, err)
	}
	began := time.Now()
	if err := a.LoginWith(a.ctx, a.own, a.node(from), a.node("node5")); err != nil {
		a.t.Errorf("%s: the administrator is locked out: %v", what, err)
	}
	a.t.Logf("%s: the administrator's own key opens within %v", what, time.Since(began).Round(time.Millisecond))
}

// TestG4CommandFollowsRoles: no file changes, and each login follows the map.
func TestG4CommandFollowsRoles(t *testing.T) {
	a := asks(t)
	for _, n := range a.nodes() {
		if a.blocks(n) != 0 || !a.dropIn(n) {
			t.Errorf("%s: %d keys in authorized_keys, drop-in %v", n.Name, a.blocks(n), a.dropIn(n))
		}
		if n.Name != a.master {
			a.opens(a.master, n.Name)
		}
	}
	a.clean()
	a.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	a.opens("node4", "node5")
	stolen := filepath.Join(t.TempDir(), "id")
	text, err := os.ReadFile(paths.Layout{Root: a.node("node4").Root}.SSHKey())
	a.must(err)
	a.must(os.WriteFile(stolen, text, 0o600))
	a.must(a.LoginWith(a.ctx, stolen, a.node("node4"), a.node("node5")))
	a.admin(0, "gnt-node", "modify", "-C", "no", "node4")
	for _, n := range a.others("node4") {
		if err := kit.ShutOut(a.LoginWith(a.ctx, stolen, a.node("node4"), n)); err != nil {
			t.Errorf("the key of a demoted node and %s: %v", n.Name, err)
		}
	}
}

// TestG4CommandFailsClosed: without fresh news, or without noded, the cluster's
// keys open nothing. The administrator's own always do.
func TestG4CommandFailsClosed(t *testing.T) {
	a := asks(t)
	a.opens(a.master, "node5")
	a.must(a.Signal(a.ctx, "node5", lab.Noded, syscall.SIGSTOP))
	a.shut("noded hangs", a.master)
	a.must(a.Signal(a.ctx, "node5", lab.Noded, syscall.SIGCONT))
	a.until("noded answers again", func(ctx context.Context) error { return a.Login(ctx, a.node(a.master), a.node("node5")) })

	a.must(a.Kill(a.ctx, "node5", lab.Noded))
	a.shut("noded is dead", a.master)
	began := time.Now()
	login := make(chan error, 1)
	go func() { login <- a.Login(a.ctx, a.node(a.master), a.node("node5")) }()
	a.must(a.Start(a.ctx, "node5"))
	started := time.Since(began)
	err := <-login
	t.Logf("noded was back after %v, and the login that began before ended after %v: %v", started.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), err)
	took := a.until("noded is back", func(ctx context.Context) error { return a.Login(ctx, a.node(a.master), a.node("node5")) })
	t.Logf("a login worked %v after that", took.Round(time.Millisecond))

	for _, n := range a.nodes() {
		a.must(a.Kill(a.ctx, n.Name, lab.Masterd))
	}
	a.until("node5 is stale", func(ctx context.Context) error {
		if a.Login(ctx, a.node(a.master), a.node("node5")) == nil {
			return errors.New("a key of the cluster opens it")
		}
		return nil
	})
	a.shut("the map is stale", a.master)
	a.startAll()
	a.settle()
	a.opens(a.master, "node5")
}

// TestCommandLeavesForeignSettings: what the administrator has configured stays,
// and the node goes on with authorized_keys and says so.
func TestCommandLeavesForeignSettings(t *testing.T) {
	w := rested(t)
	if os.Getuid() != 0 {
		t.Skip("SKIP: sshd runs no command for another user than root")
	}
	foreign := filepath.Join(w.node("node5").Root, "etc/ssh/sshd_config.d/90-foreign.conf")
	const text = "AuthorizedKeysCommand /bin/false\nAuthorizedKeysCommandUser root\n"
	w.must(os.WriteFile(foreign, []byte(text), 0o644))
	t.Cleanup(func() { _ = os.Remove(foreign) })
	config := filepath.Join(w.node("node4").Root, "etc/ssh/sshd_config")
	whole, err := os.ReadFile(config)
	w.must(err)
	_, rest, _ := strings.Cut(string(whole), "\n")
	w.must(os.WriteFile(config, []byte(rest), 0o644))
	t.Cleanup(func() { _ = os.WriteFile(config, whole, 0o644) })

	a := asks(t)
	for _, name := range []string{"node4", "node5"} {
		if n := a.node(name); a.blocks(n) == 0 || a.dropIn(n) {
			t.Errorf("%s: %d keys in authorized_keys, drop-in %v", name, a.blocks(n), a.dropIn(n))
		}
		a.opens(a.master, name)
	}
	r := a.admin(1, "gnt-cluster", "verify")
	says(t, r.Stdout, "sshd_config has an AuthorizedKeysCommand of its own (/bin/false)", "sshd_config does not include", "authorized_keys stays in use")
	if b, err := os.ReadFile(foreign); err != nil || string(b) != text {
		t.Errorf("the administrator's file: %q, %v", b, err)
	}

	a.must(os.Remove(foreign))
	a.must(os.WriteFile(config, whole, 0o644))
	for _, name := range []string{"node4", "node5"} {
		a.must(a.Signal(a.ctx, name, lab.Noded, syscall.SIGHUP))
		a.until(name+" asks", func(context.Context) error {
			if n := a.node(name); a.blocks(n) != 0 || !a.dropIn(n) {
				return errors.New("it does not")
			}
			return nil
		})
		a.opens(a.master, name)
	}
	a.clean()
}

// TestSwitchUnderLogins: there is no moment in which the master's key does not
// open a node. While sshd reads its configuration again it does not listen,
// which ssh can tell from a refusal.
func TestSwitchUnderLogins(t *testing.T) {
	a := asks(t)
	ctx, stop := context.WithCancel(a.ctx)
	var logins, away atomic.Int32
	var users errgroup.Group
	for range 4 {
		users.Go(func() error {
			for ctx.Err() == nil {
				err := a.Login(a.ctx, a.node(a.master), a.node("node5"))
				switch {
				case err == nil:
					logins.Add(1)
				case strings.Contains(err.Error(), "Connection refused"), strings.Contains(err.Error(), "Connection reset"), strings.Contains(err.Error(), "Connection closed"):
					away.Add(1)
				default:
					return err
				}
			}
			return nil
		})
	}
	for round := range 10 {
		a.admin(0, "gnt-cluster", "modify", "--ssh-authorize="+[]string{"file", "command"}[round%2])
	}
	stop()
	if err := users.Wait(); err != nil {
		t.Errorf("a login failed: %v", err)
	}
	t.Logf("%d logins, and %d that met a sshd that was reading its configuration", logins.Load(), away.Load())
	if logins.Load() == 0 {
		t.Error("no login was made")
	}
	a.clean()
}

// TestG7SwitchIsResumed kills noded at any moment of a switch.
func TestG7SwitchIsResumed(t *testing.T) {
	a := asks(t)
	for round := range 8 {
		way := []string{"file", "command"}[round%2]
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = a.tryAdmin("gnt-cluster", "modify", "--ssh-authorize="+way) // it may say that node5 is missing
		}()
		// why-sleep: any moment will do.
		time.Sleep(time.Duration(25*round) * time.Millisecond)
		a.must(a.Kill(a.ctx, "node5", lab.Noded))
		<-done
		if way == "file" || a.blocks(a.node("node5")) > 0 {
			a.opensOrAsks(round)
		}
		a.must(a.Start(a.ctx, "node5"))
		a.until(fmt.Sprintf("node5 follows %s, round %d", way, round), func(ctx context.Context) error {
			n := a.node("node5")
			if file := way == "file"; (a.blocks(n) > 0) != file || a.dropIn(n) == file {
				return fmt.Errorf("%d keys in authorized_keys, drop-in %v", a.blocks(n), a.dropIn(n))
			}
			return a.Login(ctx, a.node(a.master), n)
		})
	}
	a.clean()
}

// opensOrAsks checks that a node whose noded is dead still has the keys in its
// file, unless it had been told to ask.
func (a *asking) opensOrAsks(round int) {
	a.t.Helper()
	err := a.Login(a.ctx, a.node(a.master), a.node("node5"))
	if err != nil && a.blocks(a.node("node5")) > 0 {
		a.t.Errorf("round %d: authorized_keys holds the keys, and: %v", round, err)
	}
}
