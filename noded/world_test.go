package noded

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
)

// world is a cluster as its master knows it, with the master's powers: it signs
// maps, admits nodes and calls their noded.
type world struct {
	t     *testing.T
	id    cluster.UUID
	ca    *pki.CA
	roots *pki.Roots
	boot  rpc.BootstrapReply
	first *fakeMasterd

	mu       sync.Mutex
	nodes    []candmap.RosterNode
	settings *candmap.Settings               // nil: a roster of format 1
	signers  map[cluster.NodeID]*fakeMasterd // candidates that vote
	records  map[cluster.UUID]pki.Record
	tamper   func(*rpc.AdmitReply)
	refuse   func() error  // before an admission
	issueAt  time.Time     // of certificates; zero: now
	ahead    time.Duration // of maps and beacons
	chain    []candmap.Envelope
	cur      *candmap.Verified
	view     atomic.Pointer[candmap.View]
	client   *rpc.Client
	asked    chan rpc.CertificateRequest
	told     chan pki.Hosts                    // statements of host keys
	verdict  func(pki.Hosts) rpc.HostKeysReply // nil: the roster gets them
}

func foundWorld(f *fakeMasterd, r *rpc.BootstrapRequest) *world {
	w := &world{
		t: f.h.t, id: r.Cluster, first: f, records: map[cluster.UUID]pki.Record{},
		signers: map[cluster.NodeID]*fakeMasterd{r.Node: f}, asked: make(chan rpc.CertificateRequest, 100),
		told: make(chan pki.Hosts, 1000),
	}
	var err error
	w.ca, err = pki.NewCA(r.Cluster, r.Init.Cluster, time.Now().AddDate(-6, 0, 0))
	w.check(err)
	w.roots, err = pki.NewRoots(w.ca.Cert)
	w.check(err)
	node := candmap.RosterNode{
		UUID: r.Node, Incarnation: 1, Name: r.Init.Node, Addresses: r.Init.Addresses, Ports: r.Ports, HostKeys: r.HostKeys,
		Flags: cluster.Flags{MasterCandidate: true, MasterCapable: true, VMCapable: true},
	}
	w.boot.CA = w.ca.Cert.Raw
	w.boot.Server, node.Server = w.issueCSR(pki.KindServer, node, r.Server)
	w.boot.Identity, node.Identity = w.issueCSR(pki.KindIdentity, node, r.Identity)
	f.cert = w.issue(pki.KindCandidate, node, f.client.Public())
	w.boot.Gossip = make([]byte, 32)
	_, _ = rand.Read(w.boot.Gossip)
	w.nodes = []candmap.RosterNode{node}
	m := &candmap.Map{
		Cluster: r.Cluster, Version: 1, LeaseSeconds: r.Init.LeaseSeconds, SSHLeaseSeconds: r.Init.SSHLeaseSeconds,
		Policy: r.Init.Policy, SSHReach: r.Init.SSHReach, Master: r.Node, Recovery: r.Recovery, Epoch: 1,
	}
	c := w.candidate(node, f, r.SSH)
	c.Voter = true
	m.Candidates = []candmap.Candidate{c}
	w.boot.Map = w.publish(m)
	w.boot.Docs = w.docs()
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Error(err)
		panic(err)
	}
}

func (w *world) candidate(n candmap.RosterNode, f *fakeMasterd, keys []cluster.SSHKey) candmap.Candidate {
	c := candmap.Candidate{
		UUID: n.UUID, Incarnation: n.Incarnation, Name: n.Name, Addresses: n.Addresses, MasterdPort: n.Ports.Masterd,
		Client: []cluster.Digest{cluster.DigestOf(f.cert)}, SSH: keys,
	}
	pub, err := f.keys(rpc.LocalKeysRequest{Cluster: w.id, Node: n.UUID, Incarnation: 1})
	w.check(err)
	c.Signing = pub.Signing
	for _, a := range n.Addresses {
		c.From = append(c.From, netip.PrefixFrom(a, a.BitLen()))
	}
	return c
}

func (w *world) issue(kind pki.Kind, n candmap.RosterNode, key crypto.PublicKey) []byte {
	at := w.issueAt
	if at.IsZero() {
		at = time.Now()
	}
	der, err := w.ca.Issue(pki.Request{Kind: kind, Node: n.UUID, Name: n.Name, Addresses: n.Addresses, PublicKey: key}, at)
	w.check(err)
	return der
}

func (w *world) issueCSR(kind pki.Kind, n candmap.RosterNode, csr []byte) ([]byte, []cluster.Digest) {
	c, err := pki.ParseCSR(csr)
	w.check(err)
	return w.issue(kind, n, c.PublicKey), []cluster.Digest{c.Pin}
}

