package state

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"rolekey/cluster"
)

// Steps of CAChange.
const (
	CAPrepare = "prepare" // all nodes are to trust the next authority too
	CASwitch  = "switch"  // the next authority issues; the one before is still trusted
	CARetire  = "retire"  // nothing but the authority that issues is trusted
	CAAbort   = "abort"   // there is no next authority any more
)

// NextCA is the certificate authority to come.
type NextCA struct {
	Cert []byte         `json:"cert"` // DER
	Key  cluster.Secret `json:"-"`    // PKCS#8, DER
}

// Roots returns the certificates of all authorities that nodes are to trust,
// that which issues first.
func (c *CA) Roots() [][]byte {
	out := [][]byte{c.Cert}
	if c.Next != nil {
		out = append(out, c.Next.Cert)
	}
	return append(out, c.Old...)
}

// CAChange is a phase of the change to another certificate authority.
type CAChange struct {
	Step string
	Next *NextCA // of CAPrepare
	Job  *JobUpdate
}

type caWire struct {
	Step string     `json:"step"`
	Cert []byte     `json:"cert,omitempty"`
	Key  []byte     `json:"key,omitempty"`
	Job  *JobUpdate `json:"job,omitempty"`
}

func (c CAChange) wire() any {
	w := caWire{Step: c.Step, Job: c.Job}
	if c.Next != nil {
		w.Cert, w.Key = c.Next.Cert, c.Next.Key.Reveal()
	}
	return w
}

func (c *caWire) apply(d *draft) error {
	if (c.Step == CAPrepare) != (len(c.Cert) > 0) || len(c.Cert) > MaxCertificate || len(c.Key) > MaxCertificate || (len(c.Key) > 0) != (len(c.Cert) > 0) {
		return badFormat("CA: certificate and key, of at most %d bytes each, belong to the step %s", MaxCertificate, CAPrepare)
	}
	ca := &d.CA
	switch c.Step {
	case CAPrepare:
		if ca.Next != nil || len(ca.Old) > 0 {
			return conflict("the CA is being changed already")
		}
		if bytes.Equal(c.Cert, ca.Cert) {
			return conflict("the next CA is the present one")
		}
		ca.Next = &NextCA{c.Cert, cluster.NewSecret(c.Key)}
	case CASwitch:
		if ca.Next == nil {
			return conflict("there is no next CA")
		}
		ca.Old = [][]byte{ca.Cert}
		ca.Cert, ca.Key, ca.Next = ca.Next.Cert, ca.Next.Key, nil
	case CARetire:
		if len(ca.Old) == 0 {
			return conflict("there is no former CA")
		}
		ca.Old = nil
	case CAAbort:
		if ca.Next == nil {
			return conflict("there is no next CA")
		}
		ca.Next = nil
	default:
		return badFormat("CA: step %.40q", c.Step)
	}
	d.mapped = true
	return d.linkJob(c.Job)
}

func (c *CA) check() error {
	if len(c.Old) > 1 || c.Next != nil && (len(c.Old) > 0 || len(c.Next.Cert) == 0 || c.Next.Key.IsZero()) {
		return errors.New("CA: at most one authority is to come or former, with its certificate and key")
	}
	return nil
}

// NodesCerts is a phase of a renewal for many nodes, in one map. Stale marks
// nodes, after that.
type NodesCerts struct {
	Certs []NodeCerts `json:"certs,omitempty"` // without jobs of their own
	Stale []StaleNode `json:"stale,omitempty"`
	Job   *JobUpdate  `json:"job,omitempty"`
}

// StaleNode is a node that a renewal has not reached: its signing key is to be
// replaced, or else its certificates of before a time; zero: nothing is left to
// do for them.
type StaleNode struct {
	Node    cluster.NodeID `json:"node"`
	Since   time.Time      `json:"since,omitzero"`
	Signing bool           `json:"signing,omitempty"`
}

func (s *StaleNode) mark(n *Node) error {
	switch {
	case !s.Signing:
		n.RenewBefore = s.Since
	case !s.Since.IsZero():
		return badFormat("certificates: node %s: a signing key has no date", n.Name)
	case n.Keys == nil:
		return conflict("node %s is not a master candidate, so it has no signing key", n.Name)
	default:
		keys := *n.Keys
		keys.RenewSigning = true
		n.Keys = &keys
	}
	return nil
}

