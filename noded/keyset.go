package noded

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// keyDir is the set of this node's own SSH keys: one, or two while one replaces
// the other, in files or in memory. The map decides which stay. It is shared by
// all lives of this node in one run of noded; its methods may be called
// concurrently.
type keyDir struct {
	dir  sshkeys.KeyDir
	now  func() time.Time
	made *maker
	mu   *sync.Mutex
	*keySet
}

// keySet is what keyDir's mutex guards.
type keySet struct {
	memory    []heldKey          // the older one first
	listed    map[string]bool    // blobs that the map has listed in this run
	known     []heldKey          // what there was when it was looked at last
	recipient *sshkeys.Recipient // that shared keys are sealed to; nil: not asked for yet
	socket    string             // where ssh finds the agent
}

// heldKey is a private key that this node has.
type heldKey struct {
	key     cluster.SSHKey
	signer  ssh.Signer
	path    string // "": in memory
	changed time.Time
}

func (h heldKey) storage() cluster.SSHKeyStorage {
	if h.path == "" {
		return cluster.StorageAgent
	}
	return cluster.StorageFile
}

func newKeyDir(at paths.Layout, now func() time.Time, step func(string) error) keyDir {
	return keyDir{
		dir: sshkeys.KeyDir{Path: at.SSHDir(), Step: step}, now: now, made: new(maker),
		mu: new(sync.Mutex), keySet: &keySet{listed: map[string]bool{}},
	}
}

// recover finishes what an earlier run left: it may have ended anywhere, and what it
// held in memory is gone.
func (k keyDir) recover(node cluster.NodeID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.dir.Tidy(node)
	var public []cluster.SSHKey
	for _, h := range k.memory {
		public = append(public, h.key)
	}
	_, publishErr := k.dir.Publish(public, node)
	_, lookErr := k.look()
	return errors.Join(err, publishErr, lookErr)
}

// look reads the folder. Of keys in files, and of those in memory, the older one
// comes first; between the two nobody knows.
func (k keyDir) look() ([]heldKey, error) {
	files, err := k.dir.Held()
	var list []heldKey
	for _, f := range files {
		list = append(list, heldKey{f.Key, f.Signer, f.Path, f.Changed})
	}
	k.known = append(list, k.memory...)
	return k.known, err
}

// refresh looks at the folder, and returns what is held.
func (k keyDir) refresh() []heldKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	list, _ := k.look()
	return list
}

// held returns what was there at the last look.
func (k keyDir) held() []heldKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.known)
}

func (k keyDir) inMemory() []heldKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.memory)
}

func hasKey(list []cluster.SSHKey, key cluster.SSHKey) bool {
	return slices.ContainsFunc(list, func(o cluster.SSHKey) bool { return sameKey(o, key) })
}

// fits reports whether a key is what an order wants.
func (h heldKey) fits(o *rpc.SSHKeyOrder) bool {
	if h.storage() != o.Storage {
		return false
	}
	if o.Shared != nil {
		return hasKey([]cluster.SSHKey{*o.Shared}, h.key)
	}
	return sshkeys.IsOf(h.key, o.SSHKeySpec) && !hasKey(o.Avoid, h.key)
}

// prepare has the key made that an order will need, before it is carried out;
// nil: none.
func (k keyDir) prepare(ctx context.Context, o *rpc.SSHKeyOrder, node cluster.NodeID) (*draft, error) {
	if o == nil || o.Shared != nil || slices.ContainsFunc(k.refresh(), func(h heldKey) bool { return h.fits(o) }) {
		return nil, nil
	}
	return k.made.make(ctx, o.SSHKeySpec, node)
}

