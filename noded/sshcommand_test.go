package noded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// authorizeBy has the roster say how sshd learns the keys.
func (w *world) authorizeBy(way cluster.SSHAuthorize) {
	ssh := cluster.DefaultSSHSettings
	ssh.Authorize = way
	w.settle(candmap.Settings{Name: "dev.example", SSH: &ssh}, func(*candmap.Map) {})
}

// foundedWithSSHD is a cluster of one node with a sshd.
func foundedWithSSHD(t *testing.T) (*world, *host, *fakeSSHD) {
	t.Helper()
	h := newHost(t)
	f := newFakeSSHD(t, h)
	return foundedOn(t, h), h, f
}

// follows checks that the node is as the setting says, to the last file.
func (f *fakeSSHD) follows(way cluster.SSHAuthorize) error {
	asks := way == cluster.AuthorizeCommand
	note := exists(f.h.d.command.note())
	if f.asking() != asks || f.h.dropIn() != asks || f.h.inFile() == asks || note {
		return fmt.Errorf("%s: sshd asks %v, drop-in %v, keys in the file %v, note %v", way, f.asking(), f.h.dropIn(), f.h.inFile(), note)
	}
	return f.opens(f.h.ownKey())
}

func TestAuthorizeByCommand(t *testing.T) {
	t.Parallel()
	w, h, f := foundedWithSSHD(t)
	id := h.member().id.Node
	for _, way := range []cluster.SSHAuthorize{cluster.AuthorizeCommand, cluster.AuthorizeFile, cluster.AuthorizeCommand} {
		w.authorizeBy(way)
		ack := w.mustPush(id)
		if len(ack.Problems) > 0 || ack.SSHCommand != (way == cluster.AuthorizeCommand) || ack.SSHUntil.Equal(ack.LeaseUntil) != ack.SSHCommand {
			t.Errorf("%s: acknowledged with %+v", way, ack)
		}
		if err := f.follows(way); err != nil {
			t.Error(err)
		}
	}
	if f.opens(newSSHKey(t)) == nil {
		t.Error("a stranger is let in")
	}
	before := f.reloads
	h.stop()
	if f.opens(newSSHKey(t)) == nil || f.opens(h.ownKey()) == nil {
		t.Error("somebody is let in without noded")
	}
	h.up()
	w.mustPush(id)
	if _, err := w.pushBeacon(id); err != nil {
		t.Fatal(err)
	}
	if err := f.follows(cluster.AuthorizeCommand); err != nil || f.reloads != before {
		t.Errorf("after a restart: %v, sshd was told to reload %d times", err, f.reloads-before)
	}

	// Without SSH in the map nothing of it stays.
	w.next(func(m *candmap.Map) { m.Candidates[0].SSH = nil })
	w.mustPush(id)
	if f.asking() || h.dropIn() || h.inFile() {
		t.Errorf("with ssh_setup=no sshd asks %v, drop-in %v, keys %v", f.asking(), h.dropIn(), h.inFile())
	}
}

