package keyserver

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
	"rolekey/rpc"
)

// office is a Master over a replicated state that needs no raft.
type office struct {
	lab   *statetest.Lab
	ready error
	fail  error // of the next change, which does not happen
	jobs  []cluster.Name
	calls []string
}

func newOffice(t *testing.T) *office {
	t.Helper()
	lab := &statetest.Lab{TB: t, S: state.New(), Now: statetest.Epoch, Term: 1}
	g := statetest.Genesis()
	ca, err := pki.NewCA(g.Cluster.UUID, g.Cluster.Name, statetest.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	g.CA.Cert = ca.Cert.Raw
	if g.CA.Key, err = ca.MarshalKey(); err != nil {
		t.Fatal(err)
	}
	lab.Do(state.KindGenesis, g)
	return &office{lab: lab}
}

func (o *office) State() *state.State { return o.lab.S }
func (o *office) Ready() error        { return o.ready }

func (o *office) Change(_ context.Context, kind string, body any, _, _ string) (state.Result, error) {
	o.calls = append(o.calls, kind)
	if err := o.fail; err != nil {
		o.fail = nil
		return state.Result{}, err
	}
	return o.lab.Try(kind, body)
}

func (o *office) Added(_ context.Context, name cluster.Name, _ string) error {
	o.calls = append(o.calls, "job")
	o.jobs = append(o.jobs, name)
	return nil
}

func (o *office) Beacon() (candmap.Envelope, bool) { return candmap.Envelope{}, false }

// Chain plays the keeper: authority changes and the newest map.
func (o *office) Chain(from cluster.Version) []candmap.Envelope {
	var out []candmap.Envelope
	for i, e := range o.lab.S.Chain {
		if e.Version.Newer(from) && (e.Authority || i == len(o.lab.S.Chain)-1) {
			out = append(out, candmap.Envelope{PayloadType: candmap.MapType, Payload: e.Payload})
		}
	}
	return out
}

// newcomer is a new node with its admission string.
type newcomer struct {
	t                *testing.T
	o                *office
	s                *Server
	rec              pki.Record
	seed             cluster.Secret
	server, identity crypto.Signer
	body             rpc.AdmitBody
	call             Call
	pin              cluster.Digest
}

func key(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csr(t *testing.T, k crypto.Signer) []byte {
	t.Helper()
	b, err := pki.NewCSR(k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pinOf(t *testing.T, k crypto.Signer) cluster.Digest {
	t.Helper()
	p, err := pki.PinOfKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newcomerOf files a record for node i and prepares its request.
func newcomerOf(t *testing.T, o *office, i int, spec pki.RecordSpec) *newcomer {
	t.Helper()
	spec.Name = statetest.Name(i)
	rec, seed, err := pki.NewRecord(spec, o.lab.Now)
	if err != nil {
		t.Fatal(err)
	}
	o.lab.Do(state.KindAdmissionCreate, state.AdmissionCreate{Record: rec})
	o.calls = nil
	n := &newcomer{
		t: t, o: o, s: New(o, func() time.Time { return o.lab.Now }), rec: rec, seed: seed, server: key(t), identity: key(t),
		call: Call{Remote: statetest.Addr(i), Request: "r1", Exporter: [pki.ExporterSize]byte{1, 2, 3}},
		pin:  o.lab.S.Chain[0].Hash,
	}
	n.body = rpc.AdmitBody{
		Record: rec.ID, Name: spec.Name, Addresses: []netip.Addr{statetest.Addr(i)}, Ports: cluster.DefaultPorts,
		Server: csr(t, n.server), Identity: csr(t, n.identity), HostKeys: []cluster.SSHKey{statetest.SSHKey(i, "host")},
		Features: cluster.FeatureLevel,
	}
	return n
}

// request signs the body as it is now.
func (n *newcomer) request() rpc.AdmitRequest {
	n.t.Helper()
	raw, err := json.Marshal(n.body)
	if err != nil {
		n.t.Fatal(err)
	}
	claim := pki.Claim{
		Cluster: n.o.lab.S.Cluster.UUID, Record: n.body.Record, Name: n.body.Name,
		Request: cluster.DigestOf(raw), Exporter: n.call.Exporter,
	}
	proof, err := pki.Prove(n.seed, claim)
	if err != nil {
		n.t.Fatal(err)
	}
	return rpc.AdmitRequest{Pin: n.pin, Request: raw, Proof: proof}
}

func (n *newcomer) admit() (rpc.AdmitReply, error) {
	return n.s.Admit(context.Background(), n.call, n.request())
}

func (n *newcomer) mustAdmit() rpc.AdmitReply {
	n.t.Helper()
	reply, err := n.admit()
	if err != nil {
		n.t.Fatalf("admit: %v", err)
	}
	return reply
}

func (n *newcomer) record() pki.Record { return n.o.lab.S.Admissions[n.rec.ID] }

func (n *newcomer) node() *state.Node { return n.o.lab.S.Node(n.rec.Node) }

// contact is a call by the identity certificate.
func (n *newcomer) contact(req rpc.CertificateRequest) (rpc.CertificateReply, error) {
	return n.s.Certificate(context.Background(), Call{Request: "r2", Node: n.rec.Node, Pin: pinOf(n.t, n.identity)}, req)
}

func verifyCert(t *testing.T, o *office, kind pki.Kind, der []byte, k crypto.Signer, id cluster.NodeID) {
	t.Helper()
	cert, err := pki.ParseCertDER(der)
	if err != nil {
		t.Fatal(err)
	}
	root, err := pki.ParseCertDER(o.lab.S.CA.Cert)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := pki.NewRoots(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pki.VerifyChain(roots, []*x509.Certificate{cert}, kind, o.lab.Now)
	if err != nil || got.Node != id || pki.PinOf(cert) != pinOf(t, k) {
		t.Errorf("%s certificate: of node %s, %v", kind, got.Node, err)
	}
}

// spoilSignature changes the last bytes, which are the signature's.
func spoilSignature(der []byte) []byte {
	der = slices.Clone(der)
	der[len(der)-1] ^= 1
	return der
}
