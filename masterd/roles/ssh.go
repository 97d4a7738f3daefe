package roles

import (
	"bytes"
	"slices"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/sshkeys"
)

// SameSSHKey reports whether two public keys are one.
func SameSSHKey(a, b cluster.SSHKey) bool { return a.Type == b.Type && bytes.Equal(a.Blob, b.Blob) }

// HasSSHKey reports whether a list has a key.
func HasSSHKey(list []cluster.SSHKey, k cluster.SSHKey) bool {
	return slices.ContainsFunc(list, func(o cluster.SSHKey) bool { return SameSSHKey(o, k) })
}

// WithoutSSHKeys returns the keys of a list that are not in the other.
func WithoutSSHKeys(list, gone []cluster.SSHKey) []cluster.SSHKey {
	return slices.DeleteFunc(slices.Clone(list), func(k cluster.SSHKey) bool { return HasSSHKey(gone, k) })
}

// SharedSSHKeys returns the public halves of the cluster's own SSH keys.
func SharedSSHKeys(s *state.State) []cluster.SSHKey {
	var keys []cluster.SSHKey
	for _, k := range s.Shared {
		keys = append(keys, k.Public)
	}
	return keys
}

// ListedSharedKeys returns the shared keys that the map lists, the newest last.
// All candidates that have keys list them, so it is enough to look at the
// master.
func ListedSharedKeys(s *state.State) []cluster.SSHKey {
	m := s.Node(s.Master)
	if m == nil || m.Keys == nil {
		return nil
	}
	return slices.DeleteFunc(SharedSSHKeys(s), func(k cluster.SSHKey) bool { return !HasSSHKey(m.Keys.SSH, k) })
}

// SSHBehind lists the candidates whose SSH keys in the map are not what the
// parameters want, and whether there is anything to be done at all: keys of the
// cluster that nobody lists any more are to be forgotten. What the map does not
// tell, as where a key is kept, is not looked at.
func SSHBehind(s *state.State) (nodes []cluster.NodeID, any bool) {
	if s.FeatureLevel < state.LevelSSH {
		return nil, false
	}
	seen := map[string]int{}
	for _, n := range s.Candidates() {
		for _, k := range n.Keys.SSH {
			seen[string(k.Blob)]++
		}
	}
	p := s.Params
	shared, spec := p.SSHKeyMode == cluster.KeyShared, p.SSH().KeySpec()
	for _, n := range s.Candidates() {
		keys := n.Keys.SSH
		good := len(keys) == 1 && sshkeys.IsOf(keys[0], spec)
		switch {
		case !p.SSHSetup:
			good = len(keys) == 0
		case shared:
			good = good && len(s.Shared) == 1 && HasSSHKey(SharedSSHKeys(s), keys[0])
		default:
			good = good && seen[string(keys[0].Blob)] == 1 && !HasSSHKey(SharedSSHKeys(s), keys[0])
		}
		if !good {
			nodes = append(nodes, n.UUID)
		}
	}
	want := 0
	if p.SSHSetup && shared {
		want = 1
	}
	return nodes, len(nodes) > 0 || len(s.Shared) != want
}
