package jobs

import (
	"context"
	"fmt"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// keyMaker is a node that can be asked for candidate keys.
type keyMaker interface {
	KeyCreate(ctx context.Context, node cluster.NodeID, r rpc.KeyCreateRequest) (rpc.CandidateKeys, error)
}

// KeyRequest asks a node to have the candidate keys that the state gives it,
// with the SSH key that the map lists now.
func KeyRequest(s *state.State, n *state.Node, cert []byte) rpc.KeyCreateRequest {
	r := rpc.KeyCreateRequest{Incarnation: n.Incarnation, Certificate: cert, SSHSetup: new(s.Params.SSHSetup)}
	if s.Params.SSHSetup && s.FeatureLevel >= state.LevelSSH {
		var shared *cluster.SSHKey
		if listed := roles.ListedSharedKeys(s); len(listed) > 0 {
			shared = &listed[len(listed)-1]
		}
		r.SSHKey = sshOrder(s, shared, nil)
	}
	if n.Keys != nil && s.FeatureLevel >= state.LevelRenew {
		r.Signing = &rpc.SigningOrder{Keep: n.Keys.Signing}
	}
	return r
}

// sshOrder is the order of a key of the node's own, or of a shared one.
func sshOrder(s *state.State, shared *cluster.SSHKey, avoid []cluster.SSHKey) *rpc.SSHKeyOrder {
	set := s.Params.SSH()
	o := &rpc.SSHKeyOrder{SSHKeySpec: set.KeySpec(), Storage: set.Storage, Avoid: avoid, Shared: shared}
	if shared == nil {
		o.Avoid = append(roles.SharedSSHKeys(s), avoid...)
		return o
	}
	if spec, err := sshkeys.SpecOf(*shared); err == nil {
		o.SSHKeySpec = spec // until it is replaced it is what it is
	}
	return o
}

// AskKeys gives a node the order, and the shared key too if the node lacks it.
// What leaves this machine of that is sealed to the node.
func AskKeys(ctx context.Context, c keyMaker, s *state.State, n *state.Node, req rpc.KeyCreateRequest) (rpc.CandidateKeys, error) {
	keys, err := c.KeyCreate(ctx, n.UUID, req)
	if err != nil || len(keys.Recipient) == 0 || req.SSHKey == nil || req.SSHKey.Shared == nil {
		return keys, err
	}
	again := *req.SSHKey
	if again.Sealed, err = sealShared(s, n, *again.Shared, keys.Recipient); err != nil {
		return keys, err
	}
	req.SSHKey = &again
	keys, err = c.KeyCreate(ctx, n.UUID, req)
	if err == nil && !roles.HasSSHKey(keys.SSH, *again.Shared) {
		err = fmt.Errorf("node %s does not take the shared SSH key", n.Name)
	}
	return keys, err
}

// checkSSH looks at what a node answered to an order.
func checkSSH(n *state.Node, o *rpc.SSHKeyOrder, keys []cluster.SSHKey) error {
	for _, k := range keys {
		if _, err := sshkeys.ParseKey(k); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	switch {
	case o == nil, o.Shared != nil && len(keys) == 0:
		return nil // it asks for the shared one, or gets none
	case len(keys) != 1:
		return fmt.Errorf("node %s: %d SSH keys instead of one", n.Name, len(keys))
	case o.Shared != nil && !roles.HasSSHKey(keys, *o.Shared):
		return fmt.Errorf("node %s: another SSH key than the shared one", n.Name)
	case !sshkeys.IsOf(keys[0], o.SSHKeySpec):
		return fmt.Errorf("node %s: an SSH key of another kind than %s", n.Name, o.SSHKeySpec)
	case o.Shared == nil && roles.HasSSHKey(o.Avoid, keys[0]):
		return fmt.Errorf("node %s: an SSH key that is being replaced", n.Name)
	}
	return nil
}

// entryKeys is what a new candidate's entry lists: what all list, while they
// share keys, and else the key that it answered.
func entryKeys(s *state.State, answered []cluster.SSHKey) []cluster.SSHKey {
	switch listed := roles.ListedSharedKeys(s); {
	case !s.Params.SSHSetup:
		return nil
	case len(listed) > 0 && s.FeatureLevel >= state.LevelSSH:
		return listed
	}
	return answered
}
