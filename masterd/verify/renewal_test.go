package verify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// ends makes a certificate that ends then.
func ends(t *testing.T, at time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: at.Add(-time.Hour), NotAfter: at}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestRenewalIsWatched: a candidate's certificate and the administrator's own are
// told of before their end, and so is a node that a renewal has not reached.
func TestRenewalIsWatched(t *testing.T) {
	for what, c := range map[string]struct {
		spoil func(f *field)
		want  string
	}{
		"a candidate's, soon": {func(f *field) {
			f.node(2).Certs.Candidate = ends(t, f.lab.Now.Add(certError+time.Hour))
		}, "WARNING:ECLUSTERCLIENTCERT:node:node2.lab.test:its candidate certificate ends"},
		"a candidate's, very soon": {func(f *field) {
			f.node(2).Certs.Candidate = ends(t, f.lab.Now.Add(certError-time.Hour))
		}, "ERROR:ECLUSTERCLIENTCERT:node:node2.lab.test:its candidate certificate ends"},
		"a node that was away": {func(f *field) {
			f.node(4).RenewBefore = f.lab.Now.Add(-time.Hour)
		}, "WARNING:ECLUSTERCERT:node:node4.lab.test:the renewal of"},
		"a candidate with its old signing key": {func(f *field) {
			keys := *f.node(2).Keys
			keys.RenewSigning = true
			f.node(2).Keys = &keys
		}, "WARNING:ENODEMAP:node:node2.lab.test:a renewal of signing keys has not reached it"},
		"the remote API's": {func(f *field) {
			f.lab.S.RAPI = state.RAPI{
				Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ends(t, f.lab.Now.Add(time.Hour))}), Key: cluster.NewSecret([]byte("k")),
			}
		}, "ERROR:ECLUSTERCERT:cluster:None:the remote API's own certificate ends"},
	} {
		f := newField(t)
		copied := *f.lab.S
		copied.Nodes = map[cluster.NodeID]*state.Node{}
		for id, n := range f.lab.S.Nodes {
			own := *n
			copied.Nodes[id] = &own
		}
		f.lab.S = &copied
		c.spoil(f)
		if ok, bad := f.run(); len(bad) != 1 || !strings.HasPrefix(strings.TrimPrefix(bad[0], "  - "), c.want) || ok != strings.HasPrefix(c.want, "WARNING") {
			t.Errorf("%s: %v %q", what, ok, bad)
		}
	}
}
