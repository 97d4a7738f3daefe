package noded

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// keysAt are the keys below a root.
func keysAt(at paths.Layout) keyDir { return newKeyDir(at, time.Now, nil) }

func orderOf(kind string, bits int, storage cluster.SSHKeyStorage, avoid ...cluster.SSHKey) rpc.SSHKeyOrder {
	return rpc.SSHKeyOrder{SSHKeySpec: cluster.SSHKeySpec{Type: kind, Bits: bits}, Storage: storage, Avoid: avoid}
}

// given carries an order out.
func given(t *testing.T, k keyDir, o rpc.SSHKeyOrder, entry ...cluster.SSHKey) cluster.SSHKey {
	t.Helper()
	d, err := k.prepare(t.Context(), &o, cluster.NodeID{1})
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := k.order(o, sshkeys.SealContext{Node: cluster.NodeID{1}}, entry, d)
	if err != nil || key == nil {
		t.Fatalf("order: %v", err)
	}
	return *key
}

// TestKeyOrders: the same order gives the same key; another kind, storage or a
// key to avoid gives another, beside the one that the map lists.
func TestKeyOrders(t *testing.T) {
	at := paths.Layout{Root: t.TempDir()}
	k := keysAt(at)
	a := given(t, k, orderOf("ed25519", 0, cluster.StorageFile))
	if !hasKey([]cluster.SSHKey{a}, given(t, keysAt(at), orderOf("ed25519", 0, cluster.StorageFile), a)) {
		t.Error("after a restart it is another")
	}
	b := given(t, k, orderOf("ecdsa", 256, cluster.StorageFile), a)
	if again := given(t, k, orderOf("ecdsa", 256, cluster.StorageFile), a); !hasKey([]cluster.SSHKey{b}, again) || len(k.held()) != 2 {
		t.Error("the order again makes another key")
	}
	c := given(t, k, orderOf("ecdsa", 256, cluster.StorageAgent, b), a)
	if list := k.held(); len(list) != 2 || !hasKey([]cluster.SSHKey{list[0].key}, a) || list[1].storage() != cluster.StorageAgent {
		t.Errorf("held: %d", len(list))
	}
	if removed, remains := k.follow([]cluster.SSHKey{a, c}, cluster.NodeID{1}, never); len(removed)+len(remains) > 0 {
		t.Error("both are listed, and one goes")
	}
	if removed, _ := k.follow([]cluster.SSHKey{c}, cluster.NodeID{1}, never); len(removed) == 0 || len(k.held()) != 1 {
		t.Errorf("the replaced one stays: %q", removed)
	}
	if found, _ := k.dir.Present(); len(found) > 1 {
		t.Errorf("on disk: %q", found)
	}
	if key, present := k.load([]cluster.SSHKey{c}); !present || key == nil || !hasKey([]cluster.SSHKey{c}, *key) {
		t.Error("what is in memory is not there")
	}
	if removed, remains := k.destroy(); len(removed) == 0 || len(remains) > 0 || len(k.inMemory()) > 0 {
		t.Errorf("destroyed: %q %v", removed, remains)
	}
}

func never(heldKey) bool { return false }

// TestReplacedKeyGoesAfterARestart: the run that saw the map died before it
// destroyed the old key.
func TestReplacedKeyGoesAfterARestart(t *testing.T) {
	at := paths.Layout{Root: t.TempDir()}
	a := given(t, keysAt(at), orderOf("ed25519", 0, cluster.StorageFile))
	b := given(t, keysAt(at), orderOf("ed25519", 0, cluster.StorageFile, a), a)
	k := keysAt(at)
	if removed, _ := k.follow([]cluster.SSHKey{a}, cluster.NodeID{1}, never); len(removed) > 0 {
		t.Errorf("a key that is to come goes: %q", removed)
	}
	k = keysAt(at)
	if removed, _ := k.follow([]cluster.SSHKey{b}, cluster.NodeID{1}, never); len(removed) != 1 {
		t.Errorf("removed: %q", removed)
	}
	if list := keysAt(at).refresh(); len(list) != 1 || !hasKey([]cluster.SSHKey{b}, list[0].key) {
		t.Errorf("%d keys are left", len(list))
	}
}

