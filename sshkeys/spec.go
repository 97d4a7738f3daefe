package sshkeys

import (
	"crypto/rsa"
	"fmt"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
)

// SpecOf tells what kind of key a public key is, of the kinds that a cluster
// can ask for.
func SpecOf(k cluster.SSHKey) (cluster.SSHKeySpec, error) {
	pub, err := ParseKey(k)
	if err != nil {
		return cluster.SSHKeySpec{}, err
	}
	switch pub.Type() {
	case ssh.KeyAlgoED25519:
		return cluster.DefaultSSHKey, nil
	case ssh.KeyAlgoECDSA256:
		return cluster.SSHKeySpec{Type: "ecdsa", Bits: 256}, nil
	case ssh.KeyAlgoECDSA384:
		return cluster.SSHKeySpec{Type: "ecdsa", Bits: 384}, nil
	case ssh.KeyAlgoECDSA521:
		return cluster.SSHKeySpec{Type: "ecdsa", Bits: 521}, nil
	}
	if c, ok := pub.(ssh.CryptoPublicKey); ok {
		if k, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok {
			return cluster.SSHKeySpec{Type: "rsa", Bits: k.N.BitLen()}, nil
		}
	}
	return cluster.SSHKeySpec{}, fmt.Errorf("ssh key type %q is none of a cluster's", pub.Type())
}

// IsOf reports whether a public key is of that kind.
func IsOf(k cluster.SSHKey, spec cluster.SSHKeySpec) bool {
	is, err := SpecOf(k)
	return err == nil && is == spec
}
