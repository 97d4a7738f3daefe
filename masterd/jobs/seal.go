package jobs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// sealKey seals the private half of a key to the recipient that a node named.
var sealKey = func(_ *state.State, _ *state.Node, _ state.SharedKey, _ []byte) ([]byte, error) {
	return nil, errors.New("this build cannot seal keys to nodes")
}

func sealShared(s *state.State, n *state.Node, public cluster.SSHKey, recipient []byte) (*rpc.SealedKey, error) {
	for _, k := range s.Shared {
		if !roles.SameSSHKey(k.Public, public) {
			continue
		}
		sealed, err := sealKey(s, n, k, recipient)
		if err != nil {
			return nil, fmt.Errorf("seal the shared SSH key to node %s: %w", n.Name, err)
		}
		return &rpc.SealedKey{Recipient: recipient, Sealed: sealed}, nil
	}
	return nil, fmt.Errorf("the private half of the shared SSH key %s is not here", sshkeys.Fingerprint(public))
}

// NewSharedKey makes a key for the cluster as a whole.
func NewSharedKey(spec cluster.SSHKeySpec) (state.SharedKey, error) {
	var private crypto.Signer
	var err error
	switch {
	case spec.Type == "rsa":
		private, err = rsa.GenerateKey(rand.Reader, spec.Bits)
	case spec.Type == "ecdsa":
		curve := map[int]elliptic.Curve{256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}[spec.Bits]
		private, err = ecdsa.GenerateKey(curve, rand.Reader)
	default:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return state.SharedKey{}, fmt.Errorf("make a shared SSH key: %w", err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return state.SharedKey{}, fmt.Errorf("make a shared SSH key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "rolekey:shared")
	if err != nil {
		return state.SharedKey{}, fmt.Errorf("make a shared SSH key: %w", err)
	}
	return state.SharedKey{Public: sshkeys.KeyOf(public), Private: cluster.NewSecret(pem.EncodeToMemory(block))}, nil
}
