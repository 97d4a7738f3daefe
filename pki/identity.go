package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rolekey/cluster"
)

// Identity is what a certificate says of its holder. It is worth something
// only after VerifyChain.
type Identity struct {
	Node      cluster.NodeID
	Kind      Kind
	Name      cluster.Name
	Addresses []netip.Addr
	NotBefore time.Time
	NotAfter  time.Time
	Digest    cluster.Digest // SHA-256 of the certificate
	Pin       cluster.Digest // SHA-256 of its SubjectPublicKeyInfo
}

// Identify reads a certificate as strictly as Issue writes it: whatever Issue
// would not have written is an error. It does not check the signature.
func Identify(cert *x509.Certificate) (Identity, error) {
	if err := checkShape(cert); err != nil {
		return Identity{}, fmt.Errorf("identify certificate: %w", err)
	}
	node, kind, err := readURIs(cert)
	if err != nil {
		return Identity{}, fmt.Errorf("identify certificate: %w", err)
	}
	if !slices.Equal(cert.ExtKeyUsage, kinds[kind].usages) || len(cert.UnknownExtKeyUsage) != 0 {
		return Identity{}, fmt.Errorf("identify certificate: extended key usages are not those of kind %s", kind)
	}
	name, err := readName(cert)
	if err != nil {
		return Identity{}, fmt.Errorf("identify certificate: %w", err)
	}
	addrs, err := readAddresses(cert)
	if err != nil {
		return Identity{}, fmt.Errorf("identify certificate: %w", err)
	}
	return Identity{
		Node: node, Kind: kind, Name: name, Addresses: addrs,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		Digest: DigestOf(cert), Pin: PinOf(cert),
	}, nil
}

func checkShape(cert *x509.Certificate) error {
	switch {
	case len(cert.Raw) == 0 || len(cert.Raw) > maxCert:
		return fmt.Errorf("want 1 to %d bytes", maxCert)
	case !cert.BasicConstraintsValid || cert.IsCA:
		return errors.New("it is not an end entity's")
	case cert.KeyUsage != x509.KeyUsageDigitalSignature:
		return errors.New("key usage is not digital signature alone")
	case len(cert.EmailAddresses) != 0:
		return errors.New("it has an e-mail address")
	}
	return CheckPublicKey(cert.PublicKey)
}

func readURIs(cert *x509.Certificate) (cluster.NodeID, Kind, error) {
	if len(cert.URIs) != 2 {
		return cluster.NodeID{}, "", fmt.Errorf("want two URIs, one urn:uuid and one %s, found %d", kindScheme, len(cert.URIs))
	}
	node, err := parseUUIDURI(cert.URIs[0])
	if err != nil {
		return cluster.NodeID{}, "", err
	}
	kind, ok := strings.CutPrefix(cert.URIs[1].String(), kindScheme)
	if !ok || !Kind(kind).Valid() {
		return cluster.NodeID{}, "", errors.New("the second URI names no known kind")
	}
	return node, Kind(kind), nil
}

func readName(cert *x509.Certificate) (cluster.Name, error) {
	if len(cert.DNSNames) != 1 {
		return "", fmt.Errorf("want one DNS name, found %d", len(cert.DNSNames))
	}
	name, err := cluster.ParseName(cert.DNSNames[0])
	if err != nil {
		return "", err
	}
	if cert.Subject.CommonName != commonName(name) {
		return "", errors.New("subject and DNS name differ")
	}
	return name, nil
}

func readAddresses(cert *x509.Certificate) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, ip := range cert.IPAddresses {
		a, ok := netip.AddrFromSlice(ip)
		if !ok {
			return nil, errors.New("bad IP address")
		}
		addrs = append(addrs, a)
	}
	if err := checkAddresses(addrs); err != nil {
		return nil, err
	}
	return addrs, nil
}

// DigestOf returns the SHA-256 of the certificate in DER: what the candidate
// map lists.
func DigestOf(cert *x509.Certificate) cluster.Digest { return cluster.DigestOf(cert.Raw) }

// PinOf returns the SHA-256 of the certificate's SubjectPublicKeyInfo: what
// the roster lists, and what stays when a certificate is issued again.
func PinOf(cert *x509.Certificate) cluster.Digest {
	return cluster.DigestOf(cert.RawSubjectPublicKeyInfo)
}
