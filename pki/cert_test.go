package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
)

var allKinds = []Kind{KindServer, KindIdentity, KindCandidate, KindRAPI}

func TestIssueThenIdentify(t *testing.T) {
	ca := newTestCA(t)
	roots := must(NewRoots(ca.Cert))(t)
	for _, kind := range allKinds {
		r := request(t, kind)
		cert := issue(t, ca, r)
		id, err := VerifyChain(roots, []*x509.Certificate{cert}, kind, testNow)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		pin := must(PinOfKey(r.PublicKey))(t)
		if id.Node != r.Node || id.Kind != kind || id.Name != r.Name || fmt.Sprint(id.Addresses) != fmt.Sprint(r.Addresses) {
			t.Errorf("%s: identified as %+v", kind, id)
		}
		if id.Pin != pin || id.Digest != cluster.DigestOf(cert.Raw) {
			t.Errorf("%s: pin or digest differ", kind)
		}
		if cert.NotBefore != testNow.Add(-time.Hour) || cert.SerialNumber.BitLen() > 128 || cert.SerialNumber.Sign() <= 0 {
			t.Errorf("%s: not before %s, serial %d", kind, cert.NotBefore, cert.SerialNumber)
		}
	}
}

// One kind is never taken for another, whatever its issuer.
func TestG1KindsAreNotMixed(t *testing.T) {
	ca := newTestCA(t)
	roots := must(NewRoots(ca.Cert))(t)
	for _, is := range allKinds {
		certs := []*x509.Certificate{issue(t, ca, request(t, is))}
		for _, want := range allKinds {
			_, err := VerifyChain(roots, certs, want, testNow)
			if (err == nil) != (is == want) {
				t.Errorf("a certificate of kind %s verified as %s: %v", is, want, err)
			}
			if is != want {
				wantCode(t, err, cluster.CodeIdentityMismatch)
			}
		}
		if _, err := VerifyAny(roots, certs, testNow, KindIdentity, KindCandidate); (err == nil) != (is == KindIdentity || is == KindCandidate) {
			t.Errorf("a certificate of kind %s as a client's: %v", is, err)
		}
	}
}

func TestVerifyChainRefuses(t *testing.T) {
	ca, other := newTestCA(t), newTestCA(t)
	roots := must(NewRoots(ca.Cert))(t)
	good := issue(t, ca, request(t, KindServer))
	later := testNow.Add(LifetimeNode + time.Second)
	for name, c := range map[string]struct {
		certs []*x509.Certificate
		now   time.Time
		code  cluster.Code
	}{
		"none":          {nil, testNow, cluster.CodeNoCertificate},
		"with its CA":   {[]*x509.Certificate{good, ca.Cert}, testNow, cluster.CodeNoCertificate},
		"other CA":      {[]*x509.Certificate{issue(t, other, request(t, KindServer))}, testNow, cluster.CodeNoCertificate},
		"the CA itself": {[]*x509.Certificate{ca.Cert}, testNow, cluster.CodeIdentityMismatch},
		"expired":       {[]*x509.Certificate{good}, later, cluster.CodeNoCertificate},
		"not yet valid": {[]*x509.Certificate{good}, testNow.Add(-2 * time.Hour), cluster.CodeNoCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := VerifyChain(roots, c.certs, KindServer, c.now)
			wantCode(t, err, c.code)
		})
	}
	_, err := VerifyChain(roots, []*x509.Certificate{good}, KindServer, later)
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("the reason is lost: %v", err)
	}
}

