package noded

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

func marshal(t *testing.T, k cluster.SSHKey) []byte {
	t.Helper()
	pub, err := sshkeys.ParseKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.MarshalAuthorizedKey(pub)
}

// sshServer lets one key in and counts sessions, which nobody should open.
func sshServer(t *testing.T, host ssh.Signer, allowed cluster.SSHKey) netip.AddrPort {
	t.Helper()
	return sshServerFor(t, host, func(k ssh.PublicKey) bool { return string(k.Marshal()) == string(allowed.Blob) })
}

// openSSHServer lets everybody in.
func openSSHServer(t *testing.T, host ssh.Signer) netip.AddrPort {
	t.Helper()
	return sshServerFor(t, host, func(ssh.PublicKey) bool { return true })
}

func sshServerFor(t *testing.T, host ssh.Signer, allows func(ssh.PublicKey) bool) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if allows(k) {
			return nil, nil
		}
		return nil, net.ErrClosed
	}}
	cfg.AddHostKey(host)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			conn, chans, reqs, err := ssh.NewServerConn(raw, cfg)
			if err != nil {
				raw.Close()
				continue
			}
			go ssh.DiscardRequests(reqs)
			for c := range chans {
				t.Error("a session was opened")
				_ = c.Reject(ssh.Prohibited, "no")
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestSSHProbe(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	id := first.member().id.Node
	own, _ := first.d.keys.load(nil)
	hostKey, other := newSSHKey(t), newSSHKey(t)
	good := sshServer(t, hostKey, *own)
	closed := sshServer(t, hostKey, cluster.SSHKey{})
	target := func(at netip.AddrPort, keys ...cluster.SSHKey) rpc.SSHTarget {
		return rpc.SSHTarget{Node: id, Name: first.name, Address: at.Addr(), Port: at.Port(), Keys: keys}
	}
	key := sshkeys.KeyOf(hostKey.PublicKey())
	var reply rpc.SSHProbeReply
	req := rpc.SSHProbeRequest{Targets: []rpc.SSHTarget{
		target(good, key), target(closed, key), target(good, sshkeys.KeyOf(other.PublicKey())), target(good),
		target(netip.AddrPortFrom(first.addr(), 1), key),
	}}
	if err := w.call(id, rpc.MethodSSHProbe, "", req, &reply); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "unable to authenticate", "not in the roster", "no host key", "connect"} {
		if got := reply.Results[i].Error; (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("target %d: %q, want %q", i, got, want)
		}
	}
}

func TestAlgorithms(t *testing.T) {
	got := algorithms([]cluster.SSHKey{{Type: ssh.KeyAlgoRSA}, {Type: ssh.KeyAlgoED25519}, {Type: ssh.KeyAlgoED25519}})
	if strings.Join(got, " ") != "rsa-sha2-256 rsa-sha2-512 ssh-ed25519" {
		t.Errorf("%v", got)
	}
}
