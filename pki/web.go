package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"rolekey/cluster"
)

// RAPIRequest says what a RAPI server's certificate is for: all the names and
// addresses by which clients may reach it.
type RAPIRequest struct {
	Node      cluster.NodeID
	Names     []cluster.Name // the node's own first
	Addresses []netip.Addr
	PublicKey crypto.PublicKey
}

// IssueRAPI signs the certificate of a RAPI server and returns it in DER.
func (ca *CA) IssueRAPI(r RAPIRequest, now time.Time) ([]byte, error) {
	if len(r.Names) == 0 || len(r.Names) > maxAddresses {
		return nil, fmt.Errorf("issue certificate: %d names", len(r.Names))
	}
	req := Request{Kind: KindRAPI, Node: r.Node, Name: r.Names[0], Addresses: r.Addresses, PublicKey: r.PublicKey}
	if err := req.check(); err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	tmpl := req.template(now, ca.Cert.NotAfter)
	for _, name := range r.Names[1:] {
		if _, err := cluster.ParseName(string(name)); err != nil {
			return nil, fmt.Errorf("issue certificate: %w", err)
		}
		tmpl.DNSNames = append(tmpl.DNSNames, string(name))
	}
	return ca.sign(tmpl, r.PublicKey)
}

// kindAdmin is the URI of administrators' certificates. It is no Kind: no RPC
// server may accept one.
const kindAdmin = "kind:admin"

// IssueAdmin signs an administrator's client certificate for RAPI, and returns
// it in DER. It counts only while its digest is in the replicated state.
func (ca *CA) IssueAdmin(name string, key crypto.PublicKey, now time.Time, life time.Duration) ([]byte, error) {
	if err := CheckPublicKey(key); err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if name == "" || len(name) > maxCommonName || life < time.Minute || life > MaxLifetimeAdmin {
		return nil, fmt.Errorf("issue certificate: want a name of at most %d bytes, and at most %d days", maxCommonName, MaxLifetimeAdmin/day)
	}
	end := now.Add(life)
	if end.After(ca.Cert.NotAfter) {
		end = ca.Cert.NotAfter
	}
	return ca.sign(&x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{Organization: []string{organization}, CommonName: name},
		URIs:      []*url.URL{{Scheme: "rolekey", Opaque: kindAdmin}},
		NotBefore: now.Add(-backdate), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}, key)
}

func (ca *CA) sign(tmpl *x509.Certificate, key crypto.PublicKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Cert, key, ca.key())
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return der, nil
}

// WebPair reads an administrator's own certificate chain and key, PEM, for
// RAPI. Any issuer will do; the key must fit, and the certificate must be valid
// now and good for a server.
func WebPair(chain []byte, key cluster.Secret, now time.Time) (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(chain, key.Reveal())
	if err != nil {
		return tls.Certificate{}, errors.New("certificate and key are not readable, or do not belong together")
	}
	leaf := pair.Leaf
	switch {
	case len(pair.Certificate) > maxChain:
		return tls.Certificate{}, fmt.Errorf("%d certificates, at most %d", len(pair.Certificate), maxChain)
	case now.Before(leaf.NotBefore) || now.After(leaf.NotAfter):
		return tls.Certificate{}, fmt.Errorf("the certificate is valid from %s to %s only", leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	case len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return tls.Certificate{}, errors.New("the certificate is not good for a server (extended key usage)")
	}
	return pair, nil
}
