package verify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
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

// TestSleeperIsTold: a node that does not answer is told of when its certificates
// end, and what is to be done; one that is offline is not.
func TestSleeperIsTold(t *testing.T) {
	for what, c := range map[string]struct {
		left         time.Duration
		offline      bool
		want, remedy string
	}{
		"far":     {left: certWarning + time.Hour},
		"soon":    {certError + time.Hour, false, "WARNING:ECLUSTERCERT:node:node4.lab.test:the first of its certificates ends", "start it"},
		"sooner":  {certError - time.Hour, false, "ERROR:ECLUSTERCERT:node:node4.lab.test:the first of its certificates ends", "start it"},
		"ended":   {-time.Hour, false, "ERROR:ECLUSTERCERT:node:node4.lab.test:its certificates ended", "start it before"},
		"lapsed":  {-pki.Grace - time.Hour, false, "ERROR:ECLUSTERCERT:node:node4.lab.test:its certificates ended", "--readd node4.lab.test"},
		"offline": {left: -time.Hour, offline: true},
	} {
		f := newField(t)
		if c.offline {
			f.lab.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(4), Flags: &state.FlagPatch{Offline: new(true)}})
			f.publish()
		}
		copied := *f.lab.S
		copied.Nodes = maps.Clone(copied.Nodes)
		n := *copied.Nodes[statetest.ID(4)]
		n.Certs.Server, n.Certs.Identity = ends(t, f.lab.Now.Add(c.left)), ends(t, f.lab.Now.Add(c.left+time.Minute))
		copied.Nodes[n.UUID] = &n
		f.lab.S = &copied
		f.errs[n.UUID] = errors.New("it is off")
		f.run()
		var got []*Finding
		for _, found := range f.report.Findings {
			if found.Code == CodeClusterCert {
				got = append(got, found)
			}
		}
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s: %+v", what, got)
		case c.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0].Severity+":"+got[0].Code+":node:"+got[0].Name+":"+got[0].Text, c.want) || !strings.Contains(got[0].Remedy, c.remedy)):
			t.Errorf("%s: %+v", what, got)
		}
	}
}
