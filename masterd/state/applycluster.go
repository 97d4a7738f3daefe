package state

import (
	"slices"

	"rolekey/cluster"
)

func (g *genesisWire) apply(d *draft) error {
	if len(g.CAKey) == 0 || len(g.CA.Cert) == 0 || len(g.CAKey) > MaxCertificate || len(g.CA.Cert) > MaxCertificate {
		return badFormat("genesis: CA certificate and key must be set, of at most %d bytes each", MaxCertificate)
	}
	if err := checkGossip(g.GossipKey); err != nil {
		return err
	}
	if _, err := cluster.ParseName(string(g.Cluster.Name)); err != nil || g.Cluster.UUID.IsZero() {
		return badFormat("genesis: cluster UUID and name must be set: %v", err)
	}
	n := g.Node
	n.CTime, n.MTime, n.Serial = d.now, d.now, 1
	n.Incarnation, n.Voter, n.Joined = 1, true, true
	n.Flags = cluster.Flags{MasterCandidate: true, MasterCapable: true, VMCapable: n.Flags.VMCapable}
	n.Tags = []string{}
	if err := n.checkCandidateCert(); err != nil {
		return err
	}
	d.Cluster = g.Cluster
	d.Cluster.Created = d.now
	d.Params, d.Recovery, d.FeatureLevel = g.Params, g.Recovery, max(g.FeatureLevel, 1)
	d.CA = CA{Cert: g.CA.Cert, Key: cluster.NewSecret(g.CAKey)}
	d.Gossip = cluster.NewSecret(g.GossipKey)
	d.Master = n.UUID
	d.putNode(&n)
	d.res.Node = n.UUID
	return nil
}

func (c *SetMaster) apply(d *draft) error {
	n := d.Nodes[c.Node]
	if n == nil || !n.listed() {
		return conflict("node %s is not a master candidate, so it cannot become master", c.Node)
	}
	d.Master, d.mapped = c.Node, true
	d.res.Node = c.Node
	return nil
}

func (c *SetVoters) apply(d *draft) error { return d.setVoters(&c.Voters) }

// setVoters makes exactly these candidates the map's voters; nil keeps those
// that are left.
func (d *draft) setVoters(voters *[]cluster.NodeID) error {
	if voters == nil {
		return nil
	}
	for i, id := range *voters {
		if n := d.Nodes[id]; n == nil || !n.listed() {
			return conflict("node %s is not a master candidate, so it cannot vote", id)
		}
		if slices.Contains((*voters)[:i], id) {
			return badFormat("voter %s is listed twice", id)
		}
	}
	for id, n := range d.Nodes {
		if votes := slices.Contains(*voters, id); votes != n.Voter {
			c := *n
			c.Voter = votes
			d.putNode(&c)
		}
	}
	d.mapped = true
	return nil
}

func (c *ParamsChange) apply(d *draft) error {
	d.Params, d.mapped = d.Params.Patch(c.Params), true
	return d.linkJob(c.Job)
}

func (c *FeatureLevel) apply(d *draft) error {
	if c.Level <= d.FeatureLevel {
		return conflict("feature level %d: it is %d already, and only rises", c.Level, d.FeatureLevel)
	}
	d.FeatureLevel, d.mapped = c.Level, true
	return nil
}

func (c *ClusterChange) apply(d *draft) error {
	if c.Name != nil {
		d.Cluster.Name, d.mapped = *c.Name, true
	}
	d.Cluster.Tags = mergeTags(d.Cluster.Tags, c.AddTags, c.DelTags)
	if len(d.Cluster.Tags) == 0 {
		d.Cluster.Tags = nil // absent, as before the first one
	}
	if len(d.Cluster.Tags) > MaxTags {
		return conflict("more than %d tags", MaxTags)
	}
	if err := CheckTags(d.Cluster.Tags); err != nil {
		return err
	}
	set(&d.QueueDrained, c.QueueDrained)
	return d.linkJob(c.Job)
}

func (c *gossipWire) apply(d *draft) error {
	if err := checkGossip(c.Key); err != nil {
		return err
	}
	d.Gossip = cluster.NewSecret(c.Key)
	return nil
}

// checkGossip accepts the sizes of an AES key.
func checkGossip(key []byte) error {
	if !slices.Contains([]int{16, 24, 32}, len(key)) {
		return badFormat("gossip key: want 16, 24 or 32 bytes")
	}
	return nil
}
