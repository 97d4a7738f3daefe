package pki

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"

	"rolekey/cluster"
)

// GenerateSigningKey returns a new Ed25519 key for signing maps.
func GenerateSigningKey() (ed25519.PublicKey, ed25519.PrivateKey, error) {
	return ed25519.GenerateKey(nil)
}

// ProvePossession signs that the holder of key wants it to be the signing key
// of this incarnation of this node.
func ProvePossession(key ed25519.PrivateKey, id cluster.UUID, node cluster.NodeID, incarnation uint64) ([]byte, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("prove possession: not an Ed25519 private key")
	}
	pub, _ := key.Public().(ed25519.PublicKey)
	return ed25519.Sign(key, possession(pub, id, node, incarnation)), nil
}

// CheckPossession checks what ProvePossession made, before the key may enter
// the map. Failure is CodeBadSignature.
func CheckPossession(pub ed25519.PublicKey, id cluster.UUID, node cluster.NodeID, incarnation uint64, sig []byte) error {
	return checkSignature("possession of the signing key", pub, possession(pub, id, node, incarnation), sig)
}

func possession(pub ed25519.PublicKey, id cluster.UUID, node cluster.NodeID, incarnation uint64) []byte {
	return transcript(domainPossession, id[:], node[:], binary.BigEndian.AppendUint64(nil, incarnation), pub)
}
