package jobs

import (
	"fmt"
	"slices"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// issuing makes certificates for what nodes asked for.
type issuing struct {
	s    *state.State
	ca   *pki.CA
	at   time.Time
	pins map[cluster.Digest]cluster.NodeID // whose is which
}

// pinsOf lists the keys that the roster knows.
func pinsOf(s *state.State) map[cluster.Digest]cluster.NodeID {
	pins := map[cluster.Digest]cluster.NodeID{}
	for _, n := range s.SortedNodes() {
		for _, p := range slices.Concat(n.Server, n.Identity) {
			pins[p] = n.UUID
		}
	}
	return pins
}

var certKinds = map[string]pki.Kind{
	state.CertServer: pki.KindServer, state.CertIdentity: pki.KindIdentity, state.CertCandidate: pki.KindCandidate,
}

// all issues what one node asked for, which must be what it was asked to.
func (i *issuing) all(n *state.Node, kinds []string, requests []rpc.CertRequest) (out []state.NodeCerts, err error) {
	if len(requests) != len(kinds) {
		return nil, fmt.Errorf("node %s answers %d requests for certificates instead of %d", n.Name, len(requests), len(kinds))
	}
	for at, req := range requests {
		if req.Kind != kinds[at] {
			return nil, fmt.Errorf("node %s asks for a certificate that it was not asked about", n.Name)
		}
		c, err := i.one(n, req)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", n.Name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func (i *issuing) one(n *state.Node, req rpc.CertRequest) (state.NodeCerts, error) {
	csr, err := pki.ParseCSR(req.CSR)
	if err != nil {
		return state.NodeCerts{}, err
	}
	pins := n.Pins(req.Kind)
	used := pins[len(pins)-1]
	if slices.Contains(pins, req.Used) {
		used = req.Used
	}
	// A key may be listed already because the node was about to renew by itself.
	owner, known := i.pins[csr.Pin]
	if known && (owner != n.UUID || !slices.Contains(pins, csr.Pin)) || csr.Pin == used {
		return state.NodeCerts{}, fmt.Errorf("it asks for a %s certificate for a key that is in use", req.Kind)
	}
	i.pins[csr.Pin] = n.UUID
	der, err := i.ca.Issue(pki.Request{Kind: certKinds[req.Kind], Node: n.UUID, Name: n.Name, Addresses: n.Addresses, PublicKey: csr.PublicKey}, i.at)
	if err != nil {
		return state.NodeCerts{}, err
	}
	pin := csr.Pin
	if req.Kind == state.CertCandidate {
		pin = cluster.DigestOf(der)
	}
	return state.NodeCerts{Node: n.UUID, Kind: req.Kind, Cert: der, Pins: []cluster.Digest{used, pin}, Was: pins}, nil
}
