package candmap

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"rolekey/cluster"
)

// The types of the roster's documents. They are not signed: the map names the
// index by hash, and the index the buckets.
const (
	RosterIndexType  = "application/vnd.rolekey.roster-index.v1+json"
	RosterIndexType2 = "application/vnd.rolekey.roster-index.v2+json" // with settings
	RosterBucketType = "application/vnd.rolekey.roster-bucket.v1+json"
)

const (
	maxIndexItems  = 32 + RosterBuckets
	maxBucketItems = MaxBucket / 16 // the leanest node needs more than 16 bytes for each of its values
)

// Roster is all nodes of the cluster, assembled and checked. It never changes;
// do not modify what its methods return.
type Roster struct {
	nodes      []RosterNode // sorted by UUID
	hash       cluster.Digest
	index      []byte
	settings   *Settings
	docs       map[cluster.Digest][]byte
	parts      map[cluster.Digest][]RosterNode // the buckets, if it was assembled
	byName     map[cluster.Name]*RosterNode
	byIdentity map[cluster.Digest]*RosterNode
	byServer   map[cluster.Digest]*RosterNode
}

// Hash returns the SHA-256 of the index: what a map names.
func (r *Roster) Hash() cluster.Digest { return r.hash }

// Index returns the index document.
func (r *Roster) Index() []byte { return r.index }

// Settings returns what the roster says of the whole cluster; nil in format 1.
func (r *Roster) Settings() *Settings { return r.settings }

// SSH returns how the nodes handle root's SSH keys.
func (r *Roster) SSH() cluster.SSHSettings {
	if r.settings == nil || r.settings.SSH == nil {
		return cluster.DefaultSSHSettings
	}
	return *r.settings.SSH
}

// Docs returns the index and the buckets, by hash.
func (r *Roster) Docs() map[cluster.Digest][]byte { return r.docs }

// Nodes returns all nodes, sorted by UUID.
func (r *Roster) Nodes() []RosterNode { return r.nodes }

// Node returns a node by its UUID, or nil.
func (r *Roster) Node(id cluster.NodeID) *RosterNode {
	i, ok := slices.BinarySearchFunc(r.nodes, id, func(n RosterNode, id cluster.NodeID) int {
		return bytes.Compare(n.UUID[:], id[:])
	})
	if !ok {
		return nil
	}
	return &r.nodes[i]
}

// ByName returns a node by its name, or nil.
func (r *Roster) ByName(name cluster.Name) *RosterNode { return r.byName[name] }

// ByIdentity returns the node whose identity key has this pin, or nil. It does
// not allocate.
func (r *Roster) ByIdentity(pin cluster.Digest) *RosterNode { return r.byIdentity[pin] }

// ByServer returns the node whose server key has this pin, or nil. It does not
// allocate.
func (r *Roster) ByServer(pin cluster.Digest) *RosterNode { return r.byServer[pin] }

// lacks reports whether a key that the older roster pins is not in this one. The
// older one may be nil.
func (r *Roster) lacks(old *Roster) bool {
	if old == nil || old == r {
		return false
	}
	for pin := range old.byIdentity {
		if r.byIdentity[pin] == nil {
			return true
		}
	}
	for pin := range old.byServer {
		if r.byServer[pin] == nil {
			return true
		}
	}
	return false
}

// RosterIndex lists the buckets of a roster; the zero digest is an empty one.
type RosterIndex struct {
	Count    int
	Buckets  [RosterBuckets]cluster.Digest
	Settings *Settings // nil: format 1
}

type wireIndex struct {
	Type    string           `json:"type"`
	Nodes   int              `json:"nodes"`
	Buckets []cluster.Digest `json:"buckets"`
}

type wireIndex2 struct {
	Type     string           `json:"type"`
	Settings *Settings        `json:"settings"`
	Nodes    int              `json:"nodes"`
	Buckets  []cluster.Digest `json:"buckets"`
}

type wireBucket struct {
	Type  string       `json:"type"`
	Nodes []RosterNode `json:"nodes"`
}

// bucketOf spreads nodes over the buckets by the hash of their UUID.
func bucketOf(id cluster.NodeID) int { return int(cluster.DigestOf(id[:])[0]) % RosterBuckets }

func (ri *RosterIndex) encode() ([]byte, error) {
	if ri.Settings == nil {
		return marshalWithin(wireIndex{RosterIndexType, ri.Count, ri.Buckets[:]}, MaxRosterIndex)
	}
	if err := ri.Settings.validate(); err != nil {
		return nil, err
	}
	return marshalWithin(wireIndex2{RosterIndexType2, ri.Settings, ri.Count, ri.Buckets[:]}, MaxRosterIndex)
}

