package noded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/rpc"
)

// fakeSSHD is a host's sshd, as far as it authenticates: it reads its
// configuration when it is told to, authorized_keys at each login, and after
// that, if so configured, it asks noded.
type fakeSSHD struct {
	h      *host
	dir    string // files that say how the script that stands in for sshd -T answers
	signer ssh.Signer

	mu      sync.Mutex
	asks    bool
	deaf    bool // to the configuration
	reloads int
}

const fakeScript = `#!/bin/sh
case "$*" in *-V*) echo 'OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.9' >&2; exit 1;; esac
[ -e "%[1]s/broken" ] && { echo "line 1: Bad configuration option: broken" >&2; exit 255; }
case "$*" in
*-t*) exit 0;;
*addr=0.0.0.0*) ours=;;
*) ours='%[2]s'; [ -e "%[1]s/exclude" ] && ours=;;
esac
[ -e "%[1]s/foreign" ] && cat "%[1]s/foreign"
[ -n "$ours" ] && [ -e "$ours" ] && sed -n 's/^\tAuthorizedKeysCommand /authorizedkeyscommand /p' "$ours"
exit 0
`

// newFakeSSHD gives a host, which does not run yet, a sshd.
func newFakeSSHD(t *testing.T, h *host) *fakeSSHD {
	t.Helper()
	f := &fakeSSHD{h: h, dir: t.TempDir(), signer: newSSHKey(t)}
	l, err := net.Listen("tcp", net.JoinHostPort(h.addr().String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	t.Cleanup(func() { _ = l.Close() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { f.serve(c) })
		}
	})
	write(t, h.cfg.SSH.HostKeys[0], ssh.MarshalAuthorizedKey(f.signer.PublicKey()))
	if err := os.MkdirAll(filepath.Dir(h.cfg.Paths.SSHDDropIn()), 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(fakeScript, f.dir, h.cfg.Paths.SSHDDropIn())
	if err := os.WriteFile(h.cfg.SSH.SSHD, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	h.cfg.Ports.SSH = uint16(l.Addr().(*net.TCPAddr).Port)
	h.cfg.Program = "/bin/sh" // root's, whoever runs the test
	h.cfg.ReloadSSHD = func(context.Context, string) error { f.reload(); return nil }
	return f
}

// set makes the script answer otherwise; without text it is taken back.
func (f *fakeSSHD) set(name, text string) {
	path := filepath.Join(f.dir, name)
	if text == "" {
		_ = os.Remove(path)
		return
	}
	write(f.h.t, path, []byte(text))
}

func (f *fakeSSHD) reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reloads++
	f.asks = f.h.dropIn() && !exists(filepath.Join(f.dir, "exclude")) && !f.deaf
}

func (h *host) dropIn() bool { return exists(h.cfg.Paths.SSHDDropIn()) }

func (f *fakeSSHD) asking() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asks
}

func (f *fakeSSHD) serve(c net.Conn) {
	defer c.Close()
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		text, err := os.ReadFile(f.h.cfg.SSH.AuthorizedKeys)
		if err == nil && lists(string(text), key) {
			return nil, nil
		}
		if f.asking() && lists(f.ask(key), key) {
			return nil, nil
		}
		return nil, errors.New("refused")
	}}
	cfg.AddHostKey(f.signer)
	if conn, _, _, err := ssh.NewServerConn(c, cfg); err == nil {
		_ = conn.Close()
	}
}

// ask does what noded authorized-keys does.
func (f *fakeSSHD) ask(key ssh.PublicKey) string {
	ctx, cancel := context.WithTimeout(context.Background(), rpc.AskTime)
	defer cancel()
	var reply rpc.AuthorizedKeysReply
	set, err := (&sshFinder{cfg: &f.h.cfg}).account()
	if err != nil {
		return ""
	}
	req := rpc.AuthorizedKeysRequest{User: set.Name, Blob: key.Marshal()}
	if f.h.local.Do(ctx, http.MethodPost, rpc.LocalAuthorizedKeys, req, &reply) != nil {
		return ""
	}
	return reply.Lines
}

// lists looks for a key in lines of authorized_keys.
func lists(text string, key ssh.PublicKey) bool {
	for _, l := range lines(text) {
		if k, ok := keyOfLine(trimLine(l)); ok && bytes.Equal(k.Blob, key.Marshal()) {
			return true
		}
	}
	return false
}

// opens tries a key on the host.
func (f *fakeSSHD) opens(key ssh.Signer) error {
	c, err := net.Dial("tcp", net.JoinHostPort(f.h.addr().String(), fmt.Sprint(f.h.cfg.Ports.SSH)))
	if err != nil {
		return err
	}
	defer c.Close()
	conn, _, _, err := ssh.NewClientConn(c, "fake", &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(f.signer.PublicKey()),
	})
	if err != nil {
		return err
	}
	_ = conn.Close() // the other side may have done so first
	return nil
}

// ownKey is the host's own key for the cluster, which also opens it.
func (h *host) ownKey() ssh.Signer {
	h.t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(h.read(h.cfg.Paths.SSHKey())))
	if err != nil {
		h.t.Fatal(err)
	}
	return signer
}

func (h *host) inFile() bool { return strings.Contains(h.authorizedKeys(), "rolekey:") }

// pushBeacon makes a node fresh.
func (w *world) pushBeacon(to cluster.NodeID) (rpc.MapAck, error) {
	w.t.Helper()
	var ack rpc.MapAck
	return ack, w.call(to, rpc.MethodBeaconPut, "", w.beacon(), &ack)
}