func TestLeaveTakesTheDropInAway(t *testing.T) {
	t.Parallel()
	w, h, f := foundedWithSSHD(t)
	w.authorizeBy(cluster.AuthorizeCommand)
	w.mustPush(h.member().id.Node)
	if err := h.post(rpc.LocalLeave, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	if f.asking() || h.dropIn() || h.inFile() {
		t.Errorf("left, and sshd asks %v, drop-in %v, keys %v", f.asking(), h.dropIn(), h.inFile())
	}
}

// TestG4AnswersFollowTheLease: a stale map lets nobody in, unless the policy
// says so.
func TestG4AnswersFollowTheLease(t *testing.T) {
	t.Parallel()
	w, h, f := foundedWithSSHD(t)
	id, key := h.member().id.Node, h.ownKey()
	w.authorizeBy(cluster.AuthorizeCommand)
	w.next(func(m *candmap.Map) { m.LeaseSeconds = 1 })
	w.mustPush(id)
	await(t, h.member(), "the map becomes stale", func() bool { return !h.member().keeper.Fresh() })
	if f.opens(key) == nil {
		t.Error("a stale node lets its key in")
	}
	var reply rpc.AuthorizedKeysReply
	err := h.post(rpc.LocalAuthorizedKeys, rpc.AuthorizedKeysRequest{User: set(t, h), Blob: key.PublicKey().Marshal()}, &reply)
	wantCode(t, "a stale node", err, cluster.CodeMapStale)
	if reply.Lines != "" {
		t.Errorf("it answers %q", reply.Lines)
	}
	w.next(func(m *candmap.Map) { m.Policy = cluster.PolicyBestEffort })
	ack := w.mustPush(id)
	await(t, h.member(), "the map becomes stale", func() bool { return !h.member().keeper.Fresh() })
	if err := f.opens(key); err != nil {
		t.Errorf("under best_effort: %v", err)
	}
	if !ack.SSHUntil.IsZero() {
		t.Errorf("under best_effort there is a bound, %s", ack.SSHUntil)
	}
}

func set(t *testing.T, h *host) string {
	t.Helper()
	s, err := h.d.ssh.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.account.Name
}

// TestAnswersAreForOneAccountAndKey.
func TestAnswersAreForOneAccountAndKey(t *testing.T) {
	t.Parallel()
	w, h, _ := foundedWithSSHD(t)
	other := joined(t, w)
	w.promote(other, false)
	w.mustPush(h.member().id.Node)
	w.mustPush(other.member().id.Node)
	ask := func(user string, key ssh.PublicKey) string {
		var reply rpc.AuthorizedKeysReply
		if err := h.local.Do(t.Context(), http.MethodPost, rpc.LocalAuthorizedKeys, rpc.AuthorizedKeysRequest{User: user, Blob: key.Marshal()}, &reply); err != nil {
			t.Fatal(err)
		}
		return reply.Lines
	}
	mine := ask(set(t, h), other.ownKey().PublicKey())
	if n := strings.Count(mine, "rolekey:"); n != 1 || !strings.Contains(mine, `from="`+other.addr().String()+`"`) || strings.Contains(mine, "expiry") {
		t.Errorf("the answer is %q", mine)
	}
	if got := ask("nobody", other.ownKey().PublicKey()) + ask(set(t, h), newSSHKey(t).PublicKey()); got != "" {
		t.Errorf("for another account, and another key: %q", got)
	}
	w.next(func(m *candmap.Map) { m.SSHReach = cluster.ReachMaster })
	w.mustPush(h.member().id.Node)
	if got := ask(set(t, h), other.ownKey().PublicKey()); got != "" {
		t.Errorf("with ssh_reach=master another candidate gets %q", got)
	}
}

// TestForeignSettingsStay: authorized_keys stays in use, and it is told why.
func TestForeignSettingsStay(t *testing.T) {
	t.Parallel()
	w, h, f := foundedWithSSHD(t)
	id := h.member().id.Node
	f.deaf = true
	for _, c := range []struct{ file, text, says string }{
		{"foreign", "authorizedkeyscommand /opt/keys %u\n", "sshd_config has an AuthorizedKeysCommand of its own (/opt/keys %u)"},
		{"exclude", "x", "put this line at its beginning: Include "},
		{"broken", "x", "Bad configuration option"},
		{"deaf", "x", "refuses a key without asking noded"},
	} {
		f.set(c.file, c.text)
		w.authorizeBy(cluster.AuthorizeCommand)
		h.d.command.forget()
		ack := w.mustPush(id)
		if ack.SSHCommand || len(ack.Problems) != 1 || !strings.Contains(ack.Problems[0], c.says) || strings.HasPrefix(ack.Problems[0], "apply") {
			t.Errorf("%s: acknowledged with %+v", c.file, ack)
		}
		if f.asking() || h.dropIn() || !h.inFile() {
			t.Errorf("%s: sshd asks %v, drop-in %v, keys in the file %v", c.file, f.asking(), h.dropIn(), h.inFile())
		}
		var s rpc.NodeState
		if err := w.call(id, rpc.MethodState, "", nil, &s); err != nil || !strings.Contains(fmt.Sprint(s.BlockProblems), c.says) {
			t.Errorf("%s: it tells %q, %v", c.file, s.BlockProblems, err)
		}
		f.set(c.file, "")
	}
	f.deaf = false
	h.d.Reload()
	awaitAnswer(t, func() error { return f.follows(cluster.AuthorizeCommand) })
	h.d.ssh.forget()
	f.set("foreign", "authorizedkeyscommand /opt/keys %u\n")
	h.d.Reload()
	awaitAnswer(t, func() error {
		if h.dropIn() || !h.inFile() {
			return errors.New("a new foreign command is not seen")
		}
		return nil
	})
}

// awaitAnswer asks until the answer is good.
func awaitAnswer(t *testing.T, question func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := question()
		if err == nil {
			return
		}
		if pause(ctx, 20*time.Millisecond, nil) != nil {
			t.Fatal(err)
		}
	}
}

