package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
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

func TestRotationOverlap(t *testing.T) {
	old, next := newTestCA(t), newTestCA(t)
	roots := must(NewRoots(old.Cert, next.Cert))(t)
	again := must(ParseRoots(roots.Encode()))(t)
	for _, ca := range []*CA{old, next} {
		cert := issue(t, ca, request(t, KindServer))
		if _, err := VerifyChain(again, []*x509.Certificate{cert}, KindServer, testNow); err != nil {
			t.Error(err)
		}
	}
	if again.Cluster() != testCluster || len(again.Certificates()) != 2 {
		t.Error("roots changed on their way through PEM")
	}
	foreign := must(NewCA(testNode, "other.example", testNow))(t)
	if _, err := NewRoots(old.Cert, foreign.Cert); err == nil {
		t.Error("roots of two clusters accepted")
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

// offCurve returns a P-256 key whose point is not on the curve.
func offCurve(t *testing.T) *ecdsa.PublicKey {
	k, _ := newKey(t).Public().(*ecdsa.PublicKey)
	bent := *k
	bent.Y = new(big.Int).Xor(k.Y, big.NewInt(1)) //nolint:staticcheck // the deprecated field is what an attacker sets
	return &bent
}

// Every one of the eight points of small order, and a second spelling of a
// point, are refused: anybody could sign under such a key.
func TestEd25519WeakKeys(t *testing.T) {
	for _, s := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 1, plus the field's prime
	} {
		if CheckPublicKey(ed25519.PublicKey(must(hex.DecodeString(s))(t))) == nil {
			t.Errorf("%s accepted", s)
		}
	}
	pub, _, err := GenerateSigningKey()
	if err != nil || CheckPublicKey(pub) != nil {
		t.Error("a sound key refused")
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

func TestCAKeepsItsKey(t *testing.T) {
	ca := newTestCA(t)
	key := must(ca.MarshalKey())(t)
	again := must(ParseCA(ca.Cert.Raw, key))(t)
	roots := must(NewRoots(ca.Cert))(t)
	cert := issue(t, again, request(t, KindCandidate))
	if _, err := VerifyChain(roots, []*x509.Certificate{cert}, KindCandidate, testNow); err != nil {
		t.Error(err)
	}
	if _, err := ParseCA(newTestCA(t).Cert.Raw, key); err == nil {
		t.Error("key of another CA accepted")
	}
	leaf := issue(t, ca, request(t, KindServer))
	if _, err := ParseCA(leaf.Raw, key); err == nil {
		t.Error("a server certificate accepted as CA")
	}
	if id := must(ClusterOf(ca.Cert))(t); id != testCluster || !ca.Cert.IsCA || ca.Cert.MaxPathLen != 0 {
		t.Errorf("CA of cluster %s, path length %d", id, ca.Cert.MaxPathLen)
	}
}

// A CA certificate that somebody else signed is no root.
func TestRootMustBeSelfSigned(t *testing.T) {
	ca, other := newTestCA(t), newTestCA(t)
	tmpl := *ca.Cert
	tmpl.Subject = pkix.Name{CommonName: "sub"}
	der := must(x509.CreateCertificate(rand.Reader, &tmpl, other.Cert, ca.Cert.PublicKey, other.key()))(t)
	if _, err := NewRoots(must(x509.ParseCertificate(der))(t)); err == nil {
		t.Error("accepted")
	}
}

func TestIssueEndsWithCA(t *testing.T) {
	ca := newTestCA(t)
	r := request(t, KindServer)
	late := ca.Cert.NotAfter.Add(-day)
	cert := must(ParseCertDER(must(ca.Issue(r, late))(t)))(t)
	if !cert.NotAfter.Equal(ca.Cert.NotAfter) {
		t.Errorf("ends at %s, the CA at %s", cert.NotAfter, ca.Cert.NotAfter)
	}
	for _, now := range []time.Time{ca.Cert.NotAfter, ca.Cert.NotBefore.Add(-time.Second)} {
		if _, err := ca.Issue(r, now); err == nil {
			t.Errorf("issued at %s, when the CA is not valid", now)
		}
	}
}

func TestG6NothingPrintsKeys(t *testing.T) {
	ca := newTestCA(t)
	_, priv, err := GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	ca.key = hide(priv) // a slice, which fmt prints in full
	pair := Pair{Cert: ca.Cert, key: hide(priv)}
	decimal, hexa := fmt.Sprintf("%d %d %d", priv[0], priv[1], priv[2]), hex.EncodeToString(priv[:8])
	shows := func(text string) bool { return strings.Contains(text, decimal) || strings.Contains(text, hexa) }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, v := range []any{ca, *ca, pair, &pair, []any{ca, pair}} {
			text := fmt.Sprintf(verb, v)
			if shows(text) || !strings.Contains(text, "[redacted]") {
				t.Errorf("%s of %T prints %.100s", verb, v, text)
			}
		}
		// No method is called on an unexported field.
		inside := fmt.Sprintf(verb, struct {
			ca   CA
			pair Pair
		}{*ca, pair})
		if shows(inside) {
			t.Errorf("%s prints a key in an unexported field", verb)
		}
	}
	if (Pair{}).Key() != nil {
		t.Error("the zero pair has a key")
	}
}

func TestCSR(t *testing.T) {
	_, ed, err := GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{newKey(t), ed} {
		der := must(NewCSR(key))(t)
		csr := must(ParseCSR(der))(t)
		if csr.Pin != must(PinOfKey(key.Public()))(t) {
			t.Error("another key came out")
		}
		broken := bytes.Clone(der)
		broken[len(broken)-1] ^= 1
		if _, err := ParseCSR(broken); err == nil {
			t.Error("broken signature accepted")
		}
		_, err = ParseCSR(append(bytes.Clone(der), 0))
		wantCode(t, err, cluster.CodeBadFormat)
	}
	_, err = ParseCSR(make([]byte, maxCSR+1))
	wantCode(t, err, cluster.CodeTooLarge)
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey))(t)
	_, err = ParseCSR(der)
	wantCode(t, err, cluster.CodeBadFormat)
	if _, err := NewCSR(rsaKey); err == nil {
		t.Error("made a request for an RSA key")
	}
}

