package noded

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/pki"
	"rolekey/rpc"
)

// certPlace is where the certificates of a kind are.
type certPlace struct {
	kind pki.Kind
	pair string // "": masterd has it
}

var certPlaces = map[string]certPlace{
	rpc.CertServer:    {pki.KindServer, serverPair},
	rpc.CertIdentity:  {pki.KindIdentity, identityPair},
	rpc.CertCandidate: {pki.KindCandidate, ""},
}

func (m *member) checkCertOrder(incarnation uint64, kinds []string) error {
	if incarnation != m.id.Incarnation {
		return cluster.Errorf(cluster.CodeConflict, "the order is for incarnation %d of this node, this is %d", incarnation, m.id.Incarnation)
	}
	for i, k := range kinds {
		if _, ok := certPlaces[k]; !ok || slices.Contains(kinds[:i], k) {
			return cluster.Errorf(cluster.CodeBadFormat, "certificates of kind %.40q are unknown here, or ordered twice", k)
		}
	}
	return nil
}

// prepareCerts answers the master with requests for certificates of new keys.
func (m *member) prepareCerts(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.CertPrepareRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	if err := m.checkCertOrder(req.Incarnation, req.Kinds); err != nil {
		return nil, err
	}
	reply := rpc.CertPrepareReply{Roots: m.roots.digests()}
	if v := m.keeper.View(); v.Complete() {
		reply.Roster = v.Roster.Hash()
	}
	if len(req.Kinds) == 0 {
		return reply, nil
	}
	err := rpc.Effect(ctx, func() error {
		for _, k := range req.Kinds {
			r, err := m.prepareCert(ctx, k)
			if err != nil {
				return fmt.Errorf("prepare %s key: %w", k, err)
			}
			reply.Requests = append(reply.Requests, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

func (m *member) prepareCert(ctx context.Context, kind string) (rpc.CertRequest, error) {
	c := m.certs[certPlaces[kind].pair]
	if c == nil {
		return m.prepareCandidate(ctx)
	}
	key, err := c.prepareAnew(m.cfg.now())
	if err != nil {
		return rpc.CertRequest{}, err
	}
	csr, err := csrOf(key)
	if err != nil {
		return rpc.CertRequest{}, err
	}
	id, err := c.identity()
	return rpc.CertRequest{Kind: kind, CSR: csr.der, Used: id.Pin}, err
}

func (m *member) prepareCandidate(ctx context.Context) (rpc.CertRequest, error) {
	if err := m.takeKeyTurn(ctx); err != nil {
		return rpc.CertRequest{}, err
	}
	defer m.giveKeyTurn()
	if !m.candidate(m.keeper.View()) {
		return rpc.CertRequest{}, cluster.Errorf(cluster.CodeConflict, "this node is no master candidate")
	}
	keys, err := m.masterd.createKeys(ctx, m.localKeys(nil, true))
	return rpc.CertRequest{Kind: rpc.CertCandidate, CSR: keys.CSR, Used: keys.Installed}, err
}

func (m *member) localKeys(cert []byte, next bool) rpc.LocalKeysRequest {
	return rpc.LocalKeysRequest{
		Cluster: m.id.Cluster, Node: m.id.Node, Incarnation: m.id.Incarnation, Name: m.name(), Certificate: cert, Next: next,
	}
}

// installCerts uses new certificates. Open connections stay as they are; those to
// come are made with the new ones.
func (m *member) installCerts(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.CertInstallRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	var kinds []string
	for _, c := range req.Certificates {
		kinds = append(kinds, c.Kind)
	}
	if err := m.checkCertOrder(req.Incarnation, kinds); err != nil {
		return nil, err
	}
	var reply rpc.CertInstallReply
	err := rpc.Effect(ctx, func() error {
		for _, c := range req.Certificates {
			used, err := m.installCert(ctx, c)
			if err != nil {
				return fmt.Errorf("install %s certificate: %w", c.Kind, err)
			}
			reply.Used = append(reply.Used, used)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

func (m *member) installCert(ctx context.Context, order rpc.InstalledCert) (cluster.Digest, error) {
	cert, err := pki.ParseCertDER(order.Certificate)
	if err != nil {
		return cluster.Digest{}, cluster.Errorf(cluster.CodeBadFormat, "%v", err)
	}
	id, err := pki.VerifyChain(m.caRoots(), []*x509.Certificate{cert}, certPlaces[order.Kind].kind, m.cfg.now())
	switch {
	case err != nil:
		return cluster.Digest{}, err
	case id.Node != m.id.Node:
		return cluster.Digest{}, cluster.Errorf(cluster.CodeIdentityMismatch, "it is of node %s", id.Node)
	case !m.lists(m.keeper.View(), id):
		return cluster.Digest{}, cluster.Errorf(cluster.CodeConflict, "the map that this node holds does not list it yet")
	}
	c := m.certs[certPlaces[order.Kind].pair]
	if c == nil {
		return m.installCandidate(ctx, order.Certificate)
	}
	old, err := c.identity()
	if err != nil || old.Digest == id.Digest {
		return old.Digest, err
	}
	return id.Digest, m.use(c, order.Kind, cert, old, id)
}

// lists reports whether others take a certificate for this node's by now: who
// used it before would be refused.
func (m *member) lists(v *candmap.View, id pki.Identity) bool {
	if id.Kind == pki.KindCandidate {
		return v.Map != nil && v.Map.Candidate(m.id.Node) != nil && slices.Contains(v.Map.Candidate(m.id.Node).Client, id.Digest)
	}
	if !v.Complete() || v.Roster.Node(m.id.Node) == nil {
		return false
	}
	n := v.Roster.Node(m.id.Node)
	return id.Kind == pki.KindServer && slices.Contains(n.Server, id.Pin) || id.Kind == pki.KindIdentity && slices.Contains(n.Identity, id.Pin)
}

func (m *member) installCandidate(ctx context.Context, der []byte) (cluster.Digest, error) {
	if err := m.takeKeyTurn(ctx); err != nil {
		return cluster.Digest{}, err
	}
	defer m.giveKeyTurn()
	keys, err := m.masterd.createKeys(ctx, m.localKeys(der, false))
	if err == nil {
		m.audit.Write(audit.Event{Act: audit.CertificateRenewed, Op: rpc.CertCandidate, Target: string(m.name())})
	}
	return keys.Installed, err
}