// TestG7SwitchCrashes: noded dies at each step of a switch, and at each step
// before the keys open the node. The next start finishes.
func TestG7SwitchCrashes(t *testing.T) {
	t.Parallel()
	for _, way := range []cluster.SSHAuthorize{cluster.AuthorizeCommand, cluster.AuthorizeFile} {
		for n := 0; ; n++ {
			if crashed := crashSwitch(t, way, n); !crashed {
				if n < 3 {
					t.Errorf("%s: only %d steps", way, n)
				}
				break
			}
		}
	}
}

// crashSwitch has noded die at the nth step, and reports whether there was one.
func crashSwitch(t *testing.T, way cluster.SSHAuthorize, n int) (crashed bool) {
	t.Helper()
	w, h, f := foundedWithSSHD(t)
	id, key, stranger := h.member().id.Node, h.ownKey(), newSSHKey(t)
	if way == cluster.AuthorizeFile {
		w.authorizeBy(cluster.AuthorizeCommand)
		w.mustPush(id)
	}
	var mu sync.Mutex
	seen, name := 0, ""
	h.upWith(func(step string) error {
		if !strings.HasPrefix(step, "sshd") {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if err := f.opens(key); err != nil {
			t.Errorf("%s, at %q: the master's key: %v", way, step, err)
		}
		if f.opens(stranger) == nil {
			t.Errorf("%s, at %q: a stranger is let in", way, step)
		}
		if seen++; seen > n { // nothing is done after a crash
			name = cmp.Or(name, step)
			return errors.New("crash")
		}
		return nil
	})
	if _, err := w.pushBeacon(id); err != nil {
		t.Fatal(err)
	}
	w.authorizeBy(way)
	w.mustPush(id)
	h.stop()
	if !f.asking() {
		if err := f.opens(key); err != nil {
			t.Errorf("%s, after a crash at %q: sshd does not ask, and the keys do not open: %v", way, name, err)
		}
	}
	h.up()
	if _, err := w.pushBeacon(id); err != nil {
		t.Fatal(err)
	}
	awaitAnswer(t, func() error { return f.follows(way) })
	h.stop()
	return name != ""
}

func TestIsLogin(t *testing.T) {
	for title, want := range map[string]bool{
		"sshd: [accepted]": true, "sshd: root [priv]": true, "sshd-session: root [priv]": true, "/usr/sbin/sshd -D -R": true,
		"sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups": true, // a child of it that is not yet another program
		"sshd: root@pts/0": false, "sshd: root@notty": false, "sshd: alice [priv]": false, "bash": false,
	} {
		if isLogin(title, "root") != want {
			t.Errorf("%q: %v", title, !want)
		}
	}
}
