package noded

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
)

// renewal is the master's part in a renewal of a node's certificates.
type renewal struct {
	t  *testing.T
	w  *world
	h  *host
	id cluster.NodeID
}

func (r renewal) prepare(kinds ...string) rpc.CertPrepareReply {
	r.t.Helper()
	var reply rpc.CertPrepareReply
	if err := r.w.call(r.id, rpc.MethodCertPrepare, "", rpc.CertPrepareRequest{Incarnation: 1, Kinds: kinds}, &reply); err != nil {
		r.t.Fatal(err)
	}
	return reply
}

func (r renewal) issue(ca *pki.CA, req rpc.CertRequest) rpc.InstalledCert {
	r.t.Helper()
	csr, err := pki.ParseCSR(req.CSR)
	if err != nil {
		r.t.Fatal(err)
	}
	n := r.w.view.Load().Roster.Node(r.id)
	der, err := ca.Issue(pki.Request{Kind: certPlaces[req.Kind].kind, Node: n.UUID, Name: n.Name, Addresses: n.Addresses, PublicKey: csr.PublicKey}, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	return rpc.InstalledCert{Kind: req.Kind, Certificate: der}
}

func (r renewal) install(certs ...rpc.InstalledCert) (reply rpc.CertInstallReply, err error) {
	r.t.Helper()
	err = r.w.call(r.id, rpc.MethodCertInstall, "", rpc.CertInstallRequest{Incarnation: 1, Certificates: certs}, &reply)
	return reply, err
}

// restart starts noded anew, and tells it that its map is still the newest.
func (r renewal) restart() {
	r.t.Helper()
	r.h.up()
	if err := r.w.call(r.id, rpc.MethodBeaconPut, "", r.w.beacon(), nil); err != nil {
		r.t.Fatal(err)
	}
}

// pin sets the pins of the node in the roster, and delivers that.
func (r renewal) pin(server, identity []cluster.Digest) {
	r.t.Helper()
	r.w.mu.Lock()
	i := slices.IndexFunc(r.w.nodes, func(n candmap.RosterNode) bool { return n.UUID == r.id })
	r.w.nodes = slices.Clone(r.w.nodes)
	r.w.nodes[i].Server, r.w.nodes[i].Identity = server, identity
	r.w.mu.Unlock()
	r.w.next(func(*candmap.Map) {})
	r.w.mustPush(r.id)
}

func pinOf(t *testing.T, req rpc.CertRequest) cluster.Digest {
	t.Helper()
	csr, err := pki.ParseCSR(req.CSR)
	if err != nil {
		t.Fatal(err)
	}
	return csr.Pin
}

// TestCertificatesRenewed goes through all phases, and refuses what comes too
// early, is another node's, of another use, or for another key.
func TestCertificatesRenewed(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := joined(t, w)
	r := renewal{t, w, h, h.member().id.Node}
	dir := h.cfg.Paths.NodeDir()
	oldKeys := keyFilesOf(t, dir)
	first, again := r.prepare(rpc.CertServer, rpc.CertIdentity), r.prepare(rpc.CertServer, rpc.CertIdentity)
	server, identity := first.Requests[0], first.Requests[1]
	if pinOf(t, server) != pinOf(t, again.Requests[0]) || server.Used == pinOf(t, server) || first.Roster != w.view.Load().Roster.Hash() || len(first.Roots) != 1 {
		t.Errorf("prepared %+v", first)
	}
	certs := []rpc.InstalledCert{r.issue(w.ca, server), r.issue(w.ca, identity)}
	_, err := r.install(certs...)
	wantCode(t, "before the roster lists them", err, cluster.CodeConflict)
	r.pin([]cluster.Digest{server.Used, pinOf(t, server)}, []cluster.Digest{identity.Used, pinOf(t, identity)})
	strange := *w.view.Load().Roster.Node(w.view.Load().Map.Master)
	for what, bad := range map[string]rpc.InstalledCert{
		"of another use":  {Kind: rpc.CertServer, Certificate: certs[1].Certificate},
		"of another node": {Kind: rpc.CertServer, Certificate: w.issue(pki.KindServer, strange, mustKey(t))},
		"for another key": {Kind: rpc.CertServer, Certificate: w.issue(pki.KindServer, *w.view.Load().Roster.Node(r.id), mustKey(t))},
		"of no use":       {Kind: "rapi", Certificate: certs[1].Certificate},
		"no certificate":  {Kind: rpc.CertServer, Certificate: []byte("x")},
	} {
		if _, err := r.install(bad); err == nil {
			t.Errorf("a certificate %s is installed", what)
		}
	}
	for range 2 {
		reply, err := r.install(certs...)
		if err != nil || len(reply.Used) != 2 || reply.Used[0] != cluster.DigestOf(certs[0].Certificate) || reply.Used[1] != cluster.DigestOf(certs[1].Certificate) {
			t.Fatalf("install: %+v, %v", reply, err)
		}
	}
	r.pin([]cluster.Digest{pinOf(t, server)}, []cluster.Digest{pinOf(t, identity)})
	w.client.Recheck()
	r.prepare() // over a new connection
	for _, old := range oldKeys {
		searchNot(t, dir, old)
	}
}

// TestG7CertificatesAfterARestart: a node that dies between any two steps goes
// on with what it holds.
func TestG7CertificatesAfterARestart(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := joined(t, w)
	r := renewal{t, w, h, h.member().id.Node}
	server := r.prepare(rpc.CertServer).Requests[0]
	r.restart()
	if again := r.prepare(rpc.CertServer).Requests[0]; pinOf(t, again) != pinOf(t, server) {
		t.Error("another key is prepared after a restart")
	}
	r.pin([]cluster.Digest{server.Used, pinOf(t, server)}, w.view.Load().Roster.Node(r.id).Identity)
	cert := r.issue(w.ca, server)
	// The certificate is written and its key not yet called the one in use.
	if err := os.WriteFile(h.cfg.Paths.ServerCert(), pki.EncodeCert(cert.Certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	r.restart()
	if reply, err := r.install(cert); err != nil || reply.Used[0] != cluster.DigestOf(cert.Certificate) {
		t.Errorf("after the crash: %v", err)
	}
	if _, err := os.Lstat(h.cfg.Paths.ServerKey() + ".next"); err == nil {
		t.Error("the next key is in use and still called so")
	}
}

// TestRootsFollowTheRoster: a node trusts what the signed map names, on disk
// before it acknowledges, and nothing of another cluster.
func TestRootsFollowTheRoster(t *testing.T) {
	t.Parallel()
	w, h := founded(t)
	id := h.member().id.Node
	next, err := pki.NewCA(w.id, "cluster.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewCA(cluster.NewUUID(), "cluster.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	set := func(cas ...*pki.CA) rpc.MapAck {
		s := candmap.Settings{Name: "cluster.example"}
		for _, ca := range cas {
			s.CA = append(s.CA, ca.Cert.Raw)
		}
		w.settle(s, func(*candmap.Map) {})
		return w.mustPush(id)
	}
	trusts := func(what string, cas ...*pki.CA) {
		t.Helper()
		var want []byte
		for _, ca := range cas {
			want = append(want, pki.EncodeCert(ca.Cert.Raw)...)
		}
		text, err := os.ReadFile(h.cfg.Paths.CACert())
		if err != nil || !bytes.Equal(text, want) || !bytes.Equal(h.member().caRoots().Encode(), want) {
			t.Errorf("%s: it trusts others, %v", what, err)
		}
	}
	set(w.ca, next)
	trusts("prepared", w.ca, next)
	if ack := set(w.ca, other); !slices.ContainsFunc(ack.Problems, func(p string) bool { return bytes.HasPrefix([]byte(p), []byte("apply")) }) {
		t.Errorf("an authority of another cluster: %v", ack.Problems)
	}
	trusts("of another cluster", w.ca, next)
	set()
	trusts("none named", w.ca, next)
	set(next, w.ca)
	trusts("switched", next, w.ca)
	h.up()
	trusts("after a restart", next, w.ca)
}

func mustKey(t *testing.T) crypto.PublicKey {
	t.Helper()
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.Public()
}

func keyFilesOf(t *testing.T, dir string) (keys [][]byte) {
	t.Helper()
	for _, name := range []string{"server.key", "node.key"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		block, _ := pem.Decode(text)
		if err != nil || block == nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, text)
	}
	return keys
}

// searchNot fails if any file below a folder holds the text.
func searchNot(t *testing.T, dir string, text []byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, text) {
			t.Errorf("%s holds a key that was replaced", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
