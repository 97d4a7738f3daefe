package rapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/sshkeys"
)

func (a *api) details(r *http.Request) (any, error) {
	s, n, err := a.named(r)
	if err != nil {
		return nil, err
	}
	c, head := a.confirmed()[n.UUID], s.Head().Version
	d := wire.NodeDetails{
		Certificates: certificates(n), Client: []cluster.Digest{}, HostKeys: fingerprints(n.HostKeys), SSHKeys: []string{},
		HeadEpoch: head.Epoch, HeadVersion: head.Version, RPCUntil: known(c.LeaseUntil), SSHUntil: known(c.SSHUntil), Pending: []string{},
	}
	if n.Keys != nil {
		d.Client, d.Signing, d.SSHKeys = n.Keys.Client, n.Keys.Signing, fingerprints(n.Keys.SSH)
	}
	if !c.Version.IsZero() {
		d.LastContact = known(a.now().Add(-c.Age))
	}
	d.PendingHostKeys = pendingHostKeys(n.PendingHostKeys)
	d.Pending = append(d.Pending, pendingOf(s, n, c, d.Certificates)...)
	d.Pending = append(d.Pending, endedOf(d.Certificates, a.now())...)
	return d, nil
}

func pendingHostKeys(p *state.PendingHostKeys) *wire.PendingHostKeys {
	if p == nil {
		return nil
	}
	digest, err := p.Digest()
	if err != nil {
		return nil // a value marshals
	}
	return &wire.PendingHostKeys{HostKeys: fingerprints(p.Keys), SSHPort: p.Port, Since: p.Since, Rejected: p.Rejected, Digest: digest}
}

func fingerprints(keys []cluster.SSHKey) []string {
	out := []string{}
	for _, k := range keys {
		out = append(out, sshkeys.Fingerprint(k))
	}
	return out
}

// certificates reads what was issued; what cannot be read is left out.
func certificates(n *state.Node) []wire.NodeCertificate {
	out := []wire.NodeCertificate{}
	for _, c := range []struct {
		kind string
		der  []byte
		pins []cluster.Digest
	}{
		{state.CertServer, n.Certs.Server, n.Server},
		{state.CertIdentity, n.Certs.Identity, n.Identity},
		{state.CertCandidate, n.Certs.Candidate, nil},
	} {
		cert, err := pki.ParseCertDER(c.der)
		if err != nil {
			continue
		}
		id, err := pki.Identify(cert)
		if err != nil {
			continue
		}
		out = append(out, wire.NodeCertificate{
			Kind: c.kind, Digest: id.Digest, Pins: append([]cluster.Digest{}, c.pins...), Name: id.Name, Addresses: id.Addresses,
			NotBefore: id.NotBefore.UTC(), NotAfter: id.NotAfter.UTC(), RenewAt: id.RenewAt().UTC(),
		})
	}
	return out
}

// endedOf tells of certificates that have ended, because the node was off.
func endedOf(certs []wire.NodeCertificate, now time.Time) (out []string) {
	for _, c := range certs {
		switch limit := c.NotAfter.Add(pki.Grace); {
		case !now.After(c.NotAfter):
		case now.After(limit) && c.Kind != state.CertCandidate:
			out = append(out, fmt.Sprintf("its %s certificate has expired too long ago for a renewal: it is to be admitted again, gnt-node add --readd", c.Kind))
		default:
			out = append(out, fmt.Sprintf("its %s certificate has expired; it is renewed when the node is started again, before %s", c.Kind, limit.UTC().Format(time.RFC3339)))
		}
	}
	return out
}

// pendingOf lists, for people, what the cluster still waits for.
func pendingOf(s *state.State, n *state.Node, c NodeStatus, certs []wire.NodeCertificate) (out []string) {
	head := s.Head().Version
	if !n.Joined {
		out = append(out, "it has been admitted, and was not in touch yet")
	}
	if !n.Flags.Offline && !c.Version.IsZero() && head.Newer(c.Version) {
		out = append(out, fmt.Sprintf("it has confirmed map %s, and the newest is %s", c.Version, head))
	}
	for _, cert := range certs {
		if cert.Kind != state.CertCandidate && (cert.Name != n.Name || !slices.Equal(cert.Addresses, n.Addresses)) {
			out = append(out, fmt.Sprintf("its %s certificate is for its former name or addresses", cert.Kind))
		}
	}
	switch p := n.PendingHostKeys; {
	case p == nil:
	case p.Rejected:
		out = append(out, "its sshd has host keys or a port that were rejected; ssh from other nodes refuses it")
	default:
		out = append(out, "its sshd has other host keys or another port, which wait for gnt-node accept-host-keys; ssh from other nodes refuses it until then")
	}
	for _, j := range s.SortedJobs() {
		if !j.Status.Ended() && slices.ContainsFunc(j.Summary, func(t string) bool { return strings.Contains(t, "("+string(n.Name)+")") }) {
			out = append(out, fmt.Sprintf("job %d, %s, is %s", j.ID, strings.Join(j.Summary, ", "), j.Status))
		}
	}
	return out
}
