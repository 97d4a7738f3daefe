package state

import (
	"maps"
	"slices"
	"time"

	"rolekey/cluster"
	"rolekey/pki"
)

func (c *AdmissionCreate) apply(d *draft) error {
	r := c.Record
	if !validTime(r.Created) || !validTime(r.Expires) {
		return badFormat("admission record: times must be UTC, in whole milliseconds")
	}
	if n := d.NodeByName(r.Name); n != nil && n.UUID != r.Node {
		return inUse(r.Name)
	}
	if err := d.mayReadd(r.Node, r.Name); err != nil {
		return err
	}
	table := maps.Clone(d.Admissions)
	superseded, err := table.Add(r, d.now)
	if cluster.CodeOf(err) == cluster.CodeBusy && dropOldestEnded(table) {
		superseded, err = table.Add(r, d.now)
	}
	if err != nil {
		return err
	}
	d.Admissions, d.res.Superseded, d.res.Node = table, superseded, r.Node
	return nil
}

func inUse(name cluster.Name) error {
	return cluster.Errorf(cluster.CodeAlreadyExists, "Node %s is already in the configuration", name).
		WithHint("If the machine was set up again: gnt-node add --readd %s", name)
}

// mayReadd refuses a new life of a node whose old one has power: that is taken
// away first, and by itself, so that it does not depend on the new one.
func (d *draft) mayReadd(id cluster.NodeID, name cluster.Name) error {
	n := d.Nodes[id]
	switch {
	case n == nil || d.FeatureLevel < LevelSettings:
		return nil
	case id == d.Master:
		return conflict("Cannot readd the master node")
	case n.Name != name:
		return conflict("node %s is called %s now", name, n.Name)
	case n.Flags.MasterCandidate:
		return conflict("node %s is a master candidate, and loses that role before it is added again", n.Name).
			WithHint("gnt-node add --readd %s takes it away first", n.Name)
	}
	return nil
}

// dropOldestEnded makes room in a full table: a cluster may grow by hundreds of
// nodes in a day. A string whose record is gone is refused as unknown, so only
// the answer gets worse.
func dropOldestEnded(table pki.Table) bool {
	for _, r := range table.List() {
		if r.State == pki.RecordSpent || r.State == pki.RecordRevoked {
			delete(table, r.ID)
			return true
		}
	}
	return false
}

func (c *AdmissionRevoke) apply(d *draft) error {
	table := maps.Clone(d.Admissions)
	if _, err := table.Revoke(c.ID); err != nil {
		return err
	}
	d.Admissions = table
	return nil
}

func (c *AdmissionSpent) apply(d *draft) error {
	table := maps.Clone(d.Admissions)
	r, err := table.Spend(c.ID, c.Identity)
	if err != nil {
		return err
	}
	d.Admissions, d.res.Node = table, r.Node
	n := d.Nodes[r.Node]
	if n == nil {
		return conflict("node %s of admission record %s is not in the cluster", r.Node, r.ID)
	}
	if !n.Joined {
		joined := *n
		joined.Joined = true
		d.putNode(&joined)
	}
	return nil
}

func (c *NodeAdmit) apply(d *draft) error {
	before, err := d.Admissions.Lookup(c.Record)
	if err != nil {
		return err
	}
	table := maps.Clone(d.Admissions)
	r, err := table.Bind(c.Record, d.now, c.Name, c.Remote, c.Identity)
	if err != nil {
		return err
	}
	if err := c.checkAddresses(r); err != nil {
		return err
	}
	if r.Node != c.Node {
		return conflict("admission record %s is for node %s, not for %s", r.ID, r.Node, c.Node)
	}
	d.Admissions, d.res.Node = table, r.Node
	old := d.Nodes[r.Node]
	if before.State == pki.RecordBound {
		if old == nil || !slices.Contains(old.Identity, c.Identity) {
			return cluster.Errorf(cluster.CodeTokenUsed, "node %s was admitted with this string and is a member no more", r.Name).
				WithHint("Make a new one on the master: gnt-node add %s", r.Name)
		}
		return nil // the reply was lost, and the node asks again
	}
	return d.admit(c, old)
}

