package noded

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/internal/audit"
	"rolekey/pki"
	"rolekey/rpc"
)

// Pauses of the renewal.
const (
	renewFirst = 100 * time.Millisecond // retries double from here
	renewRetry = time.Minute
	renewRound = 24 * time.Hour
)

// renew renews this node's certificates when they are due, and tells the
// keyserver of a new node's first contact, which spends its admission record.
func (m *member) renew(ctx context.Context) error {
	wait, told := renewFirst, false
	for {
		news := m.news.wait() // of another name or address, perhaps
		next, err := m.renewDue(ctx)
		if err != nil && ctx.Err() == nil {
			m.log.Info("certificates are not renewed yet", zap.Error(err))
			if text := m.lapsed(); text != "" && !told {
				told = true
				m.log.Error(text)
			}
			next, wait, news = wait, min(2*wait, renewRetry), nil
		} else {
			wait = renewFirst
		}
		if err := pause(ctx, next, news); err != nil {
			return err
		}
	}
}

// renewDue does what is due and returns when to look again.
func (m *member) renewDue(ctx context.Context) (time.Duration, error) {
	contact := filepath.Join(m.cfg.Paths.NodeDir(), contactFile)
	if exists(contact) {
		if _, err := m.askCertificate(ctx, rpc.CertificateRequest{}); err != nil {
			return 0, fmt.Errorf("report first contact: %w", err)
		}
		if err := atomicfile.Remove(contact); err != nil {
			return 0, err
		}
		close(m.contacted)
		m.log.Info("this node has joined", zap.Stringer("cluster", m.id.Cluster))
	}
	next := renewRound
	for name, kind := range map[string]string{serverPair: "server", identityPair: "identity"} {
		id, err := m.certs[name].identity()
		if err != nil {
			return 0, err
		}
		if left := id.RenewAt().Sub(m.cfg.now()); left > 0 && !m.misnamed(id) {
			next = min(next, left)
			continue
		}
		if err := m.renewOne(ctx, m.certs[name], kind, id); err != nil {
			return 0, fmt.Errorf("renew %s certificate: %w", kind, err)
		}
	}
	return next, nil
}

// lapsed says what is left to do when this node's certificates ended too long ago
// for a renewal, by its own clock; "": they did not.
func (m *member) lapsed() string {
	for _, name := range []string{serverPair, identityPair} {
		if id, err := m.certs[name].identity(); err == nil && id.Lapsed(m.cfg.now()) {
			return fmt.Sprintf("the %s certificate of this node ended %s, more than %d days ago, and nobody renews it any more: run noded leave --yes, and noded join with a new admission string (gnt-node add --readd %s on the master); or is the clock wrong?",
				id.Kind, id.NotAfter.UTC().Format(time.RFC3339), pki.Grace/(24*time.Hour), m.name())
		}
	}
	return ""
}

// misnamed reports whether the roster calls this node otherwise than a
// certificate does, or has it elsewhere.
func (m *member) misnamed(id pki.Identity) bool {
	n := m.self()
	return n != nil && (n.Name != id.Name || !slices.Equal(n.Addresses, id.Addresses))
}

// renewOne replaces one certificate. The roster lists the new key before the
// master answers, so it can be used at once.
func (m *member) renewOne(ctx context.Context, c *liveCert, kind string, old pki.Identity) error {
	key, err := c.prepare()
	if err != nil {
		return err
	}
	req, err := csrOf(key)
	if err != nil {
		return err
	}
	der, err := m.askCertificate(ctx, rpc.CertificateRequest{Kind: kind, CSR: req.der})
	if err != nil {
		return err
	}
	cert, err := pki.ParseCertDER(der)
	if err != nil {
		return err
	}
	id, err := pki.VerifyChain(m.caRoots(), []*x509.Certificate{cert}, old.Kind, m.cfg.now())
	switch {
	case err != nil:
		return err
	case id.Node != m.id.Node || id.Pin != req.pin:
		return cluster.Errorf(cluster.CodeIdentityMismatch, "the master issued a certificate for another node or key")
	}
	return m.use(c, kind, cert, old, id)
}

// use installs a certificate that was checked.
func (m *member) use(c *liveCert, kind string, cert *x509.Certificate, old, id pki.Identity) error {
	if err := c.install(cert); err != nil {
		return err
	}
	m.audit.Write(audit.Event{
		Act: audit.CertificateRenewed, Op: kind, Target: string(m.name()),
		Before: audit.Values{"not_after": old.NotAfter.Format(time.RFC3339)}, After: audit.Values{"not_after": id.NotAfter.Format(time.RFC3339)},
	})
	m.log.Info("certificate renewed", zap.String("kind", kind), zap.Time("not_after", id.NotAfter))
	m.news.ring()
	return nil
}

// askCertificate calls the master's masterd, and keeps the gossip keys that come
// with every answer.
func (m *member) askCertificate(ctx context.Context, req rpc.CertificateRequest) ([]byte, error) {
	v := m.keeper.View()
	if v.Map == nil || v.Map.Master.IsZero() {
		return nil, errors.New("no master is known")
	}
	var reply rpc.CertificateReply
	if err := m.client.Call(ctx, masterdOf(v.Map.Master), rpc.MethodCertificate, "", req, &reply); err != nil {
		return nil, err
	}
	return reply.Certificate, m.keepGossip(reply.Gossip, reply.GossipKeys)
}
