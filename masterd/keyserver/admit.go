package keyserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// Admit answers both calls of an admission. The first, without a request,
// gives the maps from the pinned one to the newest, by which the caller can
// tell that this server is a candidate of the cluster.
func (s *Server) Admit(ctx context.Context, call Call, req rpc.AdmitRequest) (rpc.AdmitReply, error) {
	if len(req.Request) == 0 || bytes.Equal(req.Request, []byte("null")) {
		return s.introduce(req.Pin)
	}
	if err := s.master.Ready(); err != nil {
		return rpc.AdmitReply{}, err
	}
	body, err := decodeBody(req.Request)
	if err != nil {
		return rpc.AdmitReply{}, err
	}
	if err := s.checkProof(call, body, req); err != nil {
		return rpc.AdmitReply{}, err
	}
	if level := s.master.State().FeatureLevel; max(body.Features, 1) < level {
		return rpc.AdmitReply{}, cluster.Errorf(cluster.CodeUnsupportedFormat, "rolekey %.60s on %s knows feature level %d, and the cluster is at level %d",
			body.Software, body.Name, body.Features, level).WithHint("upgrade rolekey on that node, and join again with the same string")
	}
	a, err := s.prepare(call, body)
	if err != nil {
		return rpc.AdmitReply{}, err
	}
	if _, err := s.master.Change(ctx, state.KindNodeAdmit, a, "node "+string(body.Name), call.Request); err != nil {
		return rpc.AdmitReply{}, err
	}
	return s.welcome(body, req.Pin)
}

// introduce proves to a stranger who the candidates are, if it knows the hash
// of a map of this cluster.
func (s *Server) introduce(pin cluster.Digest) (rpc.AdmitReply, error) {
	var maps []candmap.Envelope
	for _, e := range s.master.State().Chain {
		if e.Hash == pin {
			maps = s.since(e.Version, pin)
			break
		}
	}
	if len(maps) == 0 {
		return rpc.AdmitReply{}, cluster.Errorf(cluster.CodeTokenUnknown, "no map of this cluster has the hash that the admission string pins").
			WithHint("the string is of another cluster or too old; ask for a new one with gnt-node add")
	}
	return rpc.AdmitReply{Maps: maps}, nil
}

// since returns the envelopes from the pinned map on.
func (s *Server) since(v cluster.Version, pin cluster.Digest) []candmap.Envelope {
	before := cluster.Version{Epoch: v.Epoch, Version: v.Version - 1}
	maps := s.master.Chain(before)
	if !slices.ContainsFunc(maps, func(e candmap.Envelope) bool { return e.Hash() == pin }) {
		return nil
	}
	return maps
}

func decodeBody(raw json.RawMessage) (rpc.AdmitBody, error) {
	var body rpc.AdmitBody
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil {
		return body, cluster.Errorf(cluster.CodeBadFormat, "read admission request: %v", err)
	}
	return body, nil
}

// checkProof comes before every answer about the record: only a holder of the
// string learns anything about it.
func (s *Server) checkProof(call Call, body rpc.AdmitBody, req rpc.AdmitRequest) error {
	st := s.master.State()
	rec, err := st.Admissions.Lookup(body.Record)
	if err != nil {
		return err
	}
	claim := pki.Claim{
		Cluster: st.Cluster.UUID, Record: body.Record, Name: body.Name,
		Request: cluster.DigestOf(req.Request), Exporter: call.Exporter,
	}
	return pki.CheckProof(rec.PublicKey, claim, req.Proof)
}

// prepare checks everything else and issues the certificates. A node that
// asks again with its own key gets those that were issued to it.
func (s *Server) prepare(call Call, body rpc.AdmitBody) (state.NodeAdmit, error) {
	st := s.master.State()
	identity, err := pki.ParseCSR(body.Identity)
	if err != nil {
		return state.NodeAdmit{}, err
	}
	server, err := pki.ParseCSR(body.Server)
	if err != nil {
		return state.NodeAdmit{}, err
	}
	rec, err := st.Admissions.Lookup(body.Record)
	if err != nil {
		return state.NodeAdmit{}, err
	}
	if err := rec.Check(s.now(), body.Name, call.Remote, identity.Pin); err != nil {
		return state.NodeAdmit{}, err
	}
	a := state.NodeAdmit{
		Record: body.Record, Remote: call.Remote, Node: rec.Node, Incarnation: st.NextIncarnation(rec.Node),
		Name: body.Name, HostKeys: body.HostKeys, Server: server.Pin, Identity: identity.Pin, MasterCapable: true, VMCapable: true,
	}
	a.Addresses, a.Ports = rec.Apply(body.Addresses, body.Ports)
	n := st.Node(rec.Node)
	if n != nil { // what it could be in its former life, it can be in the next
		a.MasterCapable, a.VMCapable = n.Flags.MasterCapable, n.Flags.VMCapable
	}
	if rec.MasterCapable != nil {
		a.MasterCapable = *rec.MasterCapable
	}
	if rec.VMCapable != nil {
		a.VMCapable = *rec.VMCapable
	}
	if n != nil && rec.State == pki.RecordBound {
		a.Incarnation, a.ServerCert, a.IdentityCert = n.Incarnation, n.Certs.Server, n.Certs.Identity
		return a, nil
	}
	return a, s.issueBoth(st, &a, server, identity)
}

func (s *Server) issueBoth(st *state.State, a *state.NodeAdmit, server, identity pki.CSR) error {
	ca, err := issuer(st)
	if err != nil {
		return err
	}
	r := pki.Request{Kind: pki.KindServer, Node: a.Node, Name: a.Name, Addresses: a.Addresses, PublicKey: server.PublicKey}
	if a.ServerCert, err = ca.Issue(r, s.now()); err != nil {
		return err
	}
	r.Kind, r.PublicKey = pki.KindIdentity, identity.PublicKey
	a.IdentityCert, err = ca.Issue(r, s.now())
	return err
}

// welcome is the reply to an admitted node, from what is committed.
func (s *Server) welcome(body rpc.AdmitBody, pin cluster.Digest) (rpc.AdmitReply, error) {
	st := s.master.State()
	n := st.NodeByName(body.Name)
	if n == nil {
		return rpc.AdmitReply{}, fmt.Errorf("admit %s: the node is gone again", body.Name)
	}
	reply, err := s.introduce(pin)
	if err != nil {
		return reply, err
	}
	for _, d := range st.Roster().Docs() {
		reply.Docs = append(reply.Docs, d)
	}
	if b, ok := s.master.Beacon(); ok {
		reply.Beacon = &b
	}
	reply.Node, reply.CA, reply.Gossip = n.UUID, st.CA.Cert, st.Gossip.Reveal()
	reply.Server, reply.Identity = n.Certs.Server, n.Certs.Identity
	return reply, nil
}
