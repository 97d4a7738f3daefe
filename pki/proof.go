package pki

import (
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"

	"rolekey/cluster"
)

const (
	// ExporterLabel is the label of the TLS exporter value in a proof.
	ExporterLabel = "EXPORTER-rolekey-admission-v1"
	// ExporterSize is its length in bytes.
	ExporterSize = 32
)

// Claim is what a new node signs with the seed of its admission string.
type Claim struct {
	Cluster  cluster.UUID
	Record   cluster.UUID
	Name     cluster.Name
	Request  cluster.Digest     // of the request's body
	Exporter [ExporterSize]byte // of the connection that carries it
}

func (c Claim) transcript() []byte {
	return transcript(domainProof, c.Cluster[:], c.Record[:], []byte(c.Name), c.Request[:], c.Exporter[:])
}

// Prove signs the claim. The seed itself is never sent.
func Prove(seed cluster.Secret, c Claim) ([]byte, error) {
	if len(seed.Reveal()) != ed25519.SeedSize {
		return nil, fmt.Errorf("prove admission: want a seed of %d bytes", ed25519.SeedSize)
	}
	return ed25519.Sign(ed25519.NewKeyFromSeed(seed.Reveal()), c.transcript()), nil
}

// CheckProof checks what Prove made. Failure is CodeBadSignature.
func CheckProof(pub ed25519.PublicKey, c Claim, sig []byte) error {
	return checkSignature("admission proof", pub, c.transcript(), sig)
}

// Exporter returns the value that ties a proof to one TLS connection (RFC 8446
// §7.5); both ends compute the same.
func Exporter(cs *tls.ConnectionState) ([ExporterSize]byte, error) {
	var out [ExporterSize]byte
	if cs == nil || !cs.HandshakeComplete || cs.Version != tls.VersionTLS13 {
		return out, errors.New("export keying material: want a TLS 1.3 connection")
	}
	b, err := cs.ExportKeyingMaterial(ExporterLabel, nil, ExporterSize)
	if err != nil {
		return out, fmt.Errorf("export keying material: %w", err)
	}
	copy(out[:], b)
	return out, nil
}
