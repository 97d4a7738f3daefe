package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"rolekey/cluster"
)

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

func TestNewCARefuses(t *testing.T) {
	for _, c := range []struct {
		id   cluster.UUID
		name cluster.Name
	}{{cluster.UUID{}, "cluster.example"}, {testCluster, "*"}, {testCluster, ""}} {
		if _, err := NewCA(c.id, c.name, testNow); err == nil {
			t.Errorf("made a CA for %s %q", c.id, c.name)
		}
	}
}
