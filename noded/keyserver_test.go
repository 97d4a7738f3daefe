package noded

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
)

// serve starts what the master's masterd serves on the network.
func (w *world) serve() {
	w.t.Helper()
	w.client = w.caller(w.first.certificate)
	w.serveAs(w.first)
}

// serveAs serves admissions as the masterd of one candidate.
func (w *world) serveAs(f *fakeMasterd) {
	w.t.Helper()
	at := netip.AddrPortFrom(f.h.addr(), cluster.DefaultPorts.Masterd)
	listeners, err := rpc.Listen(w.t.Context(), []netip.AddrPort{at})
	w.check(err)
	s, err := rpc.NewServer(rpc.ServerConfig{
		Listeners: listeners, Certificate: f.certificate, Roots: func() *pki.Roots { return w.roots },
		View: w.view.Load, Fresh: func() bool { return true },
	})
	w.check(err)
	s.Handle(rpc.MethodAdmit, w.admit)
	s.Handle(rpc.MethodCertificate, w.certify)
	s.Handle(rpc.MethodHostKeys, w.hostKeys)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
}

// token makes an admission string for a node.
func (w *world) token(name cluster.Name) string {
	w.t.Helper()
	return w.tokenAt(name, netip.AddrPortFrom(w.first.h.addr(), cluster.DefaultPorts.Masterd))
}

func (w *world) tokenAt(name cluster.Name, at ...netip.AddrPort) string {
	w.t.Helper()
	rec, seed, err := pki.NewRecord(pki.RecordSpec{Name: name, Actor: "test"}, w.first.h.cfg.now())
	w.check(err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records[rec.ID] = rec
	tok, err := pki.NewToken(pki.TokenFields{Cluster: w.id, Record: rec.ID, Name: name, Candidates: at, MapPin: w.boot.Map.Hash(), Seed: seed})
	w.check(err)
	return tok.Encode()
}

func (w *world) admit(_ context.Context, q *rpc.Request) (any, error) {
	var req rpc.AdmitRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	reply := rpc.AdmitReply{Maps: w.chain}
	if !bytes.Equal(req.Request, []byte("null")) {
		if err := w.admitNode(q, req, &reply); err != nil {
			return nil, err
		}
	}
	if w.tamper != nil {
		w.tamper(&reply)
	}
	return reply, nil
}

func (w *world) admitNode(q *rpc.Request, req rpc.AdmitRequest, reply *rpc.AdmitReply) error {
	if w.refuse != nil {
		if err := w.refuse(); err != nil {
			return err
		}
	}
	var body rpc.AdmitBody
	if err := json.Unmarshal(req.Request, &body); err != nil {
		return err
	}
	rec, ok := w.records[body.Record]
	if !ok {
		return cluster.Errorf(cluster.CodeTokenUnknown, "unknown")
	}
	exporter, err := pki.Exporter(q.TLS())
	if err != nil {
		return err
	}
	claim := pki.Claim{Cluster: w.id, Record: body.Record, Name: body.Name, Request: cluster.DigestOf(req.Request), Exporter: exporter}
	if err := pki.CheckProof(rec.PublicKey, claim, req.Proof); err != nil {
		return err
	}
	identity, err := pki.ParseCSR(body.Identity)
	if err != nil {
		return err
	}
	if rec, err = rec.Bind(w.first.h.cfg.now(), body.Name, remoteOf(q), identity.Pin); err != nil {
		return err
	}
	w.records[body.Record] = rec
	node := candmap.RosterNode{
		UUID: rec.Node, Incarnation: 1, Name: body.Name, Addresses: body.Addresses, Ports: body.Ports, HostKeys: body.HostKeys,
		Flags: cluster.Flags{MasterCapable: true, VMCapable: true},
	}
	reply.Server, node.Server = w.issueCSR(pki.KindServer, node, body.Server)
	reply.Identity, node.Identity = w.issueCSR(pki.KindIdentity, node, body.Identity)
	if w.view.Load().Roster.Node(rec.Node) == nil {
		w.nodes = append(w.nodes, node)
		w.nextLocked(func(*candmap.Map) {})
	}
	reply.Maps, reply.Docs, reply.Node, reply.CA, reply.Gossip = w.chain, w.docs(), rec.Node, w.ca.Cert.Raw, w.boot.Gossip
	return nil
}

func (w *world) certify(_ context.Context, q *rpc.Request) (any, error) {
	var req rpc.CertificateRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked <- req
	reply := rpc.CertificateReply{Gossip: w.boot.Gossip}
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.UUID != q.Grant.Node || req.Kind == "" {
			continue
		}
		kind, pins := pki.KindServer, &n.Server
		if req.Kind == "identity" {
			kind, pins = pki.KindIdentity, &n.Identity
		}
		der, pin := w.issueCSR(kind, *n, req.CSR)
		reply.Certificate = der
		if (*pins)[len(*pins)-1] != pin[0] {
			*pins = []cluster.Digest{(*pins)[len(*pins)-1], pin[0]}
			w.nextLocked(func(*candmap.Map) {})
		}
	}
	return reply, nil
}

func remoteOf(q *rpc.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(q.HTTP.RemoteAddr)
	return ap.Addr()
}