// TestSharedKeyOrder: a node that lacks the shared key names a recipient, and
// takes what is sealed to that alone.
func TestSharedKeyOrder(t *testing.T) {
	k, node := keysAt(paths.Layout{Root: t.TempDir()}), cluster.NodeID{1}
	text, shared, err := sshkeys.Generate(cluster.DefaultSSHKey, "shared")
	if err != nil {
		t.Fatal(err)
	}
	c := sshkeys.SealContext{Cluster: cluster.UUID{5}, Node: node, Incarnation: 1}
	o := orderOf("ed25519", 0, cluster.StorageFile)
	o.Shared = &shared
	key, recipient, err := k.order(o, c, nil, nil)
	if key != nil || err != nil || len(recipient) == 0 {
		t.Fatalf("without it: %v", err)
	}
	c.Key = shared
	sealed, err := sshkeys.Seal(text, recipient, c)
	if err != nil {
		t.Fatal(err)
	}
	o.Sealed = &rpc.SealedKey{Recipient: []byte("another"), Sealed: sealed}
	if _, _, err := k.order(o, c, nil, nil); cluster.CodeOf(err) != cluster.CodeUnavailable {
		t.Errorf("to another run: %v", err)
	}
	o.Sealed.Recipient = recipient
	if _, _, err := k.order(o, sshkeys.SealContext{Cluster: c.Cluster, Node: node, Incarnation: 2}, nil, nil); err == nil {
		t.Error("of another incarnation")
	}
	if key, _, err := k.order(o, c, nil, nil); err != nil || key == nil || len(k.held()) != 1 {
		t.Errorf("with it: %v", err)
	}
	o.Sealed = nil
	if key, _, err := k.order(o, c, nil, nil); err != nil || key == nil {
		t.Errorf("again: %v", err)
	}
}

// TestAgent: it lists and signs with what is in memory, and changes nothing.
func TestAgent(t *testing.T) {
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		spec, err := cluster.ParseSSHKeySpec(kind, 0)
		if err != nil {
			t.Fatal(err)
		}
		k := keysAt(paths.Layout{Root: t.TempDir()})
		key := given(t, k, rpc.SSHKeyOrder{SSHKeySpec: spec, Storage: cluster.StorageAgent})
		ours, theirs := net.Pipe()
		go func() { _ = sshAgent{k}.serve(ours) }()
		c := agent.NewClient(theirs)
		list, err := c.List()
		if err != nil || len(list) != 1 || string(list[0].Blob) != string(key.Blob) {
			t.Fatalf("%s: list: %v", kind, err)
		}
		public, err := ssh.ParsePublicKey(key.Blob)
		if err != nil {
			t.Fatal(err)
		}
		for _, flags := range []agent.SignatureFlags{0, agent.SignatureFlagRsaSha256, agent.SignatureFlagRsaSha512} {
			sig, err := c.SignWithFlags(public, []byte("data"), flags)
			if err != nil || public.Verify([]byte("data"), sig) != nil || sig.Format == ssh.KeyAlgoRSA {
				t.Errorf("%s, flags %d: %v", kind, flags, err)
			}
		}
		for what, err := range map[string]error{
			"add": c.Add(agent.AddedKey{PrivateKey: newSSHPrivate(t)}), "remove": c.Remove(public), "remove all": c.RemoveAll(), "lock": c.Lock([]byte("x")),
		} {
			if err == nil {
				t.Errorf("%s: %s is done", kind, what)
			}
		}
		_ = theirs.Close()
	}
}

// TestAgentSocket: a running noded serves it.
func TestAgentSocket(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.masterd.start()
	h.up()
	c, err := paths.DialUnix(context.Background(), h.cfg.Paths.SSHAgentSock())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if list, err := agent.NewClient(c).List(); err != nil || len(list) != 0 {
		t.Errorf("%d keys: %v", len(list), err)
	}
}

func newSSHPrivate(t *testing.T) any {
	t.Helper()
	text, _, err := sshkeys.Generate(cluster.DefaultSSHKey, "x")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(text.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return key
}
