package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"rolekey/cluster"
)

// Kind says what a certificate is good for. It is written into the
// certificate, so that one kind is never taken for another.
type Kind string

// The kinds.
const (
	KindServer    Kind = "server"    // noded's RPC server
	KindIdentity  Kind = "identity"  // noded as client: the keyserver, pulling maps
	KindCandidate Kind = "candidate" // masterd, as client and as server
	KindRAPI      Kind = "rapi"      // RAPI's server
)

const kindScheme = "rolekey:kind:"

type kindSpec struct {
	usages []x509.ExtKeyUsage
	life   time.Duration
}

var kinds = map[Kind]kindSpec{
	KindServer:    {[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, LifetimeNode},
	KindIdentity:  {[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, LifetimeNode},
	KindCandidate: {[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, LifetimeNode},
	KindRAPI:      {[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, LifetimeRAPI},
}

// Valid reports whether k is one of the kinds.
func (k Kind) Valid() bool { _, ok := kinds[k]; return ok }

// Request says which certificate to issue. All of it is the issuer's own
// knowledge, except the key.
type Request struct {
	Kind      Kind
	Node      cluster.NodeID
	Name      cluster.Name
	Addresses []netip.Addr     // may be empty
	PublicKey crypto.PublicKey // of a CSR that ParseCSR accepted
}

// check refuses what Identify would refuse later.
func (r Request) check() error {
	if !r.Kind.Valid() {
		return fmt.Errorf("unknown kind %q", r.Kind)
	}
	if r.Node.IsZero() {
		return errors.New("no node UUID")
	}
	if _, err := cluster.ParseName(string(r.Name)); err != nil {
		return err
	}
	if err := checkAddresses(r.Addresses); err != nil {
		return err
	}
	return CheckPublicKey(r.PublicKey)
}

func checkAddresses(addrs []netip.Addr) error {
	if len(addrs) > maxAddresses {
		return fmt.Errorf("%d addresses, at most %d", len(addrs), maxAddresses)
	}
	for i, a := range addrs {
		if err := cluster.CheckAddr(a); err != nil {
			return err
		}
		if slices.Contains(addrs[:i], a) {
			return fmt.Errorf("address %s twice", a)
		}
	}
	return nil
}

// Issue signs a certificate and returns it in DER. Its end is never after the
// CA's own.
func (ca *CA) Issue(r Request, now time.Time) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if now.Before(ca.Cert.NotBefore) || !now.Before(ca.Cert.NotAfter) {
		return nil, fmt.Errorf("issue certificate: the cluster CA is valid from %s to %s only",
			ca.Cert.NotBefore.Format(time.RFC3339), ca.Cert.NotAfter.Format(time.RFC3339))
	}
	der, err := x509.CreateCertificate(rand.Reader, r.template(now, ca.Cert.NotAfter), ca.Cert, r.PublicKey, ca.key())
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return der, nil
}

func (r Request) template(now, latest time.Time) *x509.Certificate {
	spec := kinds[r.Kind]
	end := now.Add(spec.life)
	if end.After(latest) {
		end = latest
	}
	ips := make([]net.IP, len(r.Addresses))
	for i, a := range r.Addresses {
		ips[i] = a.AsSlice()
	}
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               subject(r.Name),
		DNSNames:              []string{string(r.Name)},
		IPAddresses:           ips,
		URIs:                  []*url.URL{uuidURI(r.Node), kindURI(r.Kind)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           spec.usages,
		BasicConstraintsValid: true,
	}
}

func kindURI(k Kind) *url.URL { return &url.URL{Scheme: "rolekey", Opaque: "kind:" + string(k)} }

// commonName is for people only. X.520 bounds it to 64 characters, a host name
// to 253, a label to 63.
func commonName(n cluster.Name) string {
	if len(n) <= maxCommonName {
		return string(n)
	}
	label, _, _ := strings.Cut(string(n), ".")
	return label
}