// order has the key that a master orders in the set, and returns its public
// half. Without one, a shared key is not here yet: it is to be sealed to the
// recipient. Entry is what the map lists of this node. The same order again
// changes nothing.
func (k keyDir) order(o rpc.SSHKeyOrder, c sshkeys.SealContext, entry []cluster.SSHKey, d *draft) (key *cluster.SSHKey, recipient []byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	list, err := k.look()
	if err != nil {
		return nil, nil, err
	}
	for _, h := range slices.Backward(list) {
		if h.fits(&o) {
			return &h.key, nil, nil
		}
	}
	var text cluster.Secret
	switch {
	case o.Shared != nil && o.Sealed == nil:
		recipient, err = k.recipientLocked()
		return nil, recipient, err
	case o.Shared != nil:
		if text, err = k.open(o, c); err != nil {
			return nil, nil, err
		}
		key = o.Shared
	case d == nil || slices.ContainsFunc(list, func(h heldKey) bool { return sameKey(h.key, d.key) }):
		return nil, nil, cluster.Errorf(cluster.CodeBusy, "this node's SSH keys were changed meanwhile: ask again")
	default:
		text, key = d.text, &d.key
	}
	if err := k.room(list, entry, o, c.Node); err != nil {
		return nil, nil, err
	}
	err = k.store(text, o.Storage, c.Node)
	_, lookErr := k.look()
	if err == nil {
		k.made.taken(d)
	}
	return key, nil, errors.Join(err, lookErr)
}

func (k keyDir) recipientLocked() ([]byte, error) {
	if k.recipient == nil {
		r, err := sshkeys.NewRecipient()
		if err != nil {
			return nil, err
		}
		k.recipient = r
	}
	return k.recipient.Public(), nil
}

func (k keyDir) open(o rpc.SSHKeyOrder, c sshkeys.SealContext) (cluster.Secret, error) {
	if k.recipient == nil || string(k.recipient.Public()) != string(o.Sealed.Recipient) {
		return cluster.Secret{}, cluster.Errorf(cluster.CodeUnavailable, "the shared SSH key is sealed to another run of this node's noded").WithHint("the master asks again")
	}
	c.Key = *o.Shared
	return k.recipient.Open(o.Sealed.Sealed, c)
}

// room makes room for one more key: of two, that goes which the map does not
// list, or else the older one.
func (k keyDir) room(list []heldKey, entry []cluster.SSHKey, o rpc.SSHKeyOrder, node cluster.NodeID) error {
	if len(list) < 2 {
		return nil
	}
	victim := list[0]
	for _, h := range list {
		if !hasKey(entry, h.key) {
			victim = h
			break
		}
	}
	_, remains := k.drop(func(h heldKey) bool { return h.path == victim.path && string(h.key.Blob) == string(victim.key.Blob) }, node)
	return errors.Join(remains...)
}

func (k keyDir) store(text cluster.Secret, to cluster.SSHKeyStorage, node cluster.NodeID) error {
	if to != cluster.StorageAgent {
		return k.dir.Add(text, node)
	}
	signer, err := sshkeys.ParsePrivate(text)
	if err == nil {
		k.memory = append(k.memory, heldKey{key: sshkeys.KeyOf(signer.PublicKey()), signer: signer, changed: k.now()})
	}
	return err
}

// ensure has a key of the default kind in a file, as orders of earlier releases
// want it.
func (k keyDir) ensure(node cluster.NodeID) (cluster.SSHKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, _, err := k.dir.Ensure(node)
	_, lookErr := k.look()
	return key, errors.Join(err, lookErr)
}

// found has the first key of a new cluster.
func (k keyDir) found(ctx context.Context, node cluster.NodeID, init rpc.InitRequest) (cluster.SSHKey, error) {
	spec, err := cluster.ParseSSHKeySpec(cmp.Or(init.SSHKeyType, cluster.DefaultSSHKey.Type), init.SSHKeyBits)
	if err != nil {
		return cluster.SSHKey{}, err
	}
	o := rpc.SSHKeyOrder{SSHKeySpec: spec, Storage: cmp.Or(init.SSHKeyStorage, cluster.StorageFile)}
	d, err := k.prepare(ctx, &o, node)
	if err != nil {
		return cluster.SSHKey{}, err
	}
	key, _, err := k.order(o, sshkeys.SealContext{Node: node}, nil, d)
	if err != nil {
		return cluster.SSHKey{}, err
	}
	return *key, nil
}

// load returns the newest public half of which the map lists the key, or any,
// and whether any key, or file of one, is here.
func (k keyDir) load(entry []cluster.SSHKey) (key *cluster.SSHKey, present bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found, err := k.dir.Present()
	present = len(found) > 0 || err != nil || len(k.memory) > 0
	list, _ := k.look()
	for _, h := range list {
		if key == nil || hasKey(entry, h.key) || !hasKey(entry, *key) {
			key = &h.key
		}
	}
	return key, present
}

// strays lists private keys beside ours; nobody's to remove but root's.
func (k keyDir) strays() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	found, _ := k.dir.Strays()
	return found
}