// publish makes a map of the nodes as they are, signed by all voters of it and
// of the one before.
func (w *world) publish(m *candmap.Map) candmap.Envelope {
	w.t.Helper()
	roster, err := candmap.NewRoster(w.nodes, w.settings)
	w.check(err)
	m.Roster, m.Issued = roster.Hash(), candmap.Stamp(time.Now().Add(w.ahead))
	slices.SortFunc(m.Candidates, func(a, b candmap.Candidate) int { return slices.Compare(a.UUID[:], b.UUID[:]) })
	payload, err := m.Encode()
	w.check(err)
	env := candmap.Envelope{PayloadType: candmap.MapType, Payload: payload}
	for _, f := range w.signers {
		sig, err := candmap.Sign(f.signing, candmap.MapType, payload)
		w.check(err)
		env = candmap.Merge(env, sig)
	}
	if w.cur == nil {
		w.cur, err = candmap.Genesis(env, env.Hash())
	} else {
		w.cur, err = candmap.Follow(w.cur, env)
	}
	w.check(err)
	w.chain = append(w.chain, env)
	w.view.Store(&candmap.View{Map: w.cur, Roster: roster})
	return env
}

// next publishes a change.
func (w *world) next(change func(m *candmap.Map)) candmap.Envelope {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nextLocked(change)
}

// settle publishes other settings; the master may be asked meanwhile.
func (w *world) settle(s candmap.Settings, change func(m *candmap.Map)) {
	w.t.Helper()
	w.next(func(m *candmap.Map) {
		w.settings = &s
		change(m)
	})
}

func (w *world) nextLocked(change func(m *candmap.Map)) candmap.Envelope {
	w.t.Helper()
	m, err := candmap.DecodeMap(w.cur.Envelope.Payload)
	w.check(err)
	m.Version, m.Previous = m.Version+1, w.cur.Hash
	change(m)
	return w.publish(m)
}

func (w *world) docs() (docs [][]byte) {
	for _, d := range w.view.Load().Roster.Docs() {
		docs = append(docs, d)
	}
	return docs
}

func (w *world) at() cluster.Version { return w.view.Load().At() }

func (w *world) beacon() candmap.Envelope { return w.beaconAt(time.Now().Add(w.ahead)) }

func (w *world) beaconAt(t time.Time) candmap.Envelope {
	w.t.Helper()
	m := w.view.Load().Map
	b := candmap.Beacon{Cluster: m.Cluster, Epoch: m.Epoch, Version: m.Version, Map: m.Hash, Time: candmap.Stamp(t)}
	payload, err := b.Encode()
	w.check(err)
	env := candmap.Envelope{PayloadType: candmap.BeaconType, Payload: payload}
	for _, f := range w.signers {
		sig, err := candmap.Sign(f.signing, candmap.BeaconType, payload)
		w.check(err)
		env = candmap.Merge(env, sig)
	}
	return env
}

// caller makes a client with a certificate of its own.
func (w *world) caller(cert func() (*tls.Certificate, error)) *rpc.Client {
	w.t.Helper()
	c, err := rpc.NewClient(rpc.ClientConfig{
		Certificate: cert, Roots: func() *pki.Roots { return w.roots }, View: w.view.Load,
		Term: func() uint64 { return 1 },
	})
	w.check(err)
	w.t.Cleanup(func() { c.Close() })
	return c
}

// push delivers the newest map and roster to a node, as the master does.
func (w *world) push(to cluster.NodeID) (rpc.MapAck, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var ack rpc.MapAck
	w.mu.Lock()
	d := rpc.MapDelivery{Maps: slices.Clone(w.chain), Docs: w.docs()}
	w.mu.Unlock()
	err := w.client.Call(ctx, nodedOf(to), rpc.MethodMapPut, "", d, &ack)
	return ack, err
}

func (w *world) mustPush(to cluster.NodeID) rpc.MapAck {
	w.t.Helper()
	ack, err := w.push(to)
	if err != nil {
		w.t.Fatal(err)
	}
	return ack
}

func (w *world) call(to cluster.NodeID, m rpc.Method, arg string, req, resp any) error {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	return w.client.Call(ctx, nodedOf(to), m, arg, req, resp)
}

// promote makes a node a candidate, as the master does, without delivering the
// map. Voter says that it signs from then on.
func (w *world) promote(h *host, voter bool) {
	w.t.Helper()
	id := h.member().id.Node
	var keys rpc.CandidateKeys
	req := rpc.KeyCreateRequest{Incarnation: 1}
	if err := w.call(id, rpc.MethodKeyCreate, "", req, &keys); err != nil {
		w.t.Fatal(err)
	}
	node := w.view.Load().Roster.Node(id)
	csr, err := pki.ParseCSR(keys.CSR)
	w.check(err)
	req.Certificate = w.issue(pki.KindCandidate, *node, csr.PublicKey)
	if err := w.call(id, rpc.MethodKeyCreate, "", req, &keys); err != nil {
		w.t.Fatal(err)
	}
	if keys.Installed != cluster.DigestOf(req.Certificate) {
		w.t.Fatal("the certificate is not installed")
	}
	w.next(func(m *candmap.Map) {
		if voter {
			w.signers[id] = h.masterd
		}
		c := w.candidate(*node, h.masterd, keys.SSH)
		c.Voter = voter
		m.Candidates = append(m.Candidates, c)
	})
}

// demote takes the role away from a node, without delivering the map.
func (w *world) demote(id cluster.NodeID) {
	w.t.Helper()
	w.next(func(m *candmap.Map) {
		m.Candidates = slices.DeleteFunc(m.Candidates, func(c candmap.Candidate) bool { return c.UUID == id })
	})
}
