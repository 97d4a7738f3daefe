package rpc

import (
	"cmp"
	"net/netip"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

// Paths on the daemons' unix sockets. Only uid 0 and the daemon's own uid may
// connect; there is no TLS and no gate.
const (
	LocalInit   = "/local/v1/init"   // noded, POST InitRequest -> InitReply
	LocalJoin   = "/local/v1/join"   // noded, POST JoinRequest -> JoinReply
	LocalLeave  = "/local/v1/leave"  // noded, POST {} -> {}
	LocalTrust  = "/local/v1/trust"  // noded, POST TrustRequest -> TrustReply
	LocalStatus = "/local/v1/status" // noded, GET -> LocalStatusReply
	LocalEvict  = "/local/v1/evict"  // noded, POST EvictRequest -> EvictReply; GET -> EvictReply
	LocalPeers  = "/local/v1/peers"  // noded, POST PeersRequest -> PeersReply
	LocalView   = "/local/v1/view"   // noded, GET ?after=E.V&lease=N -> LocalViewReply, long poll

	LocalBootstrap   = "/local/v1/bootstrap"    // masterd, POST BootstrapRequest -> BootstrapReply
	LocalKeysCreate  = "/local/v1/keys/create"  // masterd, POST LocalKeysRequest -> CandidateKeys (no SSH)
	LocalKeysDestroy = "/local/v1/keys/destroy" // masterd, POST {} -> KeyDestroyReply
	LocalKeysState   = "/local/v1/keys"         // masterd, GET -> LocalKeysReply
	LocalFailover    = "/local/v1/failover"     // masterd, POST FailoverRequest -> FailoverReply
	LocalEvictions   = "/local/v1/evictions"    // masterd, GET -> EvictionsReply
)

// InitRequest makes this node the first of a new cluster.
type InitRequest struct {
	Cluster           cluster.Name     `json:"cluster"`
	Node              cluster.Name     `json:"node,omitempty"`
	Addresses         []netip.Addr     `json:"addresses"`          // empty: from noded.toml
	RecoveryRecipient []string         `json:"recovery_recipient"` // age or ssh public keys
	NoRecoveryKey     bool             `json:"no_recovery_key"`
	CandidatePoolSize int              `json:"candidate_pool_size"`
	LeaseSeconds      uint32           `json:"lease_seconds"`
	SSHLeaseSeconds   uint32           `json:"ssh_lease_seconds"`
	Policy            cluster.Policy   `json:"policy,omitempty"`
	SSHReach          cluster.SSHReach `json:"ssh_reach,omitempty"`
	SSHSetup          bool             `json:"ssh_setup"`

	SSHAuthorize  cluster.SSHAuthorize  `json:"ssh_authorize,omitempty"` // empty: the default
	SSHKeyMode    cluster.SSHKeyMode    `json:"ssh_key_mode,omitempty"`
	SSHKeyType    string                `json:"ssh_key_type,omitempty"`
	SSHKeyBits    int                   `json:"ssh_key_bits,omitempty"`
	SSHKeyStorage cluster.SSHKeyStorage `json:"ssh_key_storage,omitempty"`

	MasterAddress *cluster.MasterAddress `json:"master_address,omitempty"` // nil: the cluster has none
}

// SSHSettings returns how the new cluster handles SSH keys.
func (r InitRequest) SSHSettings() cluster.SSHSettings {
	d := cluster.DefaultSSHSettings
	return cluster.SSHSettings{
		KeyMode: cmp.Or(r.SSHKeyMode, d.KeyMode), KeyType: cmp.Or(r.SSHKeyType, d.KeyType), KeyBits: r.SSHKeyBits,
		Storage: cmp.Or(r.SSHKeyStorage, d.Storage), Authorize: cmp.Or(r.SSHAuthorize, d.Authorize),
	}
}

// InitReply tells what was made.
type InitReply struct {
	Cluster      cluster.UUID    `json:"cluster"`
	Node         cluster.NodeID  `json:"node"`
	Version      cluster.Version `json:"version"`
	Hash         cluster.Digest  `json:"hash"`
	RecoveryFile string          `json:"recovery_file"` // "" without a recovery key
	Completed    bool            `json:"completed"`     // an interrupted init was finished
}

// JoinRequest carries the admission string that gnt-node add printed.
type JoinRequest struct {
	Token     string       `json:"token"`
	Addresses []netip.Addr `json:"addresses"` // empty: from noded.toml
}

// JoinReply tells where the node now belongs.
type JoinReply struct {
	Cluster cluster.UUID    `json:"cluster"`
	Node    cluster.NodeID  `json:"node"`
	Name    cluster.Name    `json:"name"`
	Version cluster.Version `json:"version"`
}

// TrustRequest names the map that local root vouches for, by the hash of its
// payload: the node asks others for the map itself.
type TrustRequest struct {
	Hash cluster.Digest `json:"hash"`
}

// TrustReply tells what is in force now.
type TrustReply struct {
	Version  cluster.Version `json:"version"`
	Previous cluster.Version `json:"previous"`       // what was held before; zero: none. Equal to Version: it was held already
	From     cluster.Name    `json:"from,omitempty"` // who gave it; "" if it was held already
	Fresh    bool            `json:"fresh"`
	Durable  bool            `json:"durable"`
	Problems []string        `json:"problems"` // in force, but something else went wrong
}

// PeersRequest says where other nodes are, while the map does not.
type PeersRequest struct {
	Clear bool       `json:"clear"` // forget what was said before
	Peers []PeerHint `json:"peers"`
}

// PeerHint is where one node is. Who is there is for the map to say.
type PeerHint struct {
	Node      string       `json:"node"` // name or UUID
	Addresses []netip.Addr `json:"addresses"`
}

// PeersReply lists all that is known by hints.
type PeersReply struct {
	Peers []PeerHint `json:"peers"`
}

// LocalStatusReply tells the command line where this node stands.
type LocalStatusReply struct {
	State   string          `json:"state"` // "none", "initializing", "joining", "member", "removed"
	Cluster cluster.UUID    `json:"cluster"`
	Node    cluster.NodeID  `json:"node"`
	Name    cluster.Name    `json:"name,omitempty"`
	Role    string          `json:"role"`
	Master  cluster.Name    `json:"master,omitempty"`
	Version cluster.Version `json:"version"`
	Hash    cluster.Digest  `json:"hash"`
	Fresh   bool            `json:"fresh"`
	Problem string          `json:"problem"` // for people: why all is not well; "" if it is
}

// LocalViewReply is what masterd needs of its node: verified by noded, which
// runs as root on the same machine.
type LocalViewReply struct {
	Cluster     cluster.UUID       `json:"cluster"`
	Node        cluster.NodeID     `json:"node"`
	Incarnation uint64             `json:"incarnation"`
	Addresses   []netip.Addr       `json:"addresses"`
	Ports       cluster.Ports      `json:"ports"`
	CA          []byte             `json:"ca"`     // DER; the first of CAs
	Map         candmap.Envelope   `json:"map"`    // the current one
	Chain       []candmap.Envelope `json:"chain"`  // authority changes and recent maps before it
	Beacon      *candmap.Envelope  `json:"beacon"` // the newest one heard
	Docs        [][]byte           `json:"docs"`
	Fresh       bool               `json:"fresh"`
	LastHeard   time.Time          `json:"last_heard"`
	Term        uint64             `json:"term"` // of the newest stamp obeyed
	Serial      uint64             `json:"serial"`
	Evicted     []Eviction         `json:"evicted,omitempty"`

	Hints map[cluster.NodeID][]netip.Addr `json:"hints,omitempty"` // see PeersRequest

	CAs [][]byte `json:"cas,omitempty"` // DER: all that are trusted, if more than one is
}

// BootstrapRequest asks masterd to found a cluster with this node alone.
// Asked again with the same cluster and node it answers the same.
type BootstrapRequest struct {
	Cluster  cluster.UUID     `json:"cluster"`
	Node     cluster.NodeID   `json:"node"`
	Init     InitRequest      `json:"init"` // recipients are not needed
	Ports    cluster.Ports    `json:"ports"`
	Server   []byte           `json:"server"`   // PKCS#10, DER
	Identity []byte           `json:"identity"` // PKCS#10, DER
	HostKeys []cluster.SSHKey `json:"host_keys"`
	SSH      []cluster.SSHKey `json:"ssh"`
	Recovery candmap.Recovery `json:"recovery"`
	Now      time.Time        `json:"now"`
}

// BootstrapReply carries what noded installs.
type BootstrapReply struct {
	CA       []byte           `json:"ca"`
	Server   []byte           `json:"server"`
	Identity []byte           `json:"identity"`
	Gossip   []byte           `json:"gossip"`
	Map      candmap.Envelope `json:"map"`
	Docs     [][]byte         `json:"docs"`
}

// LocalKeysRequest asks masterd for candidate keys of its node.
type LocalKeysRequest struct {
	Cluster     cluster.UUID   `json:"cluster"`
	Node        cluster.NodeID `json:"node"`
	Incarnation uint64         `json:"incarnation"`
	Name        cluster.Name   `json:"name"`
	Certificate []byte         `json:"certificate"` // DER; empty: none yet

	Next    bool          `json:"next,omitempty"` // asks for the client key that is to be used next
	Signing *SigningOrder `json:"signing,omitempty"`
}

// LocalKeysReply tells whether masterd holds candidate keys.
type LocalKeysReply struct {
	Present bool             `json:"present"`
	Client  []cluster.Digest `json:"client"`
}

// FailoverRequest moves the master role while all is well. On a voter, without
// a name, that voter takes it over; on the master it is handed to the candidate
// named.
type FailoverRequest struct {
	To string `json:"to,omitempty"` // name or UUID
}

// FailoverReply tells who is in office.
type FailoverReply struct {
	Master   cluster.Name    `json:"master"`
	Previous cluster.Name    `json:"previous"`
	Version  cluster.Version `json:"version"` // of the map that names it
	Steps    []string        `json:"steps"`   // for people: what was done
}

// Eviction is a candidate that local root wants refused, in one life of it.
type Eviction struct {
	Node        cluster.NodeID `json:"node"`
	Incarnation uint64         `json:"incarnation"`
	Name        cluster.Name   `json:"name,omitempty"` // when it was evicted
	Since       time.Time      `json:"since"`
}

// EvictRequest evicts a candidate on this node, or takes that back.
type EvictRequest struct {
	Node string `json:"node"` // name or UUID
	Undo bool   `json:"undo,omitempty"`
}

// EvictReply tells whom this node refuses. Problem says, for people, why
// something does not follow yet: noded goes on trying.
type EvictReply struct {
	Evicted []Eviction `json:"evicted"`
	Changed bool       `json:"changed"` // by this request
	Problem string     `json:"problem,omitempty"`
}

// EvictionsReply tells what the voters, asked now, say that they have evicted.
type EvictionsReply struct {
	Voters []VoterEvictions `json:"voters"` // of the map in force
}

// VoterEvictions is what one voter says.
type VoterEvictions struct {
	Node    cluster.NodeID   `json:"node"`
	Name    cluster.Name     `json:"name"`
	Self    bool             `json:"self"`
	Evicted []cluster.NodeID `json:"evicted"`
	Problem string           `json:"problem,omitempty"` // why it says nothing
}
