package masterd

import (
	"bytes"
	"context"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// A candidate whose certificate has expired is recognised by nobody, and has it
// renewed by the master. The only voter has no other master: after a sleep of years,
// or a recovery that followed it, it renews its certificate by itself, which takes
// no call that only a candidate may make: the map is delivered as by a stranger.

// ownCert is the candidate certificate of the node that leads.
type ownCert interface {
	// used returns the certificate in use, in DER.
	used() []byte
	// next returns the request for the next one: the same until it is installed.
	next() ([]byte, error)
	// install uses a certificate that the map lists.
	install(ctx context.Context, der []byte) error
}

// expired reports whether a certificate has ended.
func expired(der []byte, now time.Time) bool {
	cert, err := pki.ParseCertDER(der)
	if err != nil {
		return false
	}
	id, err := pki.Identify(cert)
	return err == nil && id.Ended(now)
}

var errCertExpired = cluster.Errorf(cluster.CodeNoCertificate, "the candidate certificate of this node has expired; the master renews it").
	WithHint("if no voter is left whose certificate is good, nobody is master: gnt-cluster recover on one of them")

// mayServe reports whether this node may live as a candidate with the certificate
// that it holds. One that has expired opens nothing; but the only voter is needed to
// renew it.
func mayServe(m *candmap.Verified, self cluster.NodeID, der []byte, now time.Time) bool {
	if !expired(der, now) {
		return true
	}
	for _, c := range m.Candidates {
		if c.Voter && c.UUID != self {
			return false
		}
	}
	c := m.Candidate(self)
	return c != nil && c.Voter
}

// renewOwn replaces this node's own certificate if it has expired, and reports
// whether it is good. What was interrupted is gone on with.
func (l *leader) renewOwn(ctx context.Context) bool {
	if l.own == nil || !expired(l.own.used(), l.now()) {
		return true
	}
	if err := l.replaceOwn(ctx); err != nil {
		if ctx.Err() == nil {
			l.log.Warn("this node's own candidate certificate has expired, and is not renewed yet", zap.Error(err))
		}
		return false
	}
	l.log.Warn("this node's own candidate certificate had expired, and is renewed")
	return true
}

func (l *leader) replaceOwn(ctx context.Context) error {
	text, err := l.own.next()
	if err != nil {
		return err
	}
	csr, err := pki.ParseCSR(text)
	if err != nil {
		return err
	}
	der := l.node.State().Node(l.self).Certs.Candidate
	if cert, err := pki.ParseCertDER(der); err != nil || pki.PinOf(cert) != csr.Pin || expired(der, l.now()) {
		if der, err = l.issueOwn(ctx, csr); err != nil {
			return err
		}
	}
	if bytes.Equal(der, l.own.used()) {
		return nil
	}
	return l.own.install(ctx, der)
}

// issueOwn lists the new certificate beside the one in use, which the job that
// renews certificates retires later.
func (l *leader) issueOwn(ctx context.Context, csr pki.CSR) ([]byte, error) {
	st := l.node.State()
	ca, err := pki.ParseCA(st.CA.Cert, st.CA.Key)
	if err != nil {
		return nil, err
	}
	n := st.Node(l.self)
	der, err := ca.Issue(pki.Request{Kind: pki.KindCandidate, Node: n.UUID, Name: n.Name, Addresses: n.Addresses, PublicKey: csr.PublicKey}, l.now())
	if err != nil {
		return nil, err
	}
	change := state.NodeCerts{
		Node: n.UUID, Kind: state.CertCandidate, Cert: der, Pins: []cluster.Digest{cluster.DigestOf(l.own.used()), cluster.DigestOf(der)},
		Was: n.Pins(state.CertCandidate),
	}
	_, _, err = l.change(ctx, state.KindNodeCerts, change, l.meta(selfActor, rpc.NewRequestID()), nil)
	return der, err
}

// memberCert implements ownCert.
type memberCert struct{ *member }

func (m memberCert) used() []byte {
	if c := m.d.vault.certificate(); c != nil {
		return c.Certificate[0]
	}
	return nil
}

func (m memberCert) request(der []byte) *rpc.LocalKeysRequest {
	return &rpc.LocalKeysRequest{
		Cluster: m.self.cluster, Node: m.self.node, Incarnation: m.self.incarnation, Name: m.self.name(), Certificate: der, Next: der == nil,
	}
}

func (m memberCert) next() ([]byte, error) {
	keys, err := m.d.vault.ensure(*m.request(nil))
	return keys.CSR, err
}

func (m memberCert) install(ctx context.Context, der []byte) error {
	_, err := m.d.createKeys(ctx, m.request(der))
	return err
}
