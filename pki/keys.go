package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"filippo.io/edwards25519"

	"rolekey/cluster"
)

const (
	pemKey  = "PRIVATE KEY"
	pemCert = "CERTIFICATE"
)

// errBadKey means that a text is not a private key that this package uses.
var errBadKey = errors.New("parse key")

// GenerateKey returns a new ECDSA P-256 key, the kind that every TLS library
// knows.
func GenerateKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

// CheckPublicKey accepts ECDSA P-256 and Ed25519 keys and nothing else.
func CheckPublicKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k == nil || k.Curve != elliptic.P256() {
			return errors.New("check public key: ECDSA keys must be on P-256")
		}
		if _, err := k.ECDH(); err != nil {
			return fmt.Errorf("check public key: %w", err)
		}
		return nil
	case ed25519.PublicKey:
		return checkEd25519(k)
	default:
		return errors.New("check public key: want ECDSA P-256 or Ed25519")
	}
}

// checkEd25519 refuses second spellings of a point, and points of small order:
// under those a signature by nobody verifies for any message.
func checkEd25519(k ed25519.PublicKey) error {
	p, err := new(edwards25519.Point).SetBytes(k)
	if err != nil || !bytes.Equal(p.Bytes(), k) {
		return errors.New("check public key: not a canonical Ed25519 key")
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return errors.New("check public key: Ed25519 key of small order")
	}
	return nil
}

// PinOfKey returns the SHA-256 of the key's SubjectPublicKeyInfo in DER.
func PinOfKey(pub crypto.PublicKey) (cluster.Digest, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return cluster.Digest{}, fmt.Errorf("pin public key: %w", err)
	}
	return cluster.DigestOf(der), nil
}

// EncodeKey returns the key as PKCS #8 in PEM.
func EncodeKey(key crypto.Signer) (cluster.Secret, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return cluster.Secret{}, fmt.Errorf("encode key: %w", err)
	}
	defer clear(der)
	return cluster.NewSecret(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})), nil
}

// ParseKey reads one PKCS #8 key in PEM; nothing may follow it.
func ParseKey(text cluster.Secret) (crypto.Signer, error) {
	block, rest := pem.Decode(text.Reveal())
	if block == nil || block.Type != pemKey || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("%w: want one PEM block PRIVATE KEY", errBadKey)
	}
	defer clear(block.Bytes)
	return parsePKCS8(block.Bytes)
}

func parsePKCS8(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		// The parser's error may describe the bytes; the kind of failure is enough.
		return nil, fmt.Errorf("%w: not a PKCS #8 private key", errBadKey)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: this kind of key cannot sign", errBadKey)
	}
	if err := CheckPublicKey(signer.Public()); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadKey, err)
	}
	return signer, nil
}

// EncodeCert returns a DER certificate in PEM.
func EncodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})
}

// ParseCert reads one certificate in PEM; nothing may follow it.
func ParseCert(text []byte) (*x509.Certificate, error) {
	certs, err := parseCerts(text, 1)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// parseCerts reads one to limit certificates in PEM and nothing else.
func parseCerts(text []byte, limit int) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != pemCert {
			return nil, errors.New("parse certificate: want PEM blocks CERTIFICATE only")
		}
		cert, err := ParseCertDER(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 || len(certs) > limit {
		return nil, fmt.Errorf("parse certificate: found %d certificates, want 1 to %d", len(certs), limit)
	}
	return certs, nil
}

// ParseCertDER reads one certificate in DER.
func ParseCertDER(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCert {
		return nil, cluster.Errorf(cluster.CodeTooLarge, "parse certificate: over %d bytes", maxCert)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	return cert, nil
}

// hiddenKey holds a private key out of reach of package fmt, which calls no
// methods on unexported fields but prints slices, such as Ed25519 keys, whole.
type hiddenKey func() crypto.Signer

func hide(key crypto.Signer) hiddenKey { return func() crypto.Signer { return key } }

// samePublic reports whether key is the private half of pub.
func samePublic(key crypto.Signer, pub crypto.PublicKey) bool {
	k, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(pub)
}
