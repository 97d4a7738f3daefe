package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"

	"rolekey/cluster"
)

// CSR is what is believed of a certificate request: the key that signed it.
type CSR struct {
	PublicKey crypto.PublicKey
	Pin       cluster.Digest // SHA-256 of its SubjectPublicKeyInfo
}

// NewCSR returns a certificate request in DER (RFC 2986) that carries the
// public key and nothing else: the issuer would not read more.
func NewCSR(key crypto.Signer) ([]byte, error) {
	if err := CheckPublicKey(key.Public()); err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// ParseCSR reads a certificate request and checks that its sender holds the
// private key. The key is judged before the signature, so that no stranger
// can order the verification of a giant key.
func ParseCSR(der []byte) (CSR, error) {
	if len(der) > maxCSR {
		return CSR{}, cluster.Errorf(cluster.CodeTooLarge, "certificate request: over %d bytes", maxCSR)
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return CSR{}, cluster.Errorf(cluster.CodeBadFormat, "certificate request: %v", err)
	}
	if err := CheckPublicKey(req.PublicKey); err != nil {
		return CSR{}, cluster.Errorf(cluster.CodeBadFormat, "certificate request: %v", err)
	}
	if err := req.CheckSignature(); err != nil {
		return CSR{}, cluster.Errorf(cluster.CodeBadSignature, "certificate request: %v", err)
	}
	pin, err := PinOfKey(req.PublicKey)
	if err != nil {
		return CSR{}, fmt.Errorf("certificate request: %w", err)
	}
	return CSR{PublicKey: req.PublicKey, Pin: pin}, nil
}
