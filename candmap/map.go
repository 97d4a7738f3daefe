package candmap

import (
	"crypto/ed25519"
	"net/netip"
	"time"

	"rolekey/cluster"
)

// MapType is the payloadType of a candidate map.
const MapType = "application/vnd.rolekey.map.v1+json"

// Map is one version of the candidate map: who may act. The order of the
// fields is the order of the encoding; see docs/candidate-map.rst.
type Map struct {
	Cluster         cluster.UUID     `json:"cluster"`
	Epoch           uint64           `json:"epoch"`
	Version         uint64           `json:"version"`
	Previous        cluster.Digest   `json:"previous"` // of the previous payload; zero in version 1
	Issued          time.Time        `json:"issued"`   // UTC, whole milliseconds
	LeaseSeconds    uint32           `json:"lease_seconds"`
	SSHLeaseSeconds uint32           `json:"ssh_lease_seconds"`
	Policy          cluster.Policy   `json:"policy"`
	SSHReach        cluster.SSHReach `json:"ssh_reach"`
	Master          cluster.NodeID   `json:"master"` // zero: none
	Candidates      []Candidate      `json:"candidates"`
	Roster          cluster.Digest   `json:"roster"` // of the roster's index
	Recovery        Recovery         `json:"recovery"`
}

// Candidate is one node that may act, sorted by UUID in the map.
type Candidate struct {
	UUID        cluster.NodeID   `json:"uuid"`
	Incarnation uint64           `json:"incarnation"`
	Name        cluster.Name     `json:"name"`
	Addresses   []netip.Addr     `json:"addresses"`    // 1..MaxAddresses, the first is the primary one
	MasterdPort uint16           `json:"masterd_port"` // where its masterd serves RPC
	Voter       bool             `json:"voter"`
	Client      []cluster.Digest `json:"client"`  // 1..2 SHA-256 of the DER client certificate
	Signing     SigningKey       `json:"signing"` // Ed25519 public key
	SSH         []cluster.SSHKey `json:"ssh"`     // 0..2
	From        []netip.Prefix   `json:"from"`    // where its SSH keys may come from; 1..MaxFrom if there is one
}

// Recovery says which keys may replace the authority when its majority is lost.
type Recovery struct {
	Threshold uint8        `json:"threshold"` // 0 with no keys: no recovery
	Keys      []SigningKey `json:"keys"`
}

// SigningKey is an Ed25519 public key (RFC 8032), base64 in JSON.
type SigningKey []byte

// Public returns the key for crypto/ed25519.
func (k SigningKey) Public() ed25519.PublicKey { return ed25519.PublicKey(k) }

// At returns the map's place in the order of maps.
func (m *Map) At() cluster.Version { return cluster.Version{Epoch: m.Epoch, Version: m.Version} }

// Lease returns how long a node trusts the map without news.
func (m *Map) Lease() time.Duration { return time.Duration(m.LeaseSeconds) * time.Second }

// SSHLease returns how far ahead the expiry-time of authorized keys is set.
func (m *Map) SSHLease() time.Duration { return time.Duration(m.SSHLeaseSeconds) * time.Second }
