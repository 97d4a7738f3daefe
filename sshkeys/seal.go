package sshkeys

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"

	"rolekey/cluster"
)

// sealDomain begins the info of every sealed key; docs/ssh.rst specifies it.
const sealDomain = "rolekey shared ssh key v1"

// SealContext says for whom and what a sealed key is. It is bound to the
// ciphertext: opened for anything else it fails.
type SealContext struct {
	Cluster     cluster.UUID
	Node        cluster.NodeID
	Incarnation uint64
	Key         cluster.SSHKey // the public half
}

func (c SealContext) info() []byte {
	sum := cluster.DigestOf(c.Key.Blob)
	var incarnation [8]byte
	binary.BigEndian.PutUint64(incarnation[:], c.Incarnation)
	var out []byte
	for _, part := range [][]byte{[]byte(sealDomain), c.Cluster[:], c.Node[:], incarnation[:], sum[:]} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return out
}

func kem() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

// Recipient opens what was sealed to it. It lives in memory alone, so that what
// was sealed to a daemon is worthless when that has ended.
type Recipient struct{ key func() hpke.PrivateKey } // a closure, so that nothing prints it

// NewRecipient makes a recipient.
func NewRecipient() (*Recipient, error) {
	key, err := kem().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("make recipient key: %w", err)
	}
	return &Recipient{func() hpke.PrivateKey { return key }}, nil
}

// Public returns what others seal to.
func (r *Recipient) Public() []byte { return r.key().PublicKey().Bytes() }

// Open opens a private key, which must fit the public half.
func (r *Recipient) Open(sealed []byte, c SealContext) (cluster.Secret, error) {
	text, err := hpke.Open(r.key(), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), c.info(), sealed)
	if err != nil {
		return cluster.Secret{}, errors.New("open sealed ssh key: it was sealed to another node, key or run of this daemon, or changed")
	}
	secret := cluster.NewSecret(text)
	signer, err := ParsePrivate(secret)
	if err != nil {
		return cluster.Secret{}, fmt.Errorf("open sealed ssh key: %w", err)
	}
	if !sameKey(KeyOf(signer.PublicKey()), c.Key) {
		return cluster.Secret{}, errors.New("open sealed ssh key: the private half is of another key")
	}
	return secret, nil
}

// Seal seals a private key to a recipient (HPKE, RFC 9180: base mode, X25519,
// HKDF-SHA256, ChaCha20-Poly1305).
func Seal(private cluster.Secret, recipient []byte, c SealContext) ([]byte, error) {
	to, err := kem().NewPublicKey(recipient)
	if err != nil {
		return nil, fmt.Errorf("seal ssh key: recipient: %w", err)
	}
	sealed, err := hpke.Seal(to, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), c.info(), private.Reveal())
	if err != nil {
		return nil, fmt.Errorf("seal ssh key: %w", err)
	}
	return sealed, nil
}
