package pki

import (
	"crypto/ed25519"
	"encoding/binary"

	"rolekey/cluster"
)

// Domains of the transcripts that this package signs.
const (
	domainProof      = "rolekey/admission-proof/v1"
	domainPossession = "rolekey/signing-key/v1"
	domainHosts      = "rolekey/host-keys/v1"
)

// transcript joins a domain and fields, each preceded by its length, so that
// no two lists of fields yield the same bytes.
func transcript(domain string, fields ...[]byte) []byte {
	t := binary.BigEndian.AppendUint32(nil, uint32(len(domain)))
	t = append(t, domain...)
	for _, f := range fields {
		t = binary.BigEndian.AppendUint32(t, uint32(len(f)))
		t = append(t, f...)
	}
	return t
}

// checkSignature verifies an Ed25519 signature by a key that passes
// CheckPublicKey.
func checkSignature(what string, pub ed25519.PublicKey, message, sig []byte) error {
	if err := checkEd25519(pub); err != nil {
		return cluster.Errorf(cluster.CodeBadSignature, "%s: %v", what, err)
	}
	if !ed25519.Verify(pub, message, sig) {
		return cluster.Errorf(cluster.CodeBadSignature, "%s: the signature does not verify", what)
	}
	return nil
}