// checkAddresses holds the node to the addresses that the administrator named.
// Addresses that mean something else on every machine would lead the others to
// themselves; a cluster on one machine has no other.
func (c *NodeAdmit) checkAddresses(r pki.Record) error {
	for _, a := range c.Addresses {
		if !r.Allows(a) {
			return cluster.Errorf(cluster.CodeTokenNodeMismatch, "this admission string is bound to addresses %v; node %s claims %s", r.Addresses, c.Name, a).
				WithHint("Join with these addresses, or make a string with the right ones: gnt-node add %s --address ADDRESS", c.Name)
		}
		if (a.IsLoopback() || a.IsLinkLocalUnicast()) && !c.Remote.IsLoopback() {
			return badFormat("node %s cannot have address %s: other nodes do not reach it there", c.Name, a)
		}
	}
	return nil
}

// admit adds the node, or puts a node that is admitted again in place of its
// former incarnation.
func (d *draft) admit(c *NodeAdmit, old *Node) error {
	n := &Node{
		UUID: c.Node, Incarnation: c.Incarnation, Name: c.Name, Addresses: c.Addresses, Ports: c.Ports,
		Flags:    cluster.Flags{MasterCapable: c.MasterCapable, VMCapable: c.VMCapable},
		HostKeys: c.HostKeys, Server: []cluster.Digest{c.Server}, Identity: []cluster.Digest{c.Identity},
		Certs: Certs{Server: c.ServerCert, Identity: c.IdentityCert},
		CTime: d.now, MTime: d.now, Serial: 1, Tags: []string{},
	}
	if want := d.nextIncarnation(c.Node); c.Incarnation != want {
		return conflict("node %s: incarnation %d, want %d", c.Name, c.Incarnation, want)
	}
	if err := d.mayReadd(c.Node, c.Name); err != nil {
		return err
	}
	if old != nil {
		if old.UUID == d.Master {
			return conflict("Cannot readd the master node")
		}
		if old.Voter {
			return conflict("node %s votes: set it offline before it is added again", old.Name)
		}
		n.CTime, n.Serial, n.Tags = old.CTime, old.Serial+1, old.Tags
	}
	if err := d.checkUnique(n); err != nil {
		return err
	}
	d.putNode(n)
	return nil
}

// nextIncarnation returns what an admission of the node must say.
func (d *draft) nextIncarnation(id cluster.NodeID) uint64 {
	if n := d.Nodes[id]; n != nil {
		return n.Incarnation + 1
	}
	if t, ok := d.WasRemoved(id); ok {
		return t.Incarnation + 1
	}
	return 1
}

// NextIncarnation returns the incarnation that the next admission of a node
// has: 1 for one that was never here.
func (s *State) NextIncarnation(id cluster.NodeID) uint64 {
	return (&draft{State: s}).nextIncarnation(id)
}

// ByIdentity returns the node that holds the identity key with this pin, and
// for a key of a removed node its tombstone.
func (s *State) ByIdentity(pin cluster.Digest) (*Node, *Tombstone) {
	for _, n := range s.Nodes {
		if slices.Contains(n.Identity, pin) {
			return n, nil
		}
	}
	for _, t := range slices.Backward(s.Removed) {
		if slices.Contains(t.Identity, pin) {
			return nil, &t
		}
	}
	return nil, nil
}

// LiveAdmissions returns the strings that may still be used, the oldest first.
func (s *State) LiveAdmissions(now time.Time) []pki.Record {
	return slices.DeleteFunc(s.Admissions.List(), func(r pki.Record) bool {
		return r.State != pki.RecordOpen && r.State != pki.RecordBound || !now.Before(r.Expires)
	})
}
