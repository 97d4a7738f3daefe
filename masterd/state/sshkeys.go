package state

import (
	"errors"
	"fmt"

	"rolekey/candmap"
	"rolekey/cluster"
)

// SharedKey is an SSH key of the cluster as a whole. Its private half is in no
// form of the state but the snapshot.
type SharedKey struct {
	Public  cluster.SSHKey `json:"public"`
	Private cluster.Secret `json:"-"` // as package sshkeys encodes it
}

// SSHKeysChange is one phase of a change of SSH keys, for many candidates in
// one map: the lists overlap, or the old keys are retired.
type SSHKeysChange struct {
	Lists []NodeSSHKeys `json:"lists"`
	Job   *JobUpdate    `json:"job,omitempty"`
}

// NodeSSHKeys is the new list of one candidate: none, one or two keys. It
// shares a key with the list before it, so that no phase locks the node out,
// unless one of the two is empty or the node has lost its keys.
type NodeSSHKeys struct {
	Node cluster.NodeID   `json:"node"`
	SSH  []cluster.SSHKey `json:"ssh"`
	Lost bool             `json:"lost,omitempty"` // the old keys open nothing that matters, or must not
}

// SharedKeysChange replaces the cluster's own SSH keys. What the map lists is
// changed by SSHKeysChange: before it for a key that goes, after it for one
// that comes.
type SharedKeysChange struct {
	Keys []SharedKey
	Job  *JobUpdate
}

type sharedWire struct {
	Keys    []SharedKey `json:"keys"`
	Private [][]byte    `json:"private"`
	Job     *JobUpdate  `json:"job,omitempty"`
}

func (c SharedKeysChange) wire() any { return sharedWire{c.Keys, revealShared(c.Keys), c.Job} }

func revealShared(keys []SharedKey) [][]byte {
	var out [][]byte
	for _, k := range keys {
		out = append(out, k.Private.Reveal())
	}
	return out
}

// joinShared puts the halves together.
func joinShared(keys []SharedKey, private [][]byte) ([]SharedKey, error) {
	if len(keys) != len(private) {
		return nil, errors.New("shared SSH keys: not every one has a private half")
	}
	var out []SharedKey // nil when empty
	for i, k := range keys {
		out = append(out, SharedKey{k.Public, cluster.NewSecret(private[i])})
	}
	return out, checkShared(out)
}

func (s *State) takeShared(private [][]byte) (err error) {
	s.Shared, err = joinShared(s.Shared, private)
	return err
}

func checkShared(keys []SharedKey) error {
	if len(keys) > 2 {
		return fmt.Errorf("%d shared SSH keys, the limit is 2", len(keys))
	}
	for i, k := range keys {
		if n := len(k.Private.Reveal()); n == 0 || n > MaxSSHPrivate || len(k.Public.Blob) == 0 || len(k.Public.Blob) > candmap.MaxSSHBlob {
			return fmt.Errorf("shared SSH key %d: both halves must be set, the private one of at most %d bytes", i, MaxSSHPrivate)
		}
		if i > 0 && hasKey([]cluster.SSHKey{keys[0].Public}, k.Public) {
			return errors.New("a shared SSH key is listed twice")
		}
	}
	return nil
}

func (c *sharedWire) apply(d *draft) error {
	keys, err := joinShared(c.Keys, c.Private)
	if err != nil {
		return badFormat("%v", err)
	}
	d.Shared = keys
	return d.linkJob(c.Job)
}

func (c *SSHKeysChange) apply(d *draft) error {
	if len(c.Lists) == 0 {
		return badFormat("SSH keys: no node is named")
	}
	seen := map[cluster.NodeID]bool{}
	for _, l := range c.Lists {
		if seen[l.Node] {
			return badFormat("SSH keys: node %s is named twice", l.Node)
		}
		seen[l.Node] = true
		if err := l.apply(d); err != nil {
			return err
		}
	}
	return d.linkJob(c.Job)
}

func (l NodeSSHKeys) apply(d *draft) error {
	n, err := d.node(l.Node)
	if err != nil {
		return err
	}
	if n.Keys == nil {
		return conflict("node %s is not a master candidate, so it has no SSH key of the cluster", n.Name)
	}
	if err := keepsOne(n, l.SSH); err != nil && !l.Lost {
		return err
	}
	keys := *n.Keys
	keys.SSH = l.SSH
	n.Keys = &keys
	return nil
}
