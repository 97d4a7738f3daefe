package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"rolekey/cluster"
)

// Roots are the CAs that a node believes: one, or two during a rotation. They
// do not change after they are made.
type Roots struct {
	certs []*x509.Certificate
	pool  *x509.CertPool
}

// NewRoots makes a pool of cluster CAs, all of one cluster.
func NewRoots(certs ...*x509.Certificate) (*Roots, error) {
	if len(certs) == 0 || len(certs) > maxRoots {
		return nil, fmt.Errorf("make roots: %d certificates, want 1 to %d", len(certs), maxRoots)
	}
	r := &Roots{pool: x509.NewCertPool()}
	for _, c := range certs {
		if err := r.add(c); err != nil {
			return nil, fmt.Errorf("make roots: %w", err)
		}
	}
	return r, nil
}

func (r *Roots) add(c *x509.Certificate) error {
	if err := checkCA(c); err != nil {
		return err
	}
	for _, old := range r.certs {
		if old.URIs[0].String() != c.URIs[0].String() {
			return errors.New("certificates of two clusters")
		}
	}
	r.certs = append(r.certs, c)
	r.pool.AddCert(c)
	return nil
}

// ParseRoots reads the PEM text of ca.pem.
func ParseRoots(text []byte) (*Roots, error) {
	if len(text) > rootCertsBytes {
		return nil, fmt.Errorf("parse roots: over %d bytes", rootCertsBytes)
	}
	certs, err := parseCerts(text, maxRoots)
	if err != nil {
		return nil, fmt.Errorf("parse roots: %w", err)
	}
	return NewRoots(certs...)
}

// Encode returns the PEM text for ca.pem.
func (r *Roots) Encode() []byte {
	var text []byte
	for _, c := range r.certs {
		text = append(text, EncodeCert(c.Raw)...)
	}
	return text
}

// Certificates returns the CAs.
func (r *Roots) Certificates() []*x509.Certificate { return slices.Clone(r.certs) }

// Cluster returns the cluster of the CAs.
func (r *Roots) Cluster() cluster.UUID {
	id, _ := ClusterOf(r.certs[0]) // checked by checkCA
	return id
}

// VerifyChain checks what a peer presented: exactly one certificate, signed by
// a root, valid now, and of this kind. Errors carry CodeNoCertificate or
// CodeIdentityMismatch, and wrap those of crypto/x509.
func VerifyChain(roots *Roots, certs []*x509.Certificate, kind Kind, now time.Time) (Identity, error) {
	return VerifyAny(roots, certs, now, kind)
}

// VerifyAny is VerifyChain for a server whose clients are of several kinds.
func VerifyAny(roots *Roots, certs []*x509.Certificate, now time.Time, allowed ...Kind) (Identity, error) {
	id, err := VerifyPast(roots, certs, now, allowed...)
	if err == nil && id.Ended(now) {
		err = x509.CertificateInvalidError{Cert: certs[0], Reason: x509.Expired, Detail: "it ended " + id.NotAfter.UTC().Format(time.RFC3339)}
		return Identity{}, fmt.Errorf("%w: %w", cluster.Errorf(cluster.CodeNoCertificate, "verify certificate of node %s", id.Node), err)
	}
	return id, err
}

// VerifyPast is VerifyAny, except that a certificate that was valid until its end
// verifies for ever: what it is still good for is the caller's to say.
func VerifyPast(roots *Roots, certs []*x509.Certificate, now time.Time, allowed ...Kind) (Identity, error) {
	if len(certs) != 1 {
		return Identity{}, cluster.Errorf(cluster.CodeNoCertificate, "verify certificate: peer presented %d certificates, want 1", len(certs))
	}
	id, err := Identify(certs[0])
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", cluster.Errorf(cluster.CodeIdentityMismatch, "verify certificate"), err)
	}
	if !slices.Contains(allowed, id.Kind) {
		return Identity{}, cluster.Errorf(cluster.CodeIdentityMismatch, "verify certificate: it is of kind %s, want %v", id.Kind, allowed)
	}
	at := now
	if id.Ended(now) {
		at = id.NotAfter
	}
	_, err = certs[0].Verify(x509.VerifyOptions{
		Roots: roots.pool, CurrentTime: at, KeyUsages: kinds[id.Kind].usages,
	})
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", cluster.Errorf(cluster.CodeNoCertificate, "verify certificate of node %s", id.Node), err)
	}
	return id, nil
}
