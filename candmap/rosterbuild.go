package candmap

import (
	"bytes"
	"slices"

	"rolekey/cluster"
)

// NewRoster checks the nodes and makes the documents; without settings in
// format 1. The order given does not matter; the slice is copied, what its
// elements point to is shared.
func NewRoster(nodes []RosterNode, settings *Settings) (*Roster, error) {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b RosterNode) int { return bytes.Compare(a.UUID[:], b.UUID[:]) })
	if err := validRoster(nodes, settings); err != nil {
		return nil, wrapCode("make roster", err)
	}
	var buckets [RosterBuckets][]RosterNode
	for _, n := range nodes {
		i := bucketOf(n.UUID)
		buckets[i] = append(buckets[i], n)
	}
	ri := RosterIndex{Count: len(nodes), Settings: settings}
	docs := map[cluster.Digest][]byte{}
	for i, b := range buckets {
		if len(b) == 0 {
			continue
		}
		doc, err := encodeBucket(b)
		if err != nil {
			return nil, wrapCode("make roster bucket", err)
		}
		ri.Buckets[i] = cluster.DigestOf(doc)
		docs[ri.Buckets[i]] = doc
	}
	index, err := ri.encode()
	if err != nil {
		return nil, wrapCode("make roster index", err)
	}
	docs[cluster.DigestOf(index)] = index
	return newRoster(nodes, &ri, index, docs), nil
}

// AssembleRoster reads a roster from its documents; doc returns nil for one
// that is not there. All hashes are checked here.
func AssembleRoster(want cluster.Digest, doc func(cluster.Digest) []byte) (*Roster, error) {
	return assembleRoster(nil, want, doc)
}

// assembleRoster takes from a roster that was assembled before, which may be nil,
// the buckets that both have: after a change of one node that is all but one.
func assembleRoster(before *Roster, want cluster.Digest, doc func(cluster.Digest) []byte) (*Roster, error) {
	index := doc(want)
	if index == nil {
		return nil, cluster.Errorf(cluster.CodeNotFound, "assemble roster: index %s is missing", want.Short())
	}
	ri, err := ParseRosterIndex(index, want)
	if err != nil {
		return nil, err
	}
	docs := map[cluster.Digest][]byte{want: index}
	parts := map[cluster.Digest][]RosterNode{}
	var nodes []RosterNode
	for i, d := range ri.Buckets {
		if d.IsZero() {
			continue
		}
		part, b, err := before.bucket(d, doc)
		if err != nil {
			return nil, err
		}
		if err := inBucket(part, i); err != nil {
			return nil, wrapCode("assemble roster", err)
		}
		nodes = append(nodes, part...)
		docs[d], parts[d] = b, part
	}
	if len(nodes) != ri.Count {
		return nil, bad("assemble roster: %d nodes, the index says %d", len(nodes), ri.Count)
	}
	slices.SortFunc(nodes, func(a, b RosterNode) int { return bytes.Compare(a.UUID[:], b.UUID[:]) })
	if err := validRoster(nodes, ri.Settings); err != nil {
		return nil, wrapCode("assemble roster", err)
	}
	r := newRoster(nodes, ri, index, docs)
	r.parts = parts
	return r, nil
}

// bucket returns the nodes of a bucket and its document.
func (r *Roster) bucket(d cluster.Digest, doc func(cluster.Digest) []byte) ([]RosterNode, []byte, error) {
	if r != nil && r.parts[d] != nil {
		return r.parts[d], r.docs[d], nil
	}
	b := doc(d)
	if b == nil {
		return nil, nil, cluster.Errorf(cluster.CodeNotFound, "assemble roster: bucket %s is missing", d.Short())
	}
	part, err := parseBucket(b, d)
	return part, b, err
}

// inBucket checks that a bucket is not empty, sorted, and holds what belongs
// there: a roster has one encoding only.
func inBucket(nodes []RosterNode, bucket int) error {
	if len(nodes) == 0 {
		return bad("bucket %d is listed but empty", bucket)
	}
	for i, n := range nodes {
		if bucketOf(n.UUID) != bucket {
			return bad("node %s is in the wrong bucket", n.UUID)
		}
		if i > 0 && bytes.Compare(nodes[i-1].UUID[:], n.UUID[:]) >= 0 {
			return bad("bucket %d is not sorted by UUID, each once", bucket)
		}
	}
	return nil
}

func newRoster(nodes []RosterNode, ri *RosterIndex, index []byte, docs map[cluster.Digest][]byte) *Roster {
	r := &Roster{
		nodes: nodes, index: index, settings: ri.Settings, hash: cluster.DigestOf(index), docs: docs,
		byName:     make(map[cluster.Name]*RosterNode, len(nodes)),
		byIdentity: make(map[cluster.Digest]*RosterNode, len(nodes)),
		byServer:   make(map[cluster.Digest]*RosterNode, len(nodes)),
	}
	for i := range nodes {
		n := &nodes[i]
		r.byName[n.Name] = n
		for _, d := range n.Identity {
			r.byIdentity[d] = n
		}
		for _, d := range n.Server {
			r.byServer[d] = n
		}
	}
	return r
}

// validRoster checks sorted nodes, each by itself and against the others.
func validRoster(nodes []RosterNode, settings *Settings) error {
	if len(nodes) == 0 {
		return bad("no nodes")
	}
	seen := newSeen()
	if settings != nil && settings.Address != nil {
		seen.add("addr", settings.Address.Address.Addr().String()) // no node's own
	}
	for i := range nodes {
		if i > 0 && nodes[i-1].UUID == nodes[i].UUID {
			return bad("node %s is listed twice", nodes[i].UUID)
		}
		if err := nodes[i].validate(seen); err != nil {
			return wrapCode("node "+nodes[i].UUID.String(), err)
		}
	}
	return nil
}

func (n *RosterNode) validate(seen seen) error {
	switch {
	case n.UUID.IsZero() || !inRange(n.Incarnation):
		return bad("uuid and incarnation must be set")
	case !n.Ports.Valid():
		return bad("a port is zero or used twice")
	case !n.Flags.Valid():
		return bad("its flags contradict one another")
	case len(n.HostKeys) > MaxHostKeys:
		return bad("%d host keys, the limit is %d", len(n.HostKeys), MaxHostKeys)
	}
	if err := seen.member(n.Name, n.Addresses); err != nil {
		return err
	}
	// Two machines made from one image may share host keys, so only pins must
	// be unique across nodes.
	for i, k := range n.HostKeys {
		if err := validSSHKey(k); err != nil {
			return err
		}
		if slices.ContainsFunc(n.HostKeys[:i], func(o cluster.SSHKey) bool { return bytes.Equal(o.Blob, k.Blob) }) {
			return bad("a host key is listed twice")
		}
	}
	if err := seen.pins("server pin", n.Server); err != nil {
		return err
	}
	return seen.pins("identity pin", n.Identity)
}