func (s *Settings) validate() error {
	if _, err := cluster.ParseName(string(s.Name)); err != nil {
		return bad("name of the cluster: %v", err)
	}
	if s.Address != nil {
		if err := s.Address.Check(); err != nil {
			return bad("%v", err)
		}
	}
	if s.SSH != nil {
		if err := s.SSH.Check(); err != nil {
			return bad("%v", err)
		}
	}
	if len(s.CA) > MaxAuthorities || len(s.Gossip) > MaxGossipKeys {
		return bad("%d authorities and %d gossip keys, the limits are %d and %d", len(s.CA), len(s.Gossip), MaxAuthorities, MaxGossipKeys)
	}
	for _, der := range s.CA {
		if len(der) == 0 || len(der) > MaxAuthority {
			return bad("the certificate of an authority has %d bytes, want 1 to %d", len(der), MaxAuthority)
		}
	}
	return nil
}

// ParseRosterIndex reads an index whose hash is known.
func ParseRosterIndex(b []byte, want cluster.Digest) (*RosterIndex, error) {
	ri := new(RosterIndex)
	fill := func(nodes int, buckets []cluster.Digest) ([]byte, error) {
		if nodes < 1 || len(buckets) != RosterBuckets {
			return nil, bad("%d nodes in %d buckets, want at least 1 in %d", nodes, len(buckets), RosterBuckets)
		}
		ri.Count = nodes
		copy(ri.Buckets[:], buckets)
		return ri.encode()
	}
	var err error
	if isDocType(b, RosterIndexType) {
		err = parseHashed(b, want, RosterIndexType, MaxRosterIndex, maxIndexItems, func(w *wireIndex) ([]byte, error) {
			return fill(w.Nodes, w.Buckets)
		})
	} else {
		err = parseHashed(b, want, RosterIndexType2, MaxRosterIndex, maxIndexItems, func(w *wireIndex2) ([]byte, error) {
			if w.Settings == nil {
				return nil, bad("the settings are missing")
			}
			ri.Settings = w.Settings
			return fill(w.Nodes, w.Buckets)
		})
	}
	if err != nil {
		return nil, wrapCode("parse roster index", err)
	}
	return ri, nil
}

// Missing returns the buckets that have does not report, each once.
func (ri *RosterIndex) Missing(have func(cluster.Digest) bool) []cluster.Digest {
	var missing []cluster.Digest
	for _, d := range ri.Buckets {
		if !d.IsZero() && !have(d) {
			missing = append(missing, d)
		}
	}
	return missing
}

func encodeBucket(nodes []RosterNode) ([]byte, error) {
	w := wireBucket{RosterBucketType, slices.Clone(notNil(nodes))}
	for i := range w.Nodes {
		n := &w.Nodes[i]
		n.Addresses, n.HostKeys = notNil(n.Addresses), notNil(n.HostKeys)
		n.Server, n.Identity = notNil(n.Server), notNil(n.Identity)
	}
	return marshalWithin(w, MaxBucket)
}

func parseBucket(b []byte, want cluster.Digest) ([]RosterNode, error) {
	var nodes []RosterNode
	err := parseHashed(b, want, RosterBucketType, MaxBucket, maxBucketItems, func(w *wireBucket) ([]byte, error) {
		nodes = w.Nodes
		return encodeBucket(w.Nodes)
	})
	if err != nil {
		return nil, wrapCode("parse roster bucket", err)
	}
	return nodes, nil
}

// parseHashed checks the hash before anything else, then the type, then the
// canonical encoding.
func parseHashed[T any](b []byte, want cluster.Digest, docType string, maxBytes, maxItems int, encode func(*T) ([]byte, error)) error {
	if len(b) > maxBytes {
		return cluster.Errorf(cluster.CodeTooLarge, "%d bytes, the limit is %d", len(b), maxBytes)
	}
	if cluster.DigestOf(b) != want {
		return bad("hash is not %s", want.Short())
	}
	if err := checkDocType(b, docType); err != nil {
		return err
	}
	_, err := decodeCanonical(b, maxBytes, maxItems, encode)
	return err
}

// isDocType uses that a canonical document begins with its type.
func isDocType(b []byte, docType string) bool {
	head, _ := json.Marshal(docType) // a constant marshals
	return bytes.HasPrefix(b, append([]byte(`{"type":`), head...))
}

func checkDocType(b []byte, docType string) error {
	if isDocType(b, docType) {
		return nil
	}
	stem := docType[:strings.LastIndex(docType, ".v")+2]
	if bytes.HasPrefix(b, []byte(`{"type":"`+stem)) {
		return cluster.Errorf(cluster.CodeUnsupportedFormat, "not of the format %s", docType).
			WithHint("upgrade rolekey on this node")
	}
	return bad("not a document of type %s", docType)
}
