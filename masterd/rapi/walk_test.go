package rapi_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
	"rolekey/pki"
)

func body(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestOtherOperations does what no other test does on a served API. Each answer is
// held against openapi.yaml.
func TestOtherOperations(t *testing.T) {
	rapi.FastHashes(t)
	b := newBench(t, 3)
	b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: cluster.FeatureLevel})
	realCA(t, b)
	hash, err := rapi.HashPassword([]byte("a password"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "alice"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := selfSignedWith(t, key, b.Now())
	own := wire.RAPICertificate{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}
	for _, c := range [][3]string{
		{"PUT", "/2/users/amy", body(t, wire.UserSet{Permission: cluster.PermissionRead, Hash: hash.Reveal()})},
		{"GET", "/2/users"},
		{"DELETE", "/2/users/amy"},
		{"PUT", "/2/administrators/alice", body(t, wire.AdministratorSet{Permission: cluster.PermissionAdmin, CSR: csr, Days: 30})},
		{"GET", "/2/administrators"},
		{"DELETE", "/2/administrators/alice"},
		{"PUT", "/2/rapi-certificate", body(t, own)},
		{"GET", "/2/renew-crypto"},
		{"PUT", "/2/renew-crypto", `{"new_signing_keys":true,"node_name":"node1"}`},
		{"POST", "/2/nodes/node2/rename", `{"new_name":"node9.lab.test"}`},
		{"GET", "/2/query/node?fields=name,role,nosuch,pip,tags,ctime"},
		{"PUT", "/2/query/node", `{"fields":["name","offline"],"qfilter":["=","role","R"]}`},
		{"GET", "/2/query/node/fields"},
		{"GET", "/2/query/job/fields?fields=id,nosuch"},
		{"PUT", "/2/query/job", `{"fields":["id","status","opresult","received_ts"],"qfilter":null}`},
		{"PUT", "/2/queue", `{"drained":true}`},
		{"GET", "/2/queue"},
	} {
		var out any
		b.want(c[0], c[1], c[2], &out)
	}
}

// realCA gives the cluster a CA that can issue certificates.
func realCA(t *testing.T, b *bench) {
	t.Helper()
	s, err := b.State()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.NewCA(s.Cluster.UUID, s.Cluster.Name, b.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.CA.Cert = ca.Cert.Raw
	if s.CA.Key, err = ca.MarshalKey(); err != nil {
		t.Fatal(err)
	}
}

func selfSignedWith(t *testing.T, key *ecdsa.PrivateKey, now time.Time) []byte {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), DNSNames: []string{"cluster.lab.test"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