func TestCSRWithForeignSignature(t *testing.T) {
	key, other := newKey(t), newKey(t)
	der := must(NewCSR(key))(t)
	mine := must(x509.MarshalPKIXPublicKey(key.Public()))(t)
	theirs := must(x509.MarshalPKIXPublicKey(other.Public()))(t)
	forged := bytes.Replace(der, mine, theirs, 1)
	if bytes.Equal(forged, der) {
		t.Fatal("nothing was replaced")
	}
	_, err := ParseCSR(forged)
	wantCode(t, err, cluster.CodeBadSignature)
}

func TestKeyPEM(t *testing.T) {
	key := newKey(t)
	text := must(EncodeKey(key))(t)
	again := must(ParseKey(text))(t)
	if !samePublic(again, key.Public()) {
		t.Error("another key came out")
	}
	for _, bad := range [][]byte{nil, []byte("x"), append(bytes.Clone(text.Reveal()), 'x'), EncodeCert([]byte("x")), text.Reveal()[:60]} {
		if _, err := ParseKey(cluster.NewSecret(bad)); !errors.Is(err, errBadKey) {
			t.Errorf("error %v is not errBadKey", err)
		}
	}
	cert := newTestCA(t).Cert
	one := EncodeCert(cert.Raw)
	if _, err := ParseCert(append(bytes.Clone(one), one...)); err == nil {
		t.Error("two certificates accepted as one")
	}
	if _, err := ParseCert(append(bytes.Clone(one), text.Reveal()...)); err == nil {
		t.Error("a private key beside a certificate accepted")
	}
	if _, err := ParseRoots(bytes.Repeat(one, maxRoots+1)); err == nil {
		t.Error("too many roots accepted")
	}
	if _, err := ParseRoots(nil); err == nil {
		t.Error("no roots accepted")
	}
}

// The certificates work in a real TLS 1.3 handshake, and both ends export the
// same value, other than that of another connection.
func TestTLSHandshakeAndExporter(t *testing.T) {
	ca := newTestCA(t)
	roots := must(NewRoots(ca.Cert))(t)
	pair := func(kind Kind) Pair {
		key := newKey(t)
		r := request(t, kind)
		r.PublicKey = key.Public()
		return must(NewPair(issue(t, ca, r), key))(t)
	}
	client, server := pair(KindIdentity), pair(KindServer)
	var values [][ExporterSize]byte
	for range 2 {
		c, s := handshake(t, roots, client, server)
		vc, vs := must(Exporter(&c))(t), must(Exporter(&s))(t)
		if vc != vs {
			t.Error("client and server export different values")
		}
		values = append(values, vc)
	}
	if values[0] == values[1] {
		t.Error("two connections export the same value")
	}
	if _, err := Exporter(&tls.ConnectionState{HandshakeComplete: true, Version: tls.VersionTLS12}); err == nil {
		t.Error("exported from TLS 1.2")
	}
	if _, err := NewPair(client.Cert, server.Key()); err == nil {
		t.Error("joined a certificate and a foreign key")
	}
}

func handshake(t *testing.T, roots *Roots, client, server Pair) (c, s tls.ConnectionState) {
	t.Helper()
	check := func(kind Kind) func(tls.ConnectionState) error {
		return func(cs tls.ConnectionState) error {
			_, err := VerifyChain(roots, cs.PeerCertificates, kind, testNow)
			return err
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	srv := tls.Server(b, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server.TLS()}, SessionTicketsDisabled: true,
		ClientAuth: tls.RequireAnyClientCert, VerifyConnection: check(KindIdentity),
	})
	done := make(chan error, 1)
	go func() { done <- srv.Handshake() }()
	cli := tls.Client(a, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{client.TLS()},
		InsecureSkipVerify: true, VerifyConnection: check(KindServer), // nodes are verified by kind and pin, not by name
	})
	if err := cli.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return cli.ConnectionState(), srv.ConnectionState()
}
