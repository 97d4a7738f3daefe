package noded

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/crypto/ssh"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/rpc"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// host is one machine: a root of its own, an address of its own, and a masterd
// that the test plays.
type host struct {
	t       *testing.T
	name    cluster.Name
	cfg     Config
	masterd *fakeMasterd
	local   *rpc.LocalClient

	d    *Daemon
	stop func() // ends the daemon and waits; harmless twice
}

var hosts atomic.Uint32

// newHost makes a machine whose daemons do not run yet.
func newHost(t *testing.T) *host {
	t.Helper()
	n := hosts.Add(1)
	// Addresses are unique in a cluster, and ports are not shared with other
	// test processes of this machine.
	addr := netip.AddrFrom4([4]byte{127, byte(50 + os.Getpid()%200), byte(os.Getpid() / 200 % 250), byte(n)})
	h := &host{t: t, name: cluster.Name(fmt.Sprintf("node%d.example", n)), stop: func() {}}
	root := t.TempDir()
	h.cfg = Config{
		Paths: paths.Layout{Root: root}, Addresses: []netip.Addr{addr}, Log: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
		SSH: SSHConfig{
			AuthorizedKeys: filepath.Join(root, "root/.ssh/authorized_keys"), KnownHosts: filepath.Join(root, "root/.ssh/known_hosts"),
			HostKeys: []string{filepath.Join(root, "host.pub")}, SSHD: filepath.Join(root, "sshd"),
		},
	}
	for _, dir := range []string{"root", "run/rolekey", "etc/ssh"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, h.cfg.SSH.HostKeys[0], ssh.MarshalAuthorizedKey(newSSHKey(t).PublicKey()))
	script := "#!/bin/sh\necho 'OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.9' >&2\nexit 1\n"
	if err := os.WriteFile(h.cfg.SSH.SSHD, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	h.local = rpc.NewLocalClient(func(ctx context.Context) (net.Conn, error) {
		return paths.DialUnix(ctx, h.cfg.Paths.NodedSock())
	})
	t.Cleanup(h.local.Close)
	h.masterd = newFakeMasterd(h)
	return h
}

func newSSHKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// up starts noded.
func (h *host) up() {
	h.t.Helper()
	h.upWith(nil)
}

// upWith starts a noded that fails where crash says so.
func (h *host) upWith(crash func(step string) error) {
	h.t.Helper()
	h.stop()
	d, err := New(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	d.crash = crash
	h.d = d
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- d.Run(ctx, func() { close(ready) }) }()
	h.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("noded of %s: %v", h.name, err)
		}
		h.stop = func() {}
	}
	h.t.Cleanup(func() { h.stop() })
	select {
	case <-ready:
	case err := <-ended:
		h.t.Fatalf("noded of %s: %v", h.name, err)
	}
}

func (h *host) addr() netip.Addr { return h.cfg.Addresses[0] }

// member is the running member, which must be there.
func (h *host) member() *running {
	h.t.Helper()
	m := h.d.current()
	if m == nil {
		h.t.Fatalf("%s serves no cluster: %v", h.name, h.d.problem)
	}
	return m
}

func (h *host) at() cluster.Version { return h.member().keeper.View().At() }

func (h *host) post(path string, req, resp any) error {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	return h.local.Do(ctx, http.MethodPost, path, req, resp)
}

func (h *host) init(r rpc.InitRequest) (rpc.InitReply, error) {
	h.t.Helper()
	var reply rpc.InitReply
	err := h.post(rpc.LocalInit, r, &reply)
	return reply, err
}

func (h *host) join(token string) (rpc.JoinReply, error) {
	h.t.Helper()
	var reply rpc.JoinReply
	err := h.post(rpc.LocalJoin, rpc.JoinRequest{Token: token}, &reply)
	return reply, err
}

func (h *host) status() rpc.LocalStatusReply {
	h.t.Helper()
	var s rpc.LocalStatusReply
	if err := h.local.Do(h.t.Context(), http.MethodGet, rpc.LocalStatus, nil, &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// read returns the content of a file; "" if there is none.
func (h *host) read(path string) string {
	h.t.Helper()
	b, err := readSmall(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

func (h *host) authorizedKeys() string { return h.read(h.cfg.SSH.AuthorizedKeys) }

func initRequest(h *host) rpc.InitRequest {
	return rpc.InitRequest{Cluster: "dev.example", Node: h.name, NoRecoveryKey: true, SSHSetup: true}
}

// founded is a cluster of one node, whose master the test plays.
func founded(t *testing.T) (*world, *host) {
	t.Helper()
	h := newHost(t)
	return foundedOn(t, h), h
}

func foundedOn(t *testing.T, h *host) *world {
	t.Helper()
	h.masterd.start()
	h.up()
	if _, err := h.init(initRequest(h)); err != nil {
		t.Fatal(err)
	}
	w := h.masterd.world
	w.serve()
	return w
}

// joined adds a node to the cluster.
func joined(t *testing.T, w *world) *host {
	t.Helper()
	h := newHost(t)
	h.masterd.start()
	h.up()
	if _, err := h.join(w.token(h.name)); err != nil {
		t.Fatal(err)
	}
	return h
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, what string, err error, want cluster.Code) {
	t.Helper()
	if got := cluster.CodeOf(err); got != want {
		t.Errorf("%s: code %q (%v), want %q", what, got, err, want)
	}
}

// await waits until news of a member make a condition true.
func await(t *testing.T, m *running, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		news := m.news.wait()
		if ok() {
			return
		}
		if err := pause(ctx, patience, news); err != nil {
			t.Fatalf("%s: did not happen", what)
		}
	}
}

func mustVerify(t *testing.T, env candmap.Envelope) *candmap.Verified {
	t.Helper()
	v, err := candmap.Genesis(env, env.Hash())
	if err != nil {
		t.Fatal(err)
	}
	return v
}
