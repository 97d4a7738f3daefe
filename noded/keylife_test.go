package noded

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// order has the master order an SSH key.
func (w *world) order(h *host, o rpc.SSHKeyOrder) (rpc.CandidateKeys, error) {
	w.t.Helper()
	var keys rpc.CandidateKeys
	err := w.call(h.member().id.Node, rpc.MethodKeyCreate, "", rpc.KeyCreateRequest{Incarnation: 1, SSHKey: &o}, &keys)
	return keys, err
}

// list publishes what the map lists of a node, and delivers it.
func (w *world) list(h *host, keys ...cluster.SSHKey) rpc.MapAck {
	w.t.Helper()
	id := h.member().id.Node
	w.next(func(m *candmap.Map) {
		i := slices.IndexFunc(m.Candidates, func(c candmap.Candidate) bool { return c.UUID == id })
		m.Candidates[i].SSH = keys
	})
	ack := w.mustPush(id)
	w.hears(h)
	return ack
}

// hears delivers a beacon.
func (w *world) hears(h *host) {
	w.t.Helper()
	if err := w.call(h.member().id.Node, rpc.MethodBeaconPut, "", w.beacon(), nil); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) state(h *host) (s rpc.NodeState) {
	w.t.Helper()
	if err := w.call(h.member().id.Node, rpc.MethodState, "", nil, &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// holds waits until a node holds exactly these keys.
func (w *world) holds(h *host, what string, keys ...cluster.SSHKey) {
	w.t.Helper()
	eventually(w.t, what, func() bool {
		held := w.state(h).HeldKeys
		return len(held) == len(keys) && !slices.ContainsFunc(held, func(k rpc.HeldSSHKey) bool { return !hasKey(keys, k.Key) })
	})
}

func mustOrder(t *testing.T, w *world, h *host, o rpc.SSHKeyOrder) cluster.SSHKey {
	t.Helper()
	keys, err := w.order(h, o)
	if err != nil || len(keys.SSH) != 1 || !sshkeys.IsOf(keys.SSH[0], o.SSHKeySpec) {
		t.Fatalf("order of %s in %s: %d keys, %v", o.SSHKeySpec, o.Storage, len(keys.SSH), err)
	}
	return keys.SSH[0]
}

// TestKeyChangeByTheMap follows a candidate through types and storages, by the
// master's own calls, with a restart of noded in the middle of each change.
func TestKeyChangeByTheMap(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := joined(t, w)
	w.promote(h, false)
	w.mustPush(h.member().id.Node)
	old := *w.state(h).PublicKey
	for _, c := range []struct {
		o       rpc.SSHKeyOrder
		restart bool
	}{
		{orderOf("ecdsa", 384, cluster.StorageFile), true},
		{orderOf("rsa", 3072, cluster.StorageFile), true},
		{orderOf("ed25519", 0, cluster.StorageAgent), false},
		{orderOf("ecdsa", 256, cluster.StorageFile), false},
	} {
		c.o.Avoid = []cluster.SSHKey{old}
		key := mustOrder(t, w, h, c.o)
		if again := mustOrder(t, w, h, c.o); !sameKey(again, key) {
			t.Errorf("%s: the same order gives another key", c.o.SSHKeySpec)
		}
		if text := h.read(h.cfg.Paths.SSHDropIn()); strings.Count(text, "IdentityFile") != 2 { // of two nodes
			t.Errorf("%s: before the map lists the key the drop-in says\n%s", c.o.SSHKeySpec, text)
		}
		if c.restart {
			h.up()
		}
		if ack := w.list(h, old, key); ack.SSHMissing {
			t.Errorf("%s: both are there, and the node says that none is", c.o.SSHKeySpec)
		}
		eventually(t, "both are offered", func() bool { return strings.Count(h.read(h.cfg.Paths.SSHDropIn()), "IdentityFile") == 4 })
		if c.restart {
			h.up()
		}
		w.list(h, key)
		w.holds(h, "the old key goes", key)
		if s := w.state(h); !sameKey(*s.PublicKey, key) || s.HeldKeys[0].Storage != c.o.Storage || !s.PrivateKey {
			t.Errorf("%s: state %+v", c.o.SSHKeySpec, s.HeldKeys)
		}
		old = key
	}
	key := mustOrder(t, w, h, rpc.SSHKeyOrder{SSHKeySpec: cluster.DefaultSSHKey, Storage: cluster.StorageAgent, Avoid: []cluster.SSHKey{old}})
	w.list(h, old, key)
	w.list(h, key)
	w.holds(h, "the key in the file goes", key)
	h.up()
	if ack := w.list(h, key); !ack.SSHMissing {
		t.Error("the key in memory is gone, and the node does not say so")
	}
	w.demote(h.member().id.Node)
	w.mustPush(h.member().id.Node)
	w.holds(h, "nothing is left")
}

// TestG7KeyChangeCrash fails before each step of a change, restarts noded, and
// goes on. At no moment does the node hold none of the keys that the map lists.
func TestG7KeyChangeCrash(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := joined(t, w)
	w.promote(h, false)
	w.mustPush(h.member().id.Node)
	old := *w.state(h).PublicKey
	for n, over := 0, false; !over; n++ {
		var mu sync.Mutex
		steps := 0
		h.upWith(func(step string) error {
			mu.Lock()
			defer mu.Unlock()
			if strings.Contains(step, "ssh key") || strings.Contains(step, "public half") {
				if steps++; steps > n {
					return errors.New("crash")
				}
			}
			return nil
		})
		w.hears(h)
		o := orderOf("ed25519", 0, cluster.StorageFile, old)
		_, failed := w.order(h, o)
		if failed != nil {
			h.up()
			w.hears(h)
		}
		key := mustOrder(t, w, h, o)
		if ack := w.list(h, old, key); ack.SSHMissing {
			t.Fatalf("step %d: no key is there", n)
		}
		if ack := w.list(h, key); ack.SSHMissing {
			t.Fatalf("step %d: no key is there once the old one goes", n)
		}
		if failed == nil {
			eventually(t, "the change ends, or is cut off", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return steps > n || len(h.d.keys.held()) == 1
			})
		}
		mu.Lock()
		over = steps <= n
		mu.Unlock()
		h.up()
		w.list(h, key)
		w.holds(h, "the old key goes", key)
		old = key
		if n > 20 {
			t.Fatal("it never ends")
		}
	}
}

// TestG6OrdersLeakNothing reads the log and the answers of orders, good and bad.
func TestG6OrdersLeakNothing(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := newHost(t)
	var log sharedLog // memberlist writes a moment longer than the daemon runs
	h.cfg.Log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(&log)), zap.DebugLevel))
	h.masterd.start()
	h.up()
	if _, err := h.join(w.token(h.name)); err != nil {
		t.Fatal(err)
	}
	text, shared, err := sshkeys.Generate(cluster.DefaultSSHKey, "shared")
	if err != nil {
		t.Fatal(err)
	}
	o := orderOf("ed25519", 0, cluster.StorageFile)
	o.Shared = &shared
	keys, err := w.order(h, o)
	if err != nil || len(keys.Recipient) == 0 || len(keys.SSH) > 0 {
		t.Fatalf("order: %+v, %v", keys, err)
	}
	m := h.member()
	to := sshkeys.SealContext{Cluster: m.id.Cluster, Node: m.id.Node, Incarnation: 1, Key: shared}
	seal := func(c sshkeys.SealContext, recipient []byte) *rpc.SealedKey {
		sealed, err := sshkeys.Seal(text, recipient, c)
		if err != nil {
			t.Fatal(err)
		}
		return &rpc.SealedKey{Recipient: recipient, Sealed: sealed}
	}
	other, err := sshkeys.NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	node, life := to, to
	node.Node, life.Incarnation = cluster.NodeID{7}, 2
	said := ""
	for what, s := range map[string]*rpc.SealedKey{
		"another run":         seal(to, other.Public()),
		"another run, hidden": {Recipient: keys.Recipient, Sealed: seal(to, other.Public()).Sealed},
		"another node":        seal(node, keys.Recipient),
		"another incarnation": seal(life, keys.Recipient),
		"plain":               {Recipient: keys.Recipient, Sealed: text.Reveal()},
	} {
		o.Sealed = s
		got, err := w.order(h, o)
		if err == nil || len(got.SSH) > 0 || len(w.state(h).HeldKeys) > 0 {
			t.Errorf("sealed to %s: taken: %v", what, err)
			continue
		}
		said += err.Error()
	}
	o.Sealed = seal(to, keys.Recipient)
	if got, err := w.order(h, o); err != nil || !hasKey(got.SSH, shared) {
		t.Errorf("sealed to this one: %v", err)
	}
	for what, bad := range map[string]rpc.SSHKeyOrder{
		"dsa": orderOf("dsa", 1024, cluster.StorageFile), "rsa 1024": orderOf("rsa", 1024, cluster.StorageFile), "no storage": orderOf("ed25519", 0, "disk"),
		"shared of another kind": {SSHKeySpec: cluster.SSHKeySpec{Type: "ecdsa", Bits: 256}, Storage: cluster.StorageFile, Shared: &shared},
	} {
		_, err := w.order(h, bad)
		wantCode(t, what, err, cluster.CodeBadFormat)
	}
	h.stop()
	audit, err := os.ReadFile(h.cfg.Paths.NodedAudit())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text.Reveal())
	secret := block.Bytes[len(block.Bytes)-120:]
	for where, all := range map[string]string{"the log": log.String(), "an error": said, "the audit log": string(audit)} {
		if len(all) == 0 || strings.Contains(all, "OPENSSH") || strings.Contains(all, string(secret[:16])) || strings.Contains(all, strings.Split(string(text.Reveal()), "\n")[3]) {
			t.Errorf("%s holds a key, or nothing: %d bytes", where, len(all))
		}
	}
}

// sharedLog is a log that may be read while it is written.
type sharedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *sharedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *sharedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
