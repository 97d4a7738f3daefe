package sshkeys

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
)

// Generate makes a private key of a kind, encoded as ssh-keygen does
// (PROTOCOL.key of OpenSSH), without a passphrase. RSA keys take seconds.
func Generate(spec cluster.SSHKeySpec, comment string) (cluster.Secret, cluster.SSHKey, error) {
	if checked, err := cluster.ParseSSHKeySpec(spec.Type, spec.Bits); err != nil || checked != spec {
		return cluster.Secret{}, cluster.SSHKey{}, errors.Join(fmt.Errorf("generate ssh key of kind %q", spec), err)
	}
	var private crypto.Signer
	var err error
	switch spec.Type {
	case "rsa":
		private, err = rsa.GenerateKey(rand.Reader, spec.Bits)
	case "ecdsa":
		curve := map[int]elliptic.Curve{256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}[spec.Bits]
		private, err = ecdsa.GenerateKey(curve, rand.Reader)
	default:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return cluster.Secret{}, cluster.SSHKey{}, fmt.Errorf("generate ssh key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return cluster.Secret{}, cluster.SSHKey{}, fmt.Errorf("encode ssh key: %w", err)
	}
	text := cluster.NewSecret(pem.EncodeToMemory(block))
	signer, err := ParsePrivate(text)
	if err != nil {
		return cluster.Secret{}, cluster.SSHKey{}, err
	}
	return text, KeyOf(signer.PublicKey()), nil
}

// ParsePrivate reads a private key as Generate encodes it, of a kind that a
// cluster may have.
func ParsePrivate(text cluster.Secret) (ssh.Signer, error) {
	if len(text.Reveal()) > maxKeyFile {
		return nil, errUnusable
	}
	signer, err := ssh.ParsePrivateKey(text.Reveal())
	if err != nil {
		return nil, errUnusable // the parser's text could quote the key
	}
	if spec, err := SpecOf(KeyOf(signer.PublicKey())); err != nil {
		return nil, errUnusable
	} else if _, err := cluster.ParseSSHKeySpec(spec.Type, spec.Bits); err != nil {
		return nil, errUnusable
	}
	return signer, nil
}
