package jobs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// sshSide is the SSH half of a machine: the private keys that it holds, and what
// its sshd goes by.
type sshSide struct {
	held []heldKey
	ever []cluster.SSHKey // all that it ever held: what its thief has
	full bool             // it cannot store a new key
	seen *candmap.Map     // that it enforces; nil: none since the test began
	// So long do logins that are under way last; below zero it cannot tell.
	clients, logins time.Duration
}

type heldKey struct {
	public  cluster.SSHKey
	storage cluster.SSHKeyStorage
}

func (m *machine) hold(k cluster.SSHKey, where cluster.SSHKeyStorage) {
	m.ssh.held = append(m.ssh.held, heldKey{k, where})
	m.ssh.ever = append(m.ssh.ever, k)
}

func (m *machine) holds(list []cluster.SSHKey) bool {
	return slices.ContainsFunc(m.ssh.held, func(h heldKey) bool { return roles.HasSSHKey(list, h.public) })
}

// sshKey does what noded does with an order.
func (m *machine) sshKey(t *testing.T, s *state.State, n *state.Node, o *rpc.SSHKeyOrder, keys *rpc.CandidateKeys) error {
	t.Helper()
	for _, h := range m.ssh.held {
		shared := o.Shared != nil && roles.SameSSHKey(h.public, *o.Shared)
		if (shared || o.Shared == nil && sshkeys.IsOf(h.public, o.SSHKeySpec)) && h.storage == o.Storage && !roles.HasSSHKey(o.Avoid, h.public) {
			keys.SSH = []cluster.SSHKey{h.public}
			return nil
		}
	}
	next, err := m.newKey(t, o, keys, sshkeys.SealContext{Cluster: s.Cluster.UUID, Node: n.UUID, Incarnation: n.Incarnation})
	if next == nil || err != nil {
		return err
	}
	if m.ssh.full {
		return errors.New("no space left on device")
	}
	if len(m.ssh.held) == 2 {
		var entry []cluster.SSHKey
		if n.Keys != nil {
			entry = n.Keys.SSH
		}
		m.ssh.held = slices.DeleteFunc(m.ssh.held, func(h heldKey) bool { return !roles.HasSSHKey(entry, h.public) })
		if len(m.ssh.held) == 2 {
			return fmt.Errorf("node %s holds two keys of the map (%d) already", n.Name, len(s.HeadMap().Candidates))
		}
	}
	m.hold(*next, o.Storage)
	keys.SSH = []cluster.SSHKey{*next}
	return nil
}

func (m *machine) newKey(t *testing.T, o *rpc.SSHKeyOrder, keys *rpc.CandidateKeys, c sshkeys.SealContext) (*cluster.SSHKey, error) {
	switch {
	case o.Shared == nil:
		k := madeKey(t, o.SSHKeySpec)
		return &k, nil
	case o.Sealed == nil:
		keys.Recipient = m.recipient()
		return nil, nil
	}
	return o.Shared, m.open(o, c)
}

var rsaKey = func() func() *rsa.PrivateKey {
	var made *rsa.PrivateKey
	return func() *rsa.PrivateKey {
		if made == nil {
			made, _ = rsa.GenerateKey(rand.Reader, cluster.MinRSABits)
		}
		return made
	}
}()

func madeKey(t *testing.T, spec cluster.SSHKeySpec) cluster.SSHKey {
	t.Helper()
	var public any
	switch {
	case spec.Type == "rsa":
		public = rsaKey().Public()
	case spec.Type == "ecdsa":
		k, err := ecdsa.GenerateKey(map[int]elliptic.Curve{256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}[spec.Bits], rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		public = k.Public()
	default:
		public, _, _ = ed25519.GenerateKey(nil)
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return sshkeys.KeyOf(pub)
}

// accept does what a node does with a map: it retires keys.
func (m *machine) accept(next *candmap.Map, id cluster.NodeID) {
	var before, now []cluster.SSHKey
	if m.ssh.seen != nil {
		before = entryOf(m.ssh.seen, id)
	}
	now = entryOf(next, id)
	m.ssh.seen = next
	m.ssh.held = slices.DeleteFunc(m.ssh.held, func(h heldKey) bool {
		return !roles.HasSSHKey(now, h.public) && (roles.HasSSHKey(before, h.public) || now == nil && before != nil)
	})
}

func entryOf(m *candmap.Map, id cluster.NodeID) []cluster.SSHKey {
	for _, c := range m.Candidates {
		if c.UUID == id {
			return append([]cluster.SSHKey{}, c.SSH...)
		}
	}
	return nil
}

// spreadMap delivers the head to all machines that are up, the master last or
// first, and checks that the master can log in to every one of them whatever
// of them has it already.
func (w *world) spreadMap() {
	head := w.lab.S.HeadMap()
	master := w.machines[head.Master]
	w.canLogIn("before map " + head.At().String())
	master.accept(head, head.Master)
	w.canLogIn("while only the master has map " + head.At().String())
	for id, m := range w.machines {
		if m.up && w.lab.S.Node(id) != nil {
			m.accept(head, id)
		}
	}
	w.canLogIn("with map " + head.At().String())
}

// canLogIn checks that a key which the master holds opens every machine that
// has heard a map and is up, if there are keys in that map at all.
func (w *world) canLogIn(when string) {
	w.t.Helper()
	head := w.lab.S.HeadMap()
	master := w.machines[head.Master]
	for id, m := range w.machines {
		if n := w.lab.S.Node(id); !m.up || m.ssh.seen == nil || n == nil {
			continue
		}
		if open := entryOf(m.ssh.seen, head.Master); len(open) > 0 && len(entryOf(head, head.Master)) > 0 && !master.holds(open) {
			w.t.Errorf("%s: the master holds none of the keys that open %s", when, w.lab.S.Node(id).Name)
		}
	}
}

// opens lists the machines that are up and accept a key.
func (w *world) opens(k cluster.SSHKey) (names []string) {
	for id, m := range w.machines {
		if !m.up || m.ssh.seen == nil || w.State().Node(id) == nil {
			continue
		}
		for _, c := range m.ssh.seen.Candidates {
			if roles.HasSSHKey(c.SSH, k) {
				names = append(names, string(w.State().Node(id).Name))
				break
			}
		}
	}
	return names
}

// rolled reports what of the SSH keys is not as the parameters want, with nodes
// that were away left apart.
func (w *world) rolled() error {
	s := w.State()
	if behind, any := roles.SSHBehind(s); any {
		return fmt.Errorf("SSH keys in the map are not as wanted: %d nodes, %d shared", len(behind), len(s.Shared))
	}
	for _, n := range s.SortedNodes() {
		m := w.machines[n.UUID]
		if !m.up {
			continue
		}
		if n.Keys != nil && len(n.Keys.SSH) > 0 && !m.holds(n.Keys.SSH) {
			return fmt.Errorf("%s holds none of its keys", n.Name)
		}
		for _, h := range m.ssh.held {
			if n.Keys == nil || !roles.HasSSHKey(n.Keys.SSH, h.public) {
				return fmt.Errorf("%s holds a key that the map does not list", n.Name)
			}
			if h.storage != s.Params.SSH().Storage {
				return fmt.Errorf("%s holds its key in %s", n.Name, h.storage)
			}
		}
		if n.Keys == nil {
			for _, k := range m.ssh.ever {
				if open := w.opens(k); len(open) > 0 {
					return fmt.Errorf("what %s knows opens %v", n.Name, open)
				}
			}
		}
	}
	return nil
}
