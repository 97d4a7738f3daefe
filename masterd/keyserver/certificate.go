package keyserver

import (
	"context"
	"slices"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// Certificate answers a member: it notes the first contact of a new node, and
// renews the caller's own certificates. A renewal adds a second pin to the
// roster before the node uses the new key.
func (s *Server) Certificate(ctx context.Context, call Call, req rpc.CertificateRequest) (rpc.CertificateReply, error) {
	if err := s.master.Ready(); err != nil {
		return rpc.CertificateReply{}, err
	}
	if call.Ended {
		if err := s.mayReturn(call, req); err != nil {
			return rpc.CertificateReply{}, err
		}
	}
	if err := s.firstContact(ctx, call); err != nil {
		return rpc.CertificateReply{}, err
	}
	st := s.master.State()
	reply := rpc.CertificateReply{Gossip: st.Gossip.Reveal()}
	if st.FeatureLevel >= state.LevelRenew {
		for _, k := range st.GossipKeys() {
			reply.GossipKeys = append(reply.GossipKeys, k.Reveal())
		}
	}
	if req.Kind == "" {
		return reply, nil
	}
	der, err := s.renew(ctx, call, req)
	reply.Certificate = der
	return reply, err
}

// mayReturn refuses a caller whose certificate has ended what is not for a node
// that was away: one that is offline is missed by nobody, and comes back by the
// administrator's word.
func (s *Server) mayReturn(call Call, req rpc.CertificateRequest) error {
	switch n := s.master.State().Node(call.Node); {
	case n == nil:
		return cluster.Errorf(cluster.CodeNotInRoster, "node %s is not in the cluster", call.Node)
	case req.Kind == "" || !n.Joined:
		return cluster.Errorf(cluster.CodeNoCertificate, "the identity certificate of node %s has expired: it is good for its renewal alone", n.Name)
	case n.Flags.Offline:
		return cluster.Errorf(cluster.CodeConflict, "node %s is offline, and its certificates have expired", n.Name).
			WithHint("set it online, and it renews them by itself: gnt-node modify --offline=no %s", n.Name)
	}
	return nil
}

// firstContact spends the admission record: the string has done its work.
func (s *Server) firstContact(ctx context.Context, call Call) error {
	st := s.master.State()
	n := st.Node(call.Node)
	if n == nil {
		return cluster.Errorf(cluster.CodeNotInRoster, "node %s is not in the cluster", call.Node)
	}
	if n.Joined {
		return nil
	}
	rec, ok := st.Admissions.Binding(call.Node, call.Pin)
	if !ok {
		return cluster.Errorf(cluster.CodeTokenUnknown, "no admission record has bound this key for node %s", n.Name)
	}
	if _, err := rec.Spend(call.Pin); err != nil {
		return err // and no job: the node asks again and again
	}
	// The job first: were it lost in a crash, nobody would queue it again.
	if err := s.master.Added(ctx, n.Name, call.Request); err != nil {
		return err
	}
	spent := state.AdmissionSpent{ID: rec.ID, Identity: call.Pin}
	_, err := s.master.Change(ctx, state.KindAdmissionSpent, spent, "node "+string(n.Name), call.Request)
	return err
}

func (s *Server) renew(ctx context.Context, call Call, req rpc.CertificateRequest) ([]byte, error) {
	st := s.master.State()
	n := st.Node(call.Node)
	kind, pins, current, err := slot(n, req.Kind)
	if err != nil {
		return nil, err
	}
	csr, err := pki.ParseCSR(req.CSR)
	if err != nil {
		return nil, err
	}
	if pins[len(pins)-1] == csr.Pin && s.holds(current) {
		return current, nil // the reply was lost
	}
	if err := s.mayRenew(call, n, kind, pins, current); err != nil {
		return nil, err
	}
	ca, err := issuer(st)
	if err != nil {
		return nil, err
	}
	der, err := ca.Issue(pki.Request{Kind: kind, Node: n.UUID, Name: n.Name, Addresses: n.Addresses, PublicKey: csr.PublicKey}, s.now())
	if err != nil {
		return nil, err
	}
	// The newest pin is the one in use; an older one was retired by use. But a
	// caller that shows an older key has never used the newest.
	used := pins[len(pins)-1]
	if slices.Contains(pins, call.Pin) {
		used = call.Pin
	}
	next := []cluster.Digest{used, csr.Pin}
	if slices.Contains(pins, csr.Pin) {
		next = pins // a reply was lost so long ago that its certificate is due itself
	}
	change := state.NodeCerts{Node: n.UUID, Kind: req.Kind, Cert: der, Pins: next, Was: pins}
	_, err = s.master.Change(ctx, state.KindNodeCerts, change, "node "+string(n.Name), call.Request)
	return der, err
}

// holds reports whether a certificate need not be issued again.
func (s *Server) holds(der []byte) bool {
	cert, err := pki.ParseCertDER(der)
	if err != nil {
		return false
	}
	id, err := pki.Identify(cert)
	return err == nil && s.now().Before(id.RenewAt())
}

// renewPause is the least time between two renewals of a kind by one node:
// each is a new version of the map, which every node fetches and checks.
const renewPause = time.Hour

// mayRenew refuses what a node does not need: a member could otherwise have
// the cluster make map versions without end.
func (s *Server) mayRenew(call Call, n *state.Node, kind pki.Kind, pins []cluster.Digest, current []byte) error {
	cert, err := pki.ParseCertDER(current)
	if err != nil {
		return nil // it has none that is of use
	}
	id, err := pki.Identify(cert)
	if err != nil {
		return nil
	}
	if id.Name != n.Name || !slices.Equal(id.Addresses, n.Addresses) {
		return nil // it was renamed or moved, and its certificates say the old
	}
	if !n.RenewBefore.IsZero() && id.Issued().Before(n.RenewBefore) {
		return nil // a renewal of all has not reached it
	}
	now := s.now()
	if age := now.Sub(id.Issued()); age.Abs() < renewPause {
		return cluster.Errorf(cluster.CodeBusy, "the %s certificate of node %s was renewed %s ago", kind, n.Name, age.Round(time.Second)).
			WithHint("one renewal an hour is enough; the node asks again by itself")
	}
	if due := id.RenewAt(); now.Before(due) && !now.Before(id.NotBefore) && inUse(call, kind, pins) {
		return cluster.Errorf(cluster.CodeBusy, "the %s certificate of node %s is not due before %s", kind, n.Name, due.UTC().Format(time.RFC3339)).
			WithHint("nothing is to be done; compare the node's clock if it asks again and again")
	}
	return nil
}

// inUse reports whether a node uses the newest key, as far as is known. One
// that lost it before the first use still depends on the old certificate,
// whose end is near. The key of the server is not seen here, so there the
// doubt lasts for as long as two keys are pinned.
func inUse(call Call, kind pki.Kind, pins []cluster.Digest) bool {
	if kind == pki.KindIdentity {
		return call.Pin == pins[len(pins)-1]
	}
	return len(pins) == 1
}

// slot returns what a node holds of a kind of certificate.
func slot(n *state.Node, kind string) (pki.Kind, []cluster.Digest, []byte, error) {
	switch kind {
	case state.CertServer:
		return pki.KindServer, n.Server, n.Certs.Server, nil
	case state.CertIdentity:
		return pki.KindIdentity, n.Identity, n.Certs.Identity, nil
	default:
		return "", nil, nil, cluster.Errorf(cluster.CodeBadFormat, "certificates of kind %.40q are not renewed here; want server or identity", kind)
	}
}
