package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"rolekey/cluster"
)

const (
	organization = "Rolekey"
	uuidScheme   = "urn:uuid:"
	serialBytes  = 16
)

// CA is the cluster's certificate authority. Its key lives only in the
// replicated state.
type CA struct {
	Cert *x509.Certificate
	key  hiddenKey
}

// Format implements fmt.Formatter for every verb.
func (CA) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("CA([redacted])")) }

// NewCA makes a cluster CA with a new key.
func NewCA(id cluster.UUID, name cluster.Name, now time.Time) (*CA, error) {
	if _, err := cluster.ParseName(string(name)); err != nil || id.IsZero() {
		return nil, fmt.Errorf("make CA: cluster %s %q: want a UUID and a host name", id, name)
	}
	key, err := GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               subject(name),
		URIs:                  []*url.URL{uuidURI(id)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(LifetimeCA),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	return newCA(der, key)
}

// ParseCA reads a CA back: certificate in DER, key as MarshalKey gave it.
func ParseCA(der []byte, key cluster.Secret) (*CA, error) {
	signer, err := parsePKCS8(key.Reveal())
	if err != nil {
		return nil, fmt.Errorf("parse CA: %w", err)
	}
	return newCA(der, signer)
}

func newCA(der []byte, key crypto.Signer) (*CA, error) {
	cert, err := ParseCertDER(der)
	if err != nil {
		return nil, fmt.Errorf("parse CA: %w", err)
	}
	if err := checkCA(cert); err != nil {
		return nil, err
	}
	if !samePublic(key, cert.PublicKey) {
		return nil, errors.New("parse CA: the key does not fit the certificate")
	}
	return &CA{Cert: cert, key: hide(key)}, nil
}

// checkCA accepts only what NewCA makes: a self-signed CA for end entities.
func checkCA(cert *x509.Certificate) error {
	if !cert.BasicConstraintsValid || !cert.IsCA || cert.MaxPathLen != 0 || cert.KeyUsage != x509.KeyUsageCertSign {
		return errors.New("check CA: not a CA certificate of path length 0")
	}
	if err := CheckPublicKey(cert.PublicKey); err != nil {
		return fmt.Errorf("check CA: %w", err)
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return fmt.Errorf("check CA: not self-signed: %w", err)
	}
	_, err := ClusterOf(cert)
	return err
}

// ClusterOf returns the cluster UUID of a CA certificate.
func ClusterOf(ca *x509.Certificate) (cluster.UUID, error) {
	if len(ca.URIs) != 1 {
		return cluster.UUID{}, errors.New("check CA: want exactly one URI, the cluster's UUID")
	}
	return parseUUIDURI(ca.URIs[0])
}

// MarshalKey returns the private key as PKCS #8 in DER, for the replicated
// state.
func (ca *CA) MarshalKey() (cluster.Secret, error) {
	der, err := x509.MarshalPKCS8PrivateKey(ca.key())
	if err != nil {
		return cluster.Secret{}, fmt.Errorf("encode CA key: %w", err)
	}
	return cluster.NewSecret(der), nil
}

// newSerial returns 128 random bits, so that serials neither repeat nor tell
// how many certificates there are.
func newSerial() *big.Int {
	var b [serialBytes]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	b[serialBytes-1] |= 1  // never zero
	return new(big.Int).SetBytes(b[:])
}

func subject(name cluster.Name) pkix.Name {
	return pkix.Name{CommonName: commonName(name), Organization: []string{organization}}
}

func uuidURI(id cluster.UUID) *url.URL {
	return &url.URL{Scheme: "urn", Opaque: "uuid:" + id.String()}
}

func parseUUIDURI(u *url.URL) (cluster.UUID, error) {
	s := u.String()
	if len(s) <= len(uuidScheme) || s[:len(uuidScheme)] != uuidScheme {
		return cluster.UUID{}, errors.New("certificate: want a URI urn:uuid")
	}
	id, err := cluster.ParseUUID(s[len(uuidScheme):])
	if err != nil || id.IsZero() {
		return cluster.UUID{}, errors.New("certificate: URI urn:uuid: bad UUID")
	}
	return id, nil
}