func (c *NodesCerts) apply(d *draft) error {
	if len(c.Certs)+len(c.Stale) == 0 {
		return badFormat("certificates: no node is named")
	}
	for i := range c.Certs {
		if c.Certs[i].Job != nil {
			return badFormat("certificates: a job within a list")
		}
		if err := c.Certs[i].apply(d); err != nil {
			return err
		}
	}
	for _, s := range c.Stale {
		n, err := d.node(s.Node)
		if err != nil {
			return err
		}
		if !s.Since.IsZero() && !validTime(s.Since) {
			return badFormat("certificates: %s is no time", s.Since)
		}
		if err := s.mark(n); err != nil {
			return err
		}
	}
	d.mapped = true
	return d.linkJob(c.Job)
}

// GossipKeys replaces the gossip keys: one, or two while they overlap. Nodes
// send with the first and understand all. A key that is to be sent with must be
// understood before.
type GossipKeys struct {
	Keys []cluster.Secret
	Job  *JobUpdate
}

type gossipKeysWire struct {
	Keys [][]byte   `json:"keys"`
	Job  *JobUpdate `json:"job,omitempty"`
}

func (c GossipKeys) wire() any {
	w := gossipKeysWire{Job: c.Job}
	for _, k := range c.Keys {
		w.Keys = append(w.Keys, k.Reveal())
	}
	return w
}

func (c *gossipKeysWire) apply(d *draft) error {
	if len(c.Keys) < 1 || len(c.Keys) > 2 {
		return badFormat("%d gossip keys, want 1 or 2", len(c.Keys))
	}
	for _, k := range c.Keys {
		if err := checkGossip(k); err != nil {
			return err
		}
	}
	known := slices.ContainsFunc(d.GossipKeys(), func(k cluster.Secret) bool { return bytes.Equal(k.Reveal(), c.Keys[0]) })
	if !known {
		return conflict("the first gossip key is one that no node has yet")
	}
	d.Gossip, d.GossipToo = cluster.NewSecret(c.Keys[0]), cluster.Secret{}
	if len(c.Keys) == 2 {
		if bytes.Equal(c.Keys[0], c.Keys[1]) {
			return badFormat("one gossip key is listed twice")
		}
		d.GossipToo = cluster.NewSecret(c.Keys[1])
	}
	d.mapped = true
	return d.linkJob(c.Job)
}

// GossipKeys returns the keys that nodes are to understand; they send with the
// first.
func (s *State) GossipKeys() []cluster.Secret {
	if s.GossipToo.IsZero() {
		return []cluster.Secret{s.Gossip}
	}
	return []cluster.Secret{s.Gossip, s.GossipToo}
}

// gossipDigests tell nodes which keys they need, and no key.
func (s *State) gossipDigests() []cluster.Digest {
	var out []cluster.Digest
	for _, k := range s.GossipKeys() {
		out = append(out, cluster.DigestOf(k.Reveal()))
	}
	return out
}

// renewSecrets is the part of a snapshot that reveals what a renewal has made.
type renewSecrets struct {
	NextCAKey []byte `json:"next_ca_key,omitempty"`
	GossipToo []byte `json:"gossip_too,omitempty"`
}

func (s *State) revealRenewal() renewSecrets {
	out := renewSecrets{GossipToo: s.GossipToo.Reveal()}
	if s.CA.Next != nil {
		out.NextCAKey = s.CA.Next.Key.Reveal()
	}
	return out
}

func (s *State) takeRenewal(w renewSecrets) error {
	if len(w.GossipToo) > 0 {
		s.GossipToo = cluster.NewSecret(w.GossipToo)
	}
	if (s.CA.Next != nil) != (len(w.NextCAKey) > 0) {
		return errors.New("the key of the next CA is missing, or one too many")
	}
	if s.CA.Next != nil {
		s.CA.Next.Key = cluster.NewSecret(w.NextCAKey)
	}
	return nil
}
