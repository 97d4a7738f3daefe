package pki

import (
	"crypto"
	"crypto/x509"
	"net/netip"
	"testing"
	"time"

	"rolekey/cluster"
)

var (
	testNow     = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	testCluster = uuid("6f1c2a52-7b0e-4c7a-9b61-0d6f6f8c0001")
	testNode    = uuid("6f1c2a52-7b0e-4c7a-9b61-0d6f6f8c0002")
	testAddrs   = []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}
)

func uuid(s string) cluster.UUID {
	u, err := cluster.ParseUUID(s)
	if err != nil {
		panic(err)
	}
	return u
}

// must returns v, or fails the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newKey(t testing.TB) crypto.Signer { return must(GenerateKey())(t) }

func newTestCA(t testing.TB) *CA { return must(NewCA(testCluster, "cluster.example", testNow))(t) }

func request(t testing.TB, kind Kind) Request {
	return Request{Kind: kind, Node: testNode, Name: "node7.example", Addresses: testAddrs, PublicKey: newKey(t).Public()}
}

func issue(t testing.TB, ca *CA, r Request) *x509.Certificate {
	t.Helper()
	der := must(ca.Issue(r, testNow))(t)
	return must(ParseCertDER(der))(t)
}

func wantCode(t *testing.T, err error, code cluster.Code) {
	t.Helper()
	if cluster.CodeOf(err) != code {
		t.Errorf("error %v has code %q, want %q", err, cluster.CodeOf(err), code)
	}
}
