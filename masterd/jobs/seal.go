package jobs

import (
	"fmt"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// sealShared seals the private half of the shared key to the recipient that a
// node named.
func sealShared(s *state.State, n *state.Node, public cluster.SSHKey, recipient []byte) (*rpc.SealedKey, error) {
	for _, k := range s.Shared {
		if !roles.SameSSHKey(k.Public, public) {
			continue
		}
		c := sshkeys.SealContext{Cluster: s.Cluster.UUID, Node: n.UUID, Incarnation: n.Incarnation, Key: k.Public}
		sealed, err := sshkeys.Seal(k.Private, recipient, c)
		if err != nil {
			return nil, fmt.Errorf("the shared SSH key for node %s: %w", n.Name, err)
		}
		return &rpc.SealedKey{Recipient: recipient, Sealed: sealed}, nil
	}
	return nil, fmt.Errorf("the private half of the shared SSH key %s is not here", sshkeys.Fingerprint(public))
}

// NewSharedKey makes a key for the cluster as a whole.
func NewSharedKey(spec cluster.SSHKeySpec) (state.SharedKey, error) {
	private, public, err := sshkeys.Generate(spec, "rolekey:shared")
	if err != nil {
		return state.SharedKey{}, fmt.Errorf("make a shared SSH key: %w", err)
	}
	return state.SharedKey{Public: public, Private: private}, nil
}
