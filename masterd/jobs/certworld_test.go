package jobs

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// certSide is what a machine uses and prepares of certificates, by kind.
type certSide struct {
	used map[string]cluster.Digest // what the map or the roster knows it by
	cert map[string][]byte
	next map[string]crypto.Signer
	old  []cluster.Digest // that it used before
}

// certs makes the machine use what the state has of it, at first.
func (m *machine) certs(n *state.Node) *certSide {
	c := &m.cert
	if c.used == nil {
		c.used, c.cert, c.next = map[string]cluster.Digest{}, map[string][]byte{}, map[string]crypto.Signer{}
	}
	for _, kind := range kindsOf(n) {
		if _, ok := c.used[kind]; !ok {
			c.used[kind] = n.Pins(kind)[0]
		}
	}
	return c
}

func (w *world) CertPrepare(ctx context.Context, node cluster.NodeID, r rpc.CertPrepareRequest) (reply rpc.CertPrepareReply, err error) {
	what := "prepare "
	if len(r.Kinds) == 0 {
		what = "look at "
	}
	err = w.call(ctx, what+w.name(node), func() error {
		m, n := w.machines[node], w.lab.S.Node(node)
		if !m.up {
			return errors.New("no route to host")
		}
		if n == nil || r.Incarnation != n.Incarnation {
			return fmt.Errorf("another incarnation than %d", r.Incarnation)
		}
		for _, der := range w.lab.S.CA.Roots() {
			reply.Roots = append(reply.Roots, cluster.DigestOf(der))
		}
		reply.Roster = w.lab.S.Roster().Hash()
		c := m.certs(n)
		for _, kind := range r.Kinds {
			if c.next[kind] == nil {
				if c.next[kind], err = pki.GenerateKey(); err != nil {
					return err
				}
			}
			csr, err := pki.NewCSR(c.next[kind])
			if err != nil {
				return err
			}
			reply.Requests = append(reply.Requests, rpc.CertRequest{Kind: kind, CSR: csr, Used: c.used[kind]})
		}
		if m.spoilCerts != nil {
			m.spoilCerts(&reply)
		}
		return nil
	})
	return reply, err
}

func (w *world) CertInstall(ctx context.Context, node cluster.NodeID, r rpc.CertInstallRequest) (reply rpc.CertInstallReply, err error) {
	err = w.call(ctx, "install "+w.name(node), func() error {
		m, n := w.machines[node], w.lab.S.Node(node)
		if !m.up {
			return errors.New("no route to host")
		}
		c := m.certs(n)
		for _, order := range r.Certificates {
			pin, err := pinIn(n, order)
			if err != nil {
				w.t.Errorf("%s is to use what is not listed: %v", n.Name, err)
				return err
			}
			if key := c.next[order.Kind]; key != nil && pin != c.used[order.Kind] {
				cert, err := pki.ParseCertDER(order.Certificate)
				if err != nil || !cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
					w.t.Errorf("%s gets a certificate for another key, %v", n.Name, err)
				}
				c.old = append(c.old, c.used[order.Kind])
				c.used[order.Kind], c.cert[order.Kind], c.next[order.Kind] = pin, order.Certificate, nil
			}
			reply.Used = append(reply.Used, cluster.DigestOf(order.Certificate))
		}
		if m.certsInUse != nil {
			m.certsInUse(r)
			m.certsInUse = nil
		}
		return nil
	})
	return reply, err
}

// vouched checks that nobody is shut out: what each machine uses is listed, and
// of an authority that the roster names.
func (w *world) vouched(when string) {
	w.t.Helper()
	s := w.lab.S
	var ids [][]byte
	for _, der := range s.CA.Roots() {
		if cert, err := pki.ParseCertDER(der); err == nil {
			ids = append(ids, cert.SubjectKeyId)
		}
	}
	for _, n := range s.SortedNodes() {
		m := w.machines[n.UUID]
		for kind, pin := range m.cert.used {
			if pins := n.Pins(kind); len(pins) > 0 && !slices.Contains(pins, pin) {
				w.t.Errorf("%s: the %s certificate that %s uses is not listed", when, kind, n.Name)
			}
			if der := m.cert.cert[kind]; der != nil {
				cert, err := pki.ParseCertDER(der)
				if err != nil || !slices.ContainsFunc(ids, func(id []byte) bool { return string(id) == string(cert.AuthorityKeyId) }) {
					w.t.Errorf("%s: the %s certificate of %s is of no trusted authority", when, kind, n.Name)
				}
			}
		}
	}
}

// renewed reports what of the certificates of the nodes that are up is not new.
func (w *world) renewed() error {
	s := w.State()
	for _, n := range s.SortedNodes() {
		m := w.machines[n.UUID]
		if !m.up {
			continue
		}
		if !n.RenewBefore.IsZero() {
			return fmt.Errorf("%s is marked", n.Name)
		}
		for _, kind := range kindsOf(n) {
			if pins := n.Pins(kind); len(pins) != 1 || m.cert.cert[kind] == nil || pins[0] != m.cert.used[kind] {
				return fmt.Errorf("%s: %d digests of %s, or not the one in use", n.Name, len(pins), kind)
			}
			if slices.Contains(m.cert.old, m.cert.used[kind]) {
				return fmt.Errorf("%s uses an old %s certificate", n.Name, kind)
			}
		}
	}
	return nil
}