// Identify refuses every certificate that Issue would not have written.
func TestIdentifyRefuses(t *testing.T) {
	ca := newTestCA(t)
	key := newKey(t)
	r := Request{Kind: KindServer, Node: testNode, Name: "node7.example", Addresses: testAddrs, PublicKey: key.Public()}
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	u := func(s string) *url.URL { return must(url.Parse(s))(t) }
	for name, spoil := range map[string]func(c *x509.Certificate) crypto.PublicKey{
		"no UUID":          func(c *x509.Certificate) crypto.PublicKey { c.URIs = c.URIs[1:]; return nil },
		"no kind":          func(c *x509.Certificate) crypto.PublicKey { c.URIs = c.URIs[:1]; return nil },
		"two UUIDs":        func(c *x509.Certificate) crypto.PublicKey { c.URIs = append(c.URIs, uuidURI(testCluster)); return nil },
		"UUID for kind":    func(c *x509.Certificate) crypto.PublicKey { c.URIs[1] = uuidURI(testCluster); return nil },
		"unknown kind":     func(c *x509.Certificate) crypto.PublicKey { c.URIs[1] = u("rolekey:kind:root"); return nil },
		"kind in capitals": func(c *x509.Certificate) crypto.PublicKey { c.URIs[1] = u("rolekey:kind:SERVER"); return nil },
		"UUID in capitals": func(c *x509.Certificate) crypto.PublicKey {
			c.URIs[0] = u(strings.ToUpper(c.URIs[0].String()))
			return nil
		},
		"zero UUID":        func(c *x509.Certificate) crypto.PublicKey { c.URIs[0] = uuidURI(cluster.UUID{}); return nil },
		"usage of another": func(c *x509.Certificate) crypto.PublicKey { c.ExtKeyUsage = kinds[KindIdentity].usages; return nil },
		"usage too many":   func(c *x509.Certificate) crypto.PublicKey { c.ExtKeyUsage = kinds[KindCandidate].usages; return nil },
		"any usage": func(c *x509.Certificate) crypto.PublicKey {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
			return nil
		},
		"no usage": func(c *x509.Certificate) crypto.PublicKey { c.ExtKeyUsage = nil; return nil },
		"unknown usage": func(c *x509.Certificate) crypto.PublicKey {
			c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, []int{1, 3, 9})
			return nil
		},
		"key usage": func(c *x509.Certificate) crypto.PublicKey { c.KeyUsage |= x509.KeyUsageKeyAgreement; return nil },
		"CA": func(c *x509.Certificate) crypto.PublicKey {
			c.IsCA = true
			c.KeyUsage = x509.KeyUsageCertSign
			return nil
		},
		"CA that signs":  func(c *x509.Certificate) crypto.PublicKey { c.IsCA = true; return nil },
		"no constraints": func(c *x509.Certificate) crypto.PublicKey { c.BasicConstraintsValid = false; return nil },
		"no name":        func(c *x509.Certificate) crypto.PublicKey { c.DNSNames = nil; return nil },
		"two names": func(c *x509.Certificate) crypto.PublicKey {
			c.DNSNames = append(c.DNSNames, "node8.example")
			return nil
		},
		"wildcard":          func(c *x509.Certificate) crypto.PublicKey { c.DNSNames[0] = "*.example"; return nil },
		"other common name": func(c *x509.Certificate) crypto.PublicKey { c.Subject.CommonName = "node1.example"; return nil },
		"e-mail": func(c *x509.Certificate) crypto.PublicKey {
			c.EmailAddresses = []string{"root@node7.example"}
			return nil
		},
		"address twice": func(c *x509.Certificate) crypto.PublicKey {
			c.IPAddresses = append(c.IPAddresses, c.IPAddresses[0])
			return nil
		},
		"no address": func(c *x509.Certificate) crypto.PublicKey { c.IPAddresses = []net.IP{net.IPv4zero}; return nil },
		"too many":   func(c *x509.Certificate) crypto.PublicKey { c.IPAddresses = manyIPs(maxAddresses + 1); return nil },
		"RSA":        func(*x509.Certificate) crypto.PublicKey { return rsaKey.Public() },
	} {
		t.Run(name, func(t *testing.T) {
			tmpl := r.template(testNow, testNow.Add(LifetimeCA))
			pub := spoil(tmpl)
			if pub == nil {
				pub = key.Public()
			}
			der := must(x509.CreateCertificate(rand.Reader, tmpl, ca.Cert, pub, ca.key()))(t)
			cert := must(x509.ParseCertificate(der))(t)
			if id, err := Identify(cert); err == nil {
				t.Errorf("identified as %+v", id)
			}
		})
	}
}

func manyIPs(n int) []net.IP {
	ips := make([]net.IP, n)
	for i := range ips {
		ips[i] = net.IPv4(192, 0, 2, byte(i+1))
	}
	return ips
}

func TestIssueRefuses(t *testing.T) {
	ca := newTestCA(t)
	for name, spoil := range map[string]func(r *Request){
		"kind":        func(r *Request) { r.Kind = "root" },
		"node":        func(r *Request) { r.Node = cluster.NodeID{} },
		"name":        func(r *Request) { r.Name = "*" },
		"no name":     func(r *Request) { r.Name = "" },
		"address":     func(r *Request) { r.Addresses = []netip.Addr{{}} },
		"no key":      func(r *Request) { r.PublicKey = nil },
		"P-384":       func(r *Request) { r.PublicKey = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t).Public() },
		"nil key":     func(r *Request) { r.PublicKey = (*ecdsa.PublicKey)(nil) },
		"short key":   func(r *Request) { r.PublicKey = ed25519.PublicKey("short") },
		"off curve":   func(r *Request) { r.PublicKey = offCurve(t) },
		"small order": func(r *Request) { r.PublicKey = ed25519.PublicKey(make([]byte, 32)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, KindServer)
			spoil(&r)
			if _, err := ca.Issue(r, testNow); err == nil {
				t.Error("issued")
			}
		})
	}
}

func TestLongName(t *testing.T) {
	ca := newTestCA(t)
	label := strings.Repeat("a", 63)
	for _, name := range []string{
		strings.Repeat("b", 61) + ".cd", // 64 characters
		label + ".cd",
		label + "." + label + "." + label + "." + label[:61], // 253, the longest
	} {
		r := request(t, KindServer)
		r.Name = cluster.Name(name)
		cert := issue(t, ca, r)
		id, err := Identify(cert)
		if err != nil || id.Name != r.Name || len(cert.Subject.CommonName) > 64 {
			t.Errorf("%s: %v, common name %q", name, err, cert.Subject.CommonName)
		}
	}
}
