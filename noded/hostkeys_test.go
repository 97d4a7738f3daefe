package noded

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
)

// hostKeys takes a statement as masterd does, and changes the roster.
func (w *world) hostKeys(_ context.Context, q *rpc.Request) (any, error) {
	var req pki.SignedHosts
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.entry(q.Grant.Node)
	h, err := req.Open(n.Identity)
	if err != nil {
		return nil, err
	}
	defer func() { w.told <- h }() // when the change can be delivered
	if w.verdict != nil {
		return w.verdict(h), nil
	}
	n.HostKeys, n.Ports.SSH = h.Keys, h.Port
	w.nextLocked(func(*candmap.Map) {})
	return rpc.HostKeysReply{Verdict: "accepted"}, nil
}

func (w *world) entry(id cluster.NodeID) *candmap.RosterNode {
	for i := range w.nodes {
		if w.nodes[i].UUID == id {
			return &w.nodes[i]
		}
	}
	return nil
}

// levelThree raises the cluster to the level at which statements are taken.
func (w *world) levelThree() {
	w.settle(candmap.Settings{Name: "dev.example", SSH: new(cluster.DefaultSSHSettings)}, func(*candmap.Map) {})
}

func (w *world) wantTold(what string) pki.Hosts {
	w.t.Helper()
	select {
	case h := <-w.told:
		return h
	case <-time.After(patience):
		w.t.Fatalf("%s: the master hears nothing", what)
		return pki.Hosts{}
	}
}

func (w *world) wantQuiet(what string) {
	w.t.Helper()
	select {
	case h := <-w.told:
		w.t.Errorf("%s: the master hears of %d host keys, port %d", what, len(h.Keys), h.Port)
	default:
	}
}

// newHostKey gives a machine another host key, and tells noded to look.
func (h *host) newHostKey() cluster.SSHKey {
	h.t.Helper()
	pub := newSSHKey(h.t).PublicKey()
	write(h.t, h.cfg.SSH.HostKeys[0], ssh.MarshalAuthorizedKey(pub))
	return cluster.SSHKey{Type: pub.Type(), Blob: pub.Marshal()}
}

func showsAll(context.Context, netip.AddrPort, []cluster.SSHKey) error { return nil }

// lookNow returns when noded has looked at its sshd since the call: an order is
// taken when the look before it is over.
func (h *host) lookNow() {
	h.t.Helper()
	for range 3 {
		h.member().hostsNow <- struct{}{}
	}
}

func TestHostKeysAreTold(t *testing.T) {
	w, first := founded(t)
	h := newHost(t)
	var down atomic.Bool
	h.cfg.ShowsHostKeys = func(context.Context, netip.AddrPort, []cluster.SSHKey) error {
		if down.Load() {
			return errors.New("connection refused")
		}
		return nil
	}
	h.masterd.start()
	h.up()
	if _, err := h.join(w.token(h.name)); err != nil {
		t.Fatal(err)
	}
	id := h.member().id.Node
	h.newHostKey()
	h.lookNow()
	w.wantQuiet("below level 3")
	w.levelThree()
	down.Store(true)
	w.mustPush(id)
	h.lookNow()
	w.wantQuiet("while sshd does not show the key")
	key := h.newHostKey()
	h.lookNow() // none that saw the key before it is under way
	down.Store(false)
	poke(h.member().hostsNow)
	got := w.wantTold("another host key")
	if len(got.Keys) != 1 || !sameKey(got.Keys[0], key) || got.Node != id || got.Incarnation != 1 || got.Port != cluster.DefaultPorts.SSH || got.Cluster != w.id {
		t.Errorf("%+v", got)
	}
	w.mustPush(id)
	h.lookNow()
	w.wantQuiet("when the roster agrees")
	if keys := h.member().hosts.keys(); len(keys) != 1 || !sameKey(keys[0], key) {
		t.Error("verify is told of another key")
	}
	w.mustPush(first.member().id.Node)
	if m := first.read(first.cfg.SSH.KnownHosts); !containsKey(m, key) {
		t.Errorf("known_hosts of the master lacks the key:\n%s", m)
	}
}

func containsKey(text string, want cluster.SSHKey) bool {
	for rest := []byte(text); len(rest) > 0; {
		_, _, pub, _, next, err := ssh.ParseKnownHosts(rest)
		if err != nil {
			return false
		}
		if sameKey(cluster.SSHKey{Type: pub.Type(), Blob: pub.Marshal()}, want) {
			return true
		}
		rest = next
	}
	return false
}

// TestPendingHostKeysAreSaidOnce: a candidate that waits for its administrator
// leaves the master alone, and takes back what is true no more, even after a
// restart.
func TestPendingHostKeysAreSaidOnce(t *testing.T) {
	h := newHost(t)
	h.cfg.ShowsHostKeys = showsAll
	w := foundedOn(t, h)
	w.verdict = func(pki.Hosts) rpc.HostKeysReply { return rpc.HostKeysReply{Verdict: "pending"} }
	w.levelThree()
	w.mustPush(h.member().id.Node)
	poke(h.member().hostsNow)
	w.wantTold("a candidate that was started asks whether something is pending")
	old, err := os.ReadFile(h.cfg.SSH.HostKeys[0])
	if err != nil {
		t.Fatal(err)
	}
	key := h.newHostKey()
	poke(h.member().hostsNow)
	if got := w.wantTold("another host key"); !sameKey(got.Keys[0], key) {
		t.Error("the master hears of another key")
	}
	h.lookNow()
	w.wantQuiet("the same again")
	write(t, h.cfg.SSH.HostKeys[0], old)
	w.mu.Lock()
	w.verdict = func(pki.Hosts) rpc.HostKeysReply { return rpc.HostKeysReply{Verdict: "withdrawn"} }
	w.mu.Unlock()
	poke(h.member().hostsNow)
	if got := w.wantTold("the old key again"); sameKey(got.Keys[0], key) {
		t.Error("the master hears of the new key")
	}
	h.lookNow()
	w.wantQuiet("when all is as before")
}

// TestPortOfSSHD: sshd's own change counts, and not what the administrator said.
func TestPortOfSSHD(t *testing.T) {
	m := &member{cfg: &Config{}}
	dir := t.TempDir()
	reopen := func() *hostWatch {
		m.openHosts(dir)
		return m.hosts
	}
	for i, c := range []struct {
		listed uint16
		ports  []uint16
		want   uint16
	}{
		{22, nil, 22},                  // not known
		{22, []uint16{22}, 22},         //
		{2222, []uint16{22}, 2222},     // the administrator named a gateway's
		{2222, []uint16{23}, 23},       // sshd has moved
		{23, []uint16{23, 24}, 23},     //
		{23, []uint16{24, 22, 25}, 24}, // the listed one is gone
		{9, []uint16{23, 24}, 9},       // as it was when the roster agreed
	} {
		if got := reopen().port(c.listed, c.ports); got != c.want {
			t.Errorf("%d: port %d, want %d", i, got, c.want)
		}
	}
	if err := os.Remove(filepath.Join(dir, hostsFile)); err != nil {
		t.Fatal(err)
	}
	if got := reopen().port(2222, []uint16{22}); got != 2222 {
		t.Errorf("port %d without a note", got)
	}
}
