package state

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
)

// Format is the number of the state's own format, in snapshots.
const Format = 1

// State is the whole replicated intent. It is immutable.
type State struct {
	Cluster      Cluster                  `json:"cluster"`
	Params       Params                   `json:"params"`
	CA           CA                       `json:"ca"`
	Gossip       cluster.Secret           `json:"-"`
	GossipToo    cluster.Secret           `json:"-"` // while it is being changed: the other key
	Recovery     candmap.Recovery         `json:"recovery"`
	FeatureLevel int                      `json:"feature_level"`
	Master       cluster.NodeID           `json:"master"`
	MasterTerm   uint64                   `json:"master_term"` // raft term in which Master took office
	Nodes        map[cluster.NodeID]*Node `json:"nodes"`
	Removed      []Tombstone              `json:"removed"` // oldest first
	Chain        []ChainEntry             `json:"chain"`   // oldest first; the last one is the head
	Jobs         map[int64]*Job           `json:"jobs"`
	NextJob      int64                    `json:"next_job"`
	Admissions   pki.Table                `json:"admissions"`
	QueueDrained bool                     `json:"queue_drained,omitempty"` // no new jobs are taken
	// Shared are the cluster's own SSH keys while they are or become shared:
	// none, one, or the one before and the one to come.
	Shared []SharedKey `json:"shared_ssh,omitempty"`
	RAPI   RAPI        `json:"rapi,omitzero"`

	// Derived from the above, so that readers need not do it again.
	headMap *candmap.Map
	roster  *candmap.Roster
	index   jobIndex
}

// Cluster names the cluster.
type Cluster struct {
	UUID    cluster.UUID `json:"uuid"`
	Name    cluster.Name `json:"name"`
	Created time.Time    `json:"created"`
	Tags    []string     `json:"tags,omitempty"`
}

// CA is the cluster's certificate authority. The key is in no form of the
// state but the snapshot.
type CA struct {
	Cert []byte         `json:"cert"`           // DER
	Key  cluster.Secret `json:"-"`              // PKCS#8, DER
	Next *NextCA        `json:"next,omitempty"` // while it is being changed: trusted too
	Old  [][]byte       `json:"old,omitempty"`  // same: certificates that are still trusted
}

// Tombstone remembers a removed node, so that it can be told when it returns.
type Tombstone struct {
	UUID        cluster.NodeID   `json:"uuid"`
	Incarnation uint64           `json:"incarnation"`
	Name        cluster.Name     `json:"name"`
	Identity    []cluster.Digest `json:"identity"` // pins of its identity certificates
	Removed     time.Time        `json:"removed"`
}

// New returns the state before the first command: no cluster.
func New() *State {
	return &State{
		Nodes: map[cluster.NodeID]*Node{}, Jobs: map[int64]*Job{}, NextJob: 1, Admissions: pki.Table{},
		Removed: []Tombstone{}, Chain: []ChainEntry{},
	}
}

// Founded reports whether a cluster exists.
func (s *State) Founded() bool { return !s.Cluster.UUID.IsZero() }

// Node returns a node, or nil.
func (s *State) Node(id cluster.NodeID) *Node { return s.Nodes[id] }

// NodeByName returns the node with that name, or nil.
func (s *State) NodeByName(name cluster.Name) *Node {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// SortedNodes returns all nodes by name.
func (s *State) SortedNodes() []*Node {
	return slices.SortedFunc(maps.Values(s.Nodes), func(a, b *Node) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), CompareID(a.UUID, b.UUID))
	})
}

// Candidates returns the nodes that the map lists, by UUID.
func (s *State) Candidates() []*Node {
	return s.sortedIDs((*Node).listed)
}

// Voters returns the map's voters, by UUID.
func (s *State) Voters() []cluster.NodeID {
	voters := s.sortedIDs(func(n *Node) bool { return n.Voter })
	ids := make([]cluster.NodeID, len(voters))
	for i, n := range voters {
		ids[i] = n.UUID
	}
	return ids
}

func (s *State) sortedIDs(keep func(*Node) bool) []*Node {
	var out []*Node
	for _, n := range s.Nodes {
		if keep(n) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *Node) int { return CompareID(a.UUID, b.UUID) })
	return out
}

// Role returns the present role of a node; RoleRegular for an unknown one.
func (s *State) Role(id cluster.NodeID) cluster.Role {
	n := s.Nodes[id]
	if n == nil {
		return cluster.RoleRegular
	}
	return n.Flags.Role(id == s.Master)
}

// WasRemoved returns the newest tombstone of a node by its UUID.
func (s *State) WasRemoved(id cluster.NodeID) (Tombstone, bool) {
	for _, t := range slices.Backward(s.Removed) {
		if t.UUID == id {
			return t, true
		}
	}
	return Tombstone{}, false
}

// Roster returns the roster that the head of the chain names; nil before the
// cluster exists.
func (s *State) Roster() *candmap.Roster { return s.roster }

// HeadMap returns the newest map; nil before the cluster exists. Its slices
// must not be written to.
func (s *State) HeadMap() *candmap.Map { return s.headMap }

// CompareID orders UUIDs by their bytes, the order of lists in the map.
func CompareID(a, b cluster.UUID) int { return slices.Compare(a[:], b[:]) }
