package noded

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// realLogin logs in with the ssh program, by the drop-in that these keys give.
func (d *realSSHD) realLogin(k keyDir, listed ...cluster.SSHKey) error {
	d.t.Helper()
	dir := d.t.TempDir()
	files, agent, err := k.identities(cluster.NodeID{1}, listed)
	if err != nil {
		return err
	}
	host, err := sshkeys.KeyDir{Path: filepath.Join(d.dir, "host")}.Load()
	if err != nil {
		return err
	}
	h := sshkeys.Host{Node: cluster.NodeID{9}, Name: "node9.example", Addresses: []netip.Addr{d.addr.Addr()}, Port: d.addr.Port(), Keys: []cluster.SSHKey{host}}
	known, err := sshkeys.KnownHostsBlock(cluster.UUID{5}, []sshkeys.Host{h})
	if err != nil {
		return err
	}
	write(d.t, filepath.Join(dir, "known"), known.Bytes())
	c := sshkeys.ClientConfig{LocalUser: d.account, User: d.account, KnownHosts: filepath.Join(dir, "known"), Identities: files, Agent: agent}
	text, err := c.Render([]sshkeys.Host{h})
	if err != nil {
		return err
	}
	write(d.t, filepath.Join(dir, "config"), text)
	cmd := exec.CommandContext(d.t.Context(), "ssh", "-F", filepath.Join(dir, "config"), "-o", "BatchMode=yes", "node9", "echo works")
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "works" {
		return fmt.Errorf("ssh: %w: %s", err, out)
	}
	return nil
}

// letIn lets exactly these keys in.
func (d *realSSHD) letIn(keys ...cluster.SSHKey) {
	d.t.Helper()
	var text []byte
	for _, k := range keys {
		text = append(text, marshal(d.t, k)...)
	}
	write(d.t, filepath.Join(d.dir, "authorized_keys"), text)
}

// agentKeys are keys whose agent is served below a root.
func agentKeys(t *testing.T, root string) keyDir {
	t.Helper()
	at := paths.Layout{Root: root}
	if err := os.MkdirAll(at.RunDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	k := keysAt(at)
	l, err := paths.ListenUnix(at.SSHAgentSock(), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	k.serveAt(paths.Reach(l))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = (&Daemon{keys: k}).serveAgent(ctx, l)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return k
}

// TestRealSSHKeys logs in with keys of every kind, from files and from memory,
// with OpenSSH on both ends, while one key replaces the other.
func TestRealSSHKeys(t *testing.T) {
	d := startSSHD(t, "127.61.7.1", "LogLevel VERBOSE")
	for _, storage := range []cluster.SSHKeyStorage{cluster.StorageFile, cluster.StorageAgent} {
		k := agentKeys(t, filepath.Join(t.TempDir(), "a b%d"))
		var old []cluster.SSHKey
		for _, o := range []rpc.SSHKeyOrder{
			orderOf("ed25519", 0, storage), orderOf("ecdsa", 256, storage), orderOf("ecdsa", 384, storage),
			orderOf("ecdsa", 521, storage), orderOf("rsa", 3072, storage), orderOf("rsa", 4096, storage),
		} {
			o.Avoid = old
			key := given(t, k, o, old...)
			for _, c := range []struct {
				what           string
				listed, admits []cluster.SSHKey
			}{
				{"the new key is made", old, old},
				{"this node has the new map", append(old, key), old},
				{"the other has, too", append(old, key), append(old, key)},
				{"the old key is retired there", append(old, key), []cluster.SSHKey{key}},
			} {
				if len(c.listed) == 0 || len(c.admits) == 0 {
					continue
				}
				k.follow(c.listed, cluster.NodeID{1}, never)
				d.letIn(c.admits...)
				if err := d.realLogin(k, c.listed...); err != nil {
					t.Errorf("%s in %s: %s: %v", o.SSHKeySpec, storage, c.what, err)
				}
			}
			k.follow([]cluster.SSHKey{key}, cluster.NodeID{1}, never)
			d.letIn(key)
			if err := d.realLogin(k, key); err != nil {
				t.Errorf("%s in %s, alone: %v", o.SSHKeySpec, storage, err)
			}
			old = []cluster.SSHKey{key}
		}
		d.letIn()
		if err := d.realLogin(k, old...); err == nil {
			t.Errorf("in %s: a key that is not authorized logs in", storage)
		}
	}
}

// TestRealSSHLongRoot: ssh knows no path of a socket with more than 107 bytes.
func TestRealSSHLongRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: the way for long paths is root's")
	}
	d := startSSHD(t, "127.61.7.2", "")
	root := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	k := agentKeys(t, root)
	key := given(t, k, orderOf("ed25519", 0, cluster.StorageAgent))
	d.letIn(key)
	if err := d.realLogin(k, key); err != nil {
		t.Error(err)
	}
}

// TestRealSSHStalePublicHalf is why a public half never lies beside a private one
// that it does not fit.
func TestRealSSHStalePublicHalf(t *testing.T) {
	d := startSSHD(t, "127.61.7.3", "")
	k := agentKeys(t, t.TempDir())
	key := given(t, k, orderOf("ed25519", 0, cluster.StorageFile))
	d.letIn(key)
	other := ssh.MarshalAuthorizedKey(newSSHKey(t).PublicKey())
	write(t, k.dir.PrivateFile()+".pub", other)
	if err := d.realLogin(k, key); err == nil {
		t.Log("this ssh does not mind")
	}
	if err := k.recover(cluster.NodeID{1}); err != nil {
		t.Fatal(err)
	}
	if err := d.realLogin(k, key); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}
