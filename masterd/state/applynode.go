package state

import (
	"bytes"
	"maps"
	"slices"

	"rolekey/cluster"
)

func (c *NodeChange) apply(d *draft) error {
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	if c.Flags != nil {
		n.setFlags(c.Flags.Apply(n.Flags), d.FeatureLevel)
	}
	if !n.Flags.MasterCandidate {
		if n.UUID == d.Master {
			return conflict("The master role can be changed only via master-failover")
		}
		n.Keys, n.Certs.Candidate, n.Voter = nil, nil, false
	}
	if c.Keys != nil {
		keys := *c.Keys
		n.Keys, n.Certs.Candidate = &keys, c.Candidate
	} else if len(c.Candidate) > 0 {
		return badFormat("node %s: a candidate certificate without its keys", n.Name)
	}
	if err := n.checkCandidateCert(); err != nil {
		return err
	}
	n.Tags = mergeTags(n.Tags, c.AddTags, c.DelTags)
	if err := d.setVoters(c.Voters); err != nil {
		return err
	}
	return d.linkJob(c.Job)
}

// setFlags changes the flags and remembers whether a node that is offline was a
// candidate. Builds of an earlier level do not, so nobody does until all can.
func (n *Node) setFlags(f cluster.Flags, level int) {
	was := n.Flags.MasterCandidate || n.WasCandidate
	n.WasCandidate = level >= LevelSettings && was && f.Offline && f.MasterCapable
	n.Flags = f
}

// checkCandidateCert checks that the stored candidate certificate is one that
// the map will list, so that handing it out again is of use.
func (n *Node) checkCandidateCert() error {
	if len(n.Certs.Candidate) == 0 || n.Keys == nil {
		return nil
	}
	if !slices.Contains(n.Keys.Client, cluster.DigestOf(n.Certs.Candidate)) {
		return badFormat("node %s: the candidate certificate is not among its client digests", n.Name)
	}
	return nil
}

func mergeTags(old, add, del []string) []string {
	if len(add)+len(del) == 0 {
		return old
	}
	tags := slices.DeleteFunc(slices.Concat(old, add), func(t string) bool { return slices.Contains(del, t) })
	slices.Sort(tags)
	return append([]string{}, slices.Compact(tags)...)
}

func (c *NodeAddress) apply(d *draft) error {
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	if c.Name != nil && *c.Name != n.Name && d.FeatureLevel >= LevelSettings {
		d.revokeAdmissions(n) // they would bring the old name back
	}
	set(&n.Name, c.Name)
	set(&n.Ports, c.Ports)
	set(&n.HostKeys, c.HostKeys)
	if len(c.Addresses) > 0 {
		n.Addresses = c.Addresses
	}
	if err := d.checkUnique(n); err != nil {
		return err
	}
	return d.linkJob(c.Job)
}

// checkUnique says in Ganeti's words what the roster would refuse as well.
func (d *draft) checkUnique(n *Node) error {
	for _, other := range d.SortedNodes() {
		if other.UUID == n.UUID {
			continue
		}
		if other.Name == n.Name {
			return inUse(n.Name)
		}
		for _, a := range n.Addresses {
			if slices.Contains(other.Addresses, a) {
				return conflict("New node ip address(es) conflict with existing node %s", other.Name)
			}
		}
	}
	return nil
}

func (c *NodeCerts) apply(d *draft) error {
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	switch c.Kind {
	case CertServer:
		err = renewPins(&n.Server, c.Pins)
		n.Certs.Server = newer(n.Certs.Server, c.Cert)
	case CertIdentity:
		err = renewPins(&n.Identity, c.Pins)
		n.Certs.Identity = newer(n.Certs.Identity, c.Cert)
	default:
		err = c.renewKeys(n)
	}
	if err != nil {
		return err
	}
	return d.linkJob(c.Job)
}

// renewKeys is the part of NodeCerts that concerns candidates only.
func (c *NodeCerts) renewKeys(n *Node) error {
	if n.Keys == nil {
		return conflict("node %s is not a master candidate, so it has no %.20s keys", n.Name, c.Kind)
	}
	keys := *n.Keys
	n.Keys = &keys
	switch c.Kind {
	case CertCandidate:
		if err := renewPins(&keys.Client, c.Pins); err != nil {
			return err
		}
		n.Certs.Candidate = newer(n.Certs.Candidate, c.Cert)
		if len(c.Cert) == 0 && !slices.Contains(keys.Client, cluster.DigestOf(n.Certs.Candidate)) {
			n.Certs.Candidate = nil // it was the retired one
		}
		return n.checkCandidateCert()
	case CertSSH:
		if err := keepsOne(n, c.SSH); err != nil {
			return err
		}
		keys.SSH = c.SSH
	case CertSigning:
		keys.Signing, keys.RenewSigning = c.Signing, false
	default:
		return badFormat("certificate kind %.40q", c.Kind)
	}
	return nil
}

// keepsOne refuses a list of SSH keys that shares none with the node's.
func keepsOne(n *Node, next []cluster.SSHKey) error {
	kept := slices.ContainsFunc(next, func(k cluster.SSHKey) bool { return hasKey(n.Keys.SSH, k) })
	if !kept && len(next) > 0 && len(n.Keys.SSH) > 0 {
		return conflict("the new list of SSH keys of node %s keeps none of the old one", n.Name)
	}
	return nil
}

func hasKey(keys []cluster.SSHKey, k cluster.SSHKey) bool {
	return slices.ContainsFunc(keys, func(have cluster.SSHKey) bool {
		return have.Type == k.Type && bytes.Equal(have.Blob, k.Blob)
	})
}

func renewPins(pins *[]cluster.Digest, to []cluster.Digest) error {
	if !slices.ContainsFunc(to, func(d cluster.Digest) bool { return slices.Contains(*pins, d) }) {
		return conflict("the new list of pins keeps none of the old one")
	}
	*pins = to
	return nil
}

func newer(old, cert []byte) []byte {
	if len(cert) == 0 {
		return old
	}
	return cert
}

func (c *NodeRemove) apply(d *draft) error {
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	if n.UUID == d.Master {
		return conflict("Node is the master node, failover to another node is required")
	}
	delete(d.Nodes, n.UUID)
	d.Removed = append(slices.Clip(d.Removed), Tombstone{n.UUID, n.Incarnation, n.Name, n.Identity, d.now})
	if len(d.Removed) > MaxRemoved {
		d.Removed = d.Removed[len(d.Removed)-MaxRemoved:]
	}
	d.revokeAdmissions(n)
	if err := d.setVoters(c.Voters); err != nil {
		return err
	}
	return d.linkJob(c.Job)
}

// revokeAdmissions makes the strings of a removed node worthless, so that an
// unanswered request cannot bring it back.
func (d *draft) revokeAdmissions(n *Node) {
	table := maps.Clone(d.Admissions)
	for id, r := range table {
		if r.Node != n.UUID && r.Name != n.Name {
			continue
		}
		if revoked, err := r.Revoke(); err == nil {
			table[id] = revoked
		}
	}
	d.Admissions = table
}
