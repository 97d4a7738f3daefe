package rpc

import (
	"encoding/json"
	"net/netip"
	"strings"
	"sync"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

// VersionReply answers MethodVersion.
type VersionReply struct {
	Software string `json:"software"`
	Features int    `json:"features"` // highest feature_level the daemon knows
	Daemon   string `json:"daemon"`
}

// HealthReply answers MethodHealth. It tells nothing that a stranger could use.
type HealthReply struct {
	OK      bool            `json:"ok"`
	Version cluster.Version `json:"version"`
	Fresh   bool            `json:"fresh"`
}

// MapDelivery carries maps, oldest first, and roster documents that they need.
type MapDelivery struct {
	Maps []candmap.Envelope `json:"maps"`
	Docs [][]byte           `json:"docs"`

	text func() ([]byte, error)
}

// Shared returns a delivery that is encoded once, for however many nodes: to a
// thousand that hold nothing yet goes a megabyte each.
func (d MapDelivery) Shared() MapDelivery {
	d.text = sync.OnceValues(func() ([]byte, error) { return json.Marshal(d) })
	return d
}

func (d MapDelivery) encode() ([]byte, error) {
	if d.text != nil {
		return d.text()
	}
	return json.Marshal(d)
}

// SSHDProblem begins the problems that do not make a map less enforced: sshd
// lets in fewer than it should.
const SSHDProblem = "sshd: "

// MapAck tells what the node enforces after a delivery of a map or a beacon.
type MapAck struct {
	Node       cluster.NodeID   `json:"node"`
	Version    cluster.Version  `json:"version"`
	Hash       cluster.Digest   `json:"hash"`
	Durable    bool             `json:"durable"`
	Fresh      bool             `json:"fresh"`
	LeaseUntil time.Time        `json:"lease_until"` // when its trust in this map ends
	SSHUntil   time.Time        `json:"ssh_until"`   // expiry-time written to authorized_keys; zero: none
	Missing    []cluster.Digest `json:"missing"`     // roster documents that it lacks
	Problems   []string         `json:"problems"`    // enforced, but something else went wrong

	// SSHCommand tells that sshd asks noded at each login. SSHUntil is then when
	// noded stops letting keys in.
	SSHCommand bool `json:"ssh_command,omitempty"`
	// SSHMissing: it is a candidate whose entry lists SSH keys, and holds none of
	// them.
	SSHMissing bool `json:"ssh_missing,omitempty"`
}

// MapPull answers MethodMapGet: what the node can prove after the version asked for.
type MapPull struct {
	Maps   []candmap.Envelope `json:"maps"`
	Beacon *candmap.Envelope  `json:"beacon"`
}

// KeyCreateRequest asks a node to have candidate keys, and to install the
// certificate when there is one. Asking again changes nothing.
type KeyCreateRequest struct {
	Incarnation uint64 `json:"incarnation"`
	Certificate []byte `json:"certificate"` // DER; empty: not issued yet
	// SSHSetup tells whether the cluster manages SSH, and the node so needs a
	// key. Nil, from a master that does not say: it does if the map has keys.
	SSHSetup *bool `json:"ssh_setup,omitempty"`
	// SSHKey says which SSH key; nil, before feature level 3: the node's own,
	// of the default kind.
	SSHKey *SSHKeyOrder `json:"ssh_key,omitempty"`
	// Signing says which signing key; nil, before feature level 3: the one that
	// there is.
	Signing *SigningOrder `json:"signing,omitempty"`
}

// SigningOrder is about the signing key of a candidate. While it is replaced a
// node holds two: the one that the map lists, and the next.
type SigningOrder struct {
	// Avoid are keys that are being replaced: a node whose newest key is one of
	// them makes another, and answers with that.
	Avoid []candmap.SigningKey `json:"avoid,omitempty"`
	// Keep is the key that the map lists. A node that holds that map destroys the
	// one before it.
	Keep candmap.SigningKey `json:"keep,omitempty"`
}

// SSHKeyOrder is the SSH key that a node is to have. It has one already if it
// holds a key of that kind that is not to be avoided.
type SSHKeyOrder struct {
	cluster.SSHKeySpec
	Storage cluster.SSHKeyStorage `json:"storage"`
	Avoid   []cluster.SSHKey      `json:"avoid,omitempty"` // keys that are being replaced
	// Shared asks for the cluster's key instead of one of the node's own. A node
	// that lacks it answers with a Recipient; then Sealed brings it.
	Shared *cluster.SSHKey `json:"shared,omitempty"`
	Sealed *SealedKey      `json:"sealed,omitempty"`
}

// SealedKey is a private key that only the node can open that made the
// recipient key (HPKE, RFC 9180), and only in this life of its daemon.
type SealedKey struct {
	Recipient []byte `json:"recipient"` // as the node sent it
	Sealed    []byte `json:"sealed"`    // encapsulated key and ciphertext
}

// CandidateKeys are the public halves of what makes a node a candidate.
type CandidateKeys struct {
	CSR        []byte             `json:"csr"`                 // PKCS#10 of the client key, DER
	Signing    candmap.SigningKey `json:"signing"`             // Ed25519
	Possession []byte             `json:"possession"`          // pki.ProvePossession by the signing key
	SSH        []cluster.SSHKey   `json:"ssh"`                 // root's key; empty with --no-ssh-setup
	Recipient  []byte             `json:"recipient,omitempty"` // the node lacks the shared key: seal it to this
	Installed  cluster.Digest     `json:"installed"`           // of the installed client certificate; zero: none
	Features   int                `json:"features,omitempty"`  // highest feature level that the node's masterd knows; 0 means 1
}

// KeyDestroyReply lists the files that are gone and those that could not be removed.
type KeyDestroyReply struct {
	Removed  []string `json:"removed"`
	Problems []string `json:"problems"`
}

// Destroyed makes the reply of what is removed and what remains.
func Destroyed(removed []string, remains []error) KeyDestroyReply {
	reply := KeyDestroyReply{Removed: removed}
	for _, err := range remains {
		reply.Problems = append(reply.Problems, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return reply
}

// SSHProbeRequest asks a candidate to authenticate by SSH to the targets,
// without opening a session.
type SSHProbeRequest struct {
	Targets []SSHTarget `json:"targets"`
}

// SSHTarget is one sshd.
type SSHTarget struct {
	Node    cluster.NodeID   `json:"node"`
	Name    cluster.Name     `json:"name"`
	Address netip.Addr       `json:"address"`
	Port    uint16           `json:"port"`
	Keys    []cluster.SSHKey `json:"keys"` // its host keys
}

// SSHProbeReply has one result for each target, in order.
type SSHProbeReply struct {
	Results []SSHProbeResult `json:"results"`
}

// SSHProbeResult is empty in Error when the login worked.
type SSHProbeResult struct {
	Node  cluster.NodeID `json:"node"`
	Error string         `json:"error"`
}

// NodeState is what a node says of itself for verify and for gnt-node info.
type NodeState struct {
	Node          cluster.NodeID   `json:"node"`
	Name          cluster.Name     `json:"name,omitempty"`
	Software      string           `json:"software"`
	Time          time.Time        `json:"time"`
	Version       cluster.Version  `json:"version"`
	Hash          cluster.Digest   `json:"hash"`
	Roster        cluster.Digest   `json:"roster"` // of the roster in force
	LeaseSeconds  uint32           `json:"lease_seconds"`
	LeaseUntil    time.Time        `json:"lease_until"`
	Policy        cluster.Policy   `json:"policy,omitempty"`
	Fresh         bool             `json:"fresh"`
	Forks         int              `json:"forks"`  // pieces of fork evidence
	Server        cluster.Digest   `json:"server"` // pin of the server certificate in use
	Identity      cluster.Digest   `json:"identity"`
	Client        []cluster.Digest `json:"client"` // installed candidate certificates
	ServerEnds    time.Time        `json:"server_ends"`
	IdentityEnds  time.Time        `json:"identity_ends"`
	PrivateKey    bool             `json:"private_key"`         // root's key lies on this node
	PublicKey     *cluster.SSHKey  `json:"public_key"`          // of it
	MasterKeys    bool             `json:"master_keys"`         // masterd holds candidate keys
	KeyFiles      []string         `json:"key_files,omitempty"` // of a node that is no candidate: what lies there of the role
	Authorized    []cluster.SSHKey `json:"authorized"`          // keys in the managed block
	Foreign       []string         `json:"foreign"`             // fingerprints of former candidates' keys in foreign lines
	BlockProblems []string         `json:"block_problems"`      // why sshd would not honour the block
	SSHUntil      time.Time        `json:"ssh_until"`
	SSHSetup      bool             `json:"ssh_setup"`
	SSHCommand    bool             `json:"ssh_command,omitempty"`    // sshd asks noded at each login
	MasterAddress *AddressState    `json:"master_address,omitempty"` // absent: the cluster has none
	Refusals      map[string]int64 `json:"refusals"`                 // by reason, since start

	HeldKeys   []HeldSSHKey     `json:"held_keys,omitempty"`   // SSH keys whose private halves are on this node
	HostKeys   []cluster.SSHKey `json:"host_keys,omitempty"`   // that its sshd is configured with; absent: not known
	GossipKeys []cluster.Digest `json:"gossip_keys,omitempty"` // of the keys that it understands; it sends with the first
	Roots      []cluster.Digest `json:"roots,omitempty"`       // SHA-256 of the certificates of the authorities that it trusts
}

// HeldSSHKey is a private key of root's on a node, and where it is.
type HeldSSHKey struct {
	Key     cluster.SSHKey        `json:"key"`
	Storage cluster.SSHKeyStorage `json:"storage"`
}

// AddressState is what became of the cluster address on one node.
type AddressState struct {
	Address string `json:"address"` // with the length of its network's prefix
	Netdev  string `json:"netdev"`
	Held    bool   `json:"held"`
	Problem string `json:"problem,omitempty"` // for people: why it is not as it should be
}

// AdmitRequest asks for a place in the cluster. The first call of a new node
// names only the map that its string pins; the reply lets it authenticate the
// server before it says anything else.
type AdmitRequest struct {
	Pin     cluster.Digest  `json:"pin"`
	Request json.RawMessage `json:"request"` // an AdmitBody; null in the first call
	Proof   []byte          `json:"proof"`   // pki.Prove over the bytes of Request
}

// AdmitBody is what the new node says of itself.
type AdmitBody struct {
	Record    cluster.UUID     `json:"record"`
	Name      cluster.Name     `json:"name"`
	Addresses []netip.Addr     `json:"addresses"`
	Ports     cluster.Ports    `json:"ports"`
	Server    []byte           `json:"server"`   // PKCS#10, DER
	Identity  []byte           `json:"identity"` // PKCS#10, DER
	HostKeys  []cluster.SSHKey `json:"host_keys"`
	Software  string           `json:"software"`
	Features  int              `json:"features"`
}

// AdmitReply answers both calls; only Maps is set in the first.
type AdmitReply struct {
	Maps     []candmap.Envelope `json:"maps"` // from the pinned one to the newest
	Docs     [][]byte           `json:"docs"` // the roster
	Beacon   *candmap.Envelope  `json:"beacon"`
	Node     cluster.NodeID     `json:"node"`
	CA       []byte             `json:"ca"`       // DER
	Server   []byte             `json:"server"`   // DER
	Identity []byte             `json:"identity"` // DER
	Gossip   []byte             `json:"gossip"`   // the gossip key: a fence, see DESIGN 4.6
}

// CertificateRequest renews a certificate of the caller's own node.
type CertificateRequest struct {
	Kind string `json:"kind"` // "server" or "identity"; "" only reports the node's first contact
	CSR  []byte `json:"csr"`
}

// CertificateReply carries the new certificate; Gossip is the key to send gossip
// with, and GossipKeys, from feature level 3 on, all that are to be understood.
type CertificateReply struct {
	Certificate []byte   `json:"certificate"`
	Gossip      []byte   `json:"gossip"`
	GossipKeys  [][]byte `json:"gossip_keys,omitempty"`
}

// HostKeysReply says what became of a statement of host keys, the request being
// a pki.SignedHosts: current, accepted, pending, waits, rejected or withdrawn.
type HostKeysReply struct {
	Verdict string `json:"verdict"`
}

// SignRequest asks a voter to sign what its own log yields. Payload is the
// payload of a map or a beacon; a map may be named by version and hash alone.
type SignRequest struct {
	PayloadType string          `json:"payload_type"`
	Version     cluster.Version `json:"version"`
	Hash        cluster.Digest  `json:"hash"`
	Payload     []byte          `json:"payload"` // of a beacon; empty for a map
	Term        uint64          `json:"term"`
}

// SignReply carries the signature.
type SignReply struct {
	Signature candmap.Signature `json:"signature"`
	// Also are signatures of a map by the voter's other keys, while one is
	// replaced: the map that says so needs those of both.
	Also []candmap.Signature `json:"also,omitempty"`
	// ClockOnly answers for a beacon that the voter would sign, did its map not
	// name a master that root there has evicted: the time is right, and there is
	// no signature.
	ClockOnly bool `json:"clock_only,omitempty"`
}

// Seen is the newest position that a daemon saw from a peer: what a restored
// copy of that peer's disk would be behind of.
type Seen struct {
	Term    uint64          `json:"term"`
	Index   uint64          `json:"index"`
	Version cluster.Version `json:"version"`
}

// SeenReply tells that of the caller, and something of the answering node.
type SeenReply struct {
	Seen
	Last    uint64           `json:"last,omitempty"`    // index of its own newest log entry; zero: it does not say
	Evicted []cluster.NodeID `json:"evicted,omitempty"` // by root there
}
