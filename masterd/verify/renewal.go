package verify

import (
	"crypto/x509"
	"encoding/pem"
	"time"

	"rolekey/masterd/state"
	"rolekey/pki"
)

// ending reports a certificate whose end is near, so that the caller says of
// what it is; nil: it is not.
func (c *check) ending(code, kind, name, what string, ends time.Time) *Finding {
	text := what + " ends " + ends.UTC().Format(time.RFC3339)
	switch left := ends.Sub(c.clock()); {
	case left < certError:
		return c.report(code, kind, name, "%s", text)
	case left < certWarning:
		return c.line("WARNING", code, kind, name, text)
	}
	return nil
}

// issued checks the certificates that are known from the state, whether or not
// their nodes answer, and tells of nodes that a renewal has not reached.
func (c *check) issued() {
	for _, n := range c.s.SortedNodes() {
		if cert, err := x509.ParseCertificate(n.Certs.Candidate); n.Keys != nil && err == nil && !n.Flags.Offline {
			c.ending(CodeClientCert, "node", string(n.Name), "its candidate certificate", cert.NotAfter)
		}
		c.asleep(n)
		c.stale(n)
		if n.Keys != nil && n.Keys.RenewSigning {
			c.line("WARNING", CodeNodeMap, "node", string(n.Name), "a renewal of signing keys has not reached it: its old key still signs maps").
				cure(RepairNone, "start it, and the master replaces its key within seconds; a node that does not come back: gnt-node remove %s", n.Name)
		}
	}
	if block, _ := pem.Decode(c.s.RAPI.Cert); block != nil {
		c.remoteAPI(block.Bytes)
	}
}

// asleep tells of a node that does not answer and whose certificates end, or have
// ended: what it uses is known from the state alone.
func (c *check) asleep(n *state.Node) {
	if _, ok := c.answers[n.UUID]; ok || n.Flags.Offline {
		return
	}
	var ends time.Time
	for _, der := range [][]byte{n.Certs.Server, n.Certs.Identity} {
		if cert, err := x509.ParseCertificate(der); err == nil && (ends.IsZero() || cert.NotAfter.Before(ends)) {
			ends = cert.NotAfter
		}
	}
	if ends.IsZero() {
		return
	}
	switch limit, now := ends.Add(pki.Grace), c.clock(); {
	case now.After(limit):
		c.report(CodeClusterCert, "node", string(n.Name), "its certificates ended %s, too long ago for a renewal", ends.UTC().Format(time.RFC3339)).
			cure(RepairNone, "it is to be admitted again: gnt-node add --readd %s, and on it noded leave --yes and noded join; one that does not come back: gnt-node remove %s", n.Name, n.Name)
	case now.After(ends):
		c.report(CodeClusterCert, "node", string(n.Name), "its certificates ended %s", ends.UTC().Format(time.RFC3339)).
			cure(RepairNone, "start it before %s, and it renews them by itself within minutes; one that does not come back: gnt-node remove %s", limit.UTC().Format(time.RFC3339), n.Name)
	default:
		if f := c.ending(CodeClusterCert, "node", string(n.Name), "the first of its certificates", ends); f != nil {
			f.cure(RepairNone, "start it, and it renews them by itself; one that does not come back: gnt-node remove %s", n.Name)
		}
	}
}

func (c *check) stale(n *state.Node) {
	if n.RenewBefore.IsZero() {
		return
	}
	c.line("WARNING", CodeClusterCert, "node", string(n.Name), "the renewal of "+n.RenewBefore.UTC().Format(time.RFC3339)+" has not reached it: its old certificates are still accepted").
		cure(RepairNone, "start it, and the master renews them within seconds; a node that does not come back: gnt-node remove %s", n.Name)
}

// remoteAPI checks the administrator's own certificate, which nobody renews.
func (c *check) remoteAPI(der []byte) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.report(CodeClusterCert, "cluster", "", "the remote API's own certificate is not readable: %v", err).
			cure(RepairNone, "gnt-cluster renew-crypto --rapi-certificate FILE, or --new-rapi-certificate")
		return
	}
	if f := c.ending(CodeClusterCert, "cluster", "", "the remote API's own certificate", cert.NotAfter); f != nil {
		f.cure(RepairNone, "gnt-cluster renew-crypto --rapi-certificate FILE, or --new-rapi-certificate")
	}
}
