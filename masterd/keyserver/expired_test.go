package keyserver

import (
	"context"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// asleep is a node whose certificates have ended.
func asleep(t *testing.T) *newcomer {
	t.Helper()
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	n.mustAdmit()
	if _, err := n.contact(rpc.CertificateRequest{}); err != nil {
		t.Fatal(err)
	}
	n.o.lab.Now = n.o.lab.Now.Add(pki.LifetimeNode + time.Hour)
	return n
}

// late is a call by an identity certificate that has ended.
func (n *newcomer) late(req rpc.CertificateRequest) (rpc.CertificateReply, error) {
	return n.s.Certificate(context.Background(), Call{Request: "r3", Node: n.rec.Node, Pin: pinOf(n.t, n.identity), Ended: true}, req)
}

// TestExpiredNodeRenews: with a certificate that has ended, a node gets others,
// and the gossip keys only with them.
func TestExpiredNodeRenews(t *testing.T) {
	n := asleep(t)
	if r, err := n.late(rpc.CertificateRequest{}); cluster.CodeOf(err) != cluster.CodeNoCertificate || len(r.Gossip) > 0 {
		t.Errorf("without a request for a certificate: %v", err)
	}
	for _, kind := range []string{state.CertServer, state.CertIdentity} {
		next := key(t)
		r, err := n.late(rpc.CertificateRequest{Kind: kind, CSR: csr(t, next)})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		verifyCert(t, n.o, pki.Kind(kind), r.Certificate, next, n.rec.Node)
		if _, pins, _, _ := slot(n.node(), kind); len(pins) != 2 || pins[1] != pinOf(t, next) {
			t.Errorf("%s: %d pins", kind, len(pins))
		}
		again, err := n.late(rpc.CertificateRequest{Kind: kind, CSR: csr(t, next)})
		if err != nil || string(again.Certificate) != string(r.Certificate) {
			t.Errorf("%s: the reply was lost: %v", kind, err)
		}
	}
}

// TestReplyLostBeforeALongSleep: the node asks with the key that it had asked with
// before it slept, and the certificate for that has ended meanwhile, too.
func TestReplyLostBeforeALongSleep(t *testing.T) {
	for _, kind := range []string{state.CertServer, state.CertIdentity} {
		n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
		n.mustAdmit()
		n.due()
		next := key(t)
		if _, err := n.contact(rpc.CertificateRequest{Kind: kind, CSR: csr(t, next)}); err != nil {
			t.Fatal(err)
		}
		n.o.lab.Now = n.o.lab.Now.Add(pki.LifetimeNode + time.Hour)
		before, pins, _, _ := slot(n.node(), kind)
		r, err := n.late(rpc.CertificateRequest{Kind: kind, CSR: csr(t, next)})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		verifyCert(t, n.o, before, r.Certificate, next, n.rec.Node)
		if _, now, _, _ := slot(n.node(), kind); len(now) != len(pins) || now[1] != pins[1] {
			t.Errorf("%s: the pins are others", kind)
		}
	}
}

// TestG4ExpiredIsRefused where nobody waits for the node: it is offline, it was
// removed, or it never came.
func TestG4ExpiredIsRefused(t *testing.T) {
	req := rpc.CertificateRequest{Kind: state.CertIdentity, CSR: csr(t, key(t))}
	n := asleep(t)
	n.o.lab.Do(state.KindNodeChange, state.NodeChange{Node: n.rec.Node, Flags: &state.FlagPatch{Offline: new(true)}})
	head := n.o.lab.S.Head().Version
	if _, err := n.late(req); cluster.CodeOf(err) != cluster.CodeConflict || cluster.HintOf(err) == "" {
		t.Errorf("offline: %v", err)
	}
	n.o.lab.Do(state.KindNodeRemove, state.NodeRemove{Node: n.rec.Node})
	if _, err := n.late(req); cluster.CodeOf(err) != cluster.CodeNotInRoster {
		t.Errorf("removed: %v", err)
	}
	n = newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	n.mustAdmit()
	n.o.lab.Now = n.o.lab.Now.Add(pki.LifetimeNode + time.Hour)
	if _, err := n.late(req); cluster.CodeOf(err) != cluster.CodeNoCertificate {
		t.Errorf("it was admitted and never heard of: %v", err)
	}
	if n.o.lab.S.Head().Version.Newer(head) {
		t.Error("a map was made for it")
	}
}
