package keyserver

import (
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
	"rolekey/rpc"
)

// due lets the time pass until the certificates of both kinds are due.
func (n *newcomer) due() { n.o.lab.Now = n.o.lab.Now.Add(pki.LifetimeNode / 4 * 3) }

// TestRenewalIsRefusedBeforeItIsDue: each renewal is a map version, so a member
// that asks without end must not get one each time.
func TestRenewalIsRefusedBeforeItIsDue(t *testing.T) {
	for _, kind := range []string{state.CertServer, state.CertIdentity} {
		n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
		n.mustAdmit()
		if _, err := n.contact(rpc.CertificateRequest{}); err != nil {
			t.Fatal(err)
		}
		head := n.o.lab.S.Head().Version
		for range 20 {
			n.o.lab.Now = n.o.lab.Now.Add(7 * time.Hour)
			_, err := n.contact(rpc.CertificateRequest{Kind: kind, CSR: csr(t, key(t))})
			if cluster.CodeOf(err) != cluster.CodeBusy || cluster.HintOf(err) == "" {
				t.Fatalf("%s: a renewal that is not due: %v", kind, err)
			}
		}
		if n.o.lab.S.Head().Version != head {
			t.Errorf("%s: the map went from %s to %s", kind, head, n.o.lab.S.Head().Version)
		}
	}
}

// TestRenewalAtMostHourly, however much a member needs it: here one that says
// that it still uses its old key.
func TestRenewalAtMostHourly(t *testing.T) {
	for _, kind := range []string{state.CertServer, state.CertIdentity} {
		n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
		n.mustAdmit()
		n.due()
		renewed := 0
		for range 4 * 60 {
			_, err := n.contact(rpc.CertificateRequest{Kind: kind, CSR: csr(t, key(t))})
			switch {
			case err == nil:
				renewed++
			case cluster.CodeOf(err) != cluster.CodeBusy:
				t.Fatal(err)
			}
			n.o.lab.Now = n.o.lab.Now.Add(time.Minute)
		}
		if renewed != 4 {
			t.Errorf("%s: %d renewals in four hours", kind, renewed)
		}
	}
}

// TestRenewalAfterAChange: a node that moved needs certificates that say so.
func TestRenewalAfterAChange(t *testing.T) {
	for name, move := range map[string]state.NodeAddress{
		"address": {Addresses: append(statetest.Node(2).Addresses, statetest.Addr(77))},
		"name":    {Name: new(cluster.Name("moved.lab.test"))},
	} {
		n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
		n.mustAdmit()
		move.Node = n.rec.Node
		n.o.lab.Do(state.KindNodeAddress, move)
		for _, kind := range []string{state.CertServer, state.CertIdentity} {
			if _, err := n.contact(rpc.CertificateRequest{Kind: kind, CSR: csr(t, key(t))}); err != nil {
				t.Errorf("%s changed, %s: %v", name, kind, err)
			}
			if _, err := n.contact(rpc.CertificateRequest{Kind: kind, CSR: csr(t, key(t))}); cluster.CodeOf(err) != cluster.CodeBusy {
				t.Errorf("%s changed, %s: once more at once: %v", name, kind, err)
			}
		}
	}
}

// TestRenewalOfACertificateFromTheFuture: a master whose clock was wrong issued
// it, and nobody accepts it.
func TestRenewalOfACertificateFromTheFuture(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	good := n.o.lab.Now
	n.mustAdmit()
	n.due()
	if _, err := n.contact(rpc.CertificateRequest{Kind: state.CertServer, CSR: csr(t, key(t))}); err != nil {
		t.Fatal(err)
	}
	n.o.lab.Now = good.Add(2 * renewPause)
	if _, err := n.contact(rpc.CertificateRequest{Kind: state.CertServer, CSR: csr(t, key(t))}); err != nil {
		t.Errorf("the certificate is not valid for years, and no other is issued: %v", err)
	}
}
