package wire

import (
	"net/netip"
	"time"

	"rolekey/cluster"
)

// NodeDetails is what the cluster knows of a node beyond Ganeti's object.
type NodeDetails struct {
	Certificates []NodeCertificate `json:"certificates"`
	Client       []cluster.Digest  `json:"client"`    // of a candidate's certificates, in the map
	Signing      []byte            `json:"signing"`   // a candidate's Ed25519 public key; null: it is none
	HostKeys     []string          `json:"host_keys"` // fingerprints, as ssh-keygen -l prints them
	SSHKeys      []string          `json:"ssh_keys"`  // of a candidate's root key
	HeadEpoch    uint64            `json:"head_epoch"`
	HeadVersion  uint64            `json:"head_version"` // of the newest map
	LastContact  *time.Time        `json:"last_contact"` // with this master; null: none yet
	RPCUntil     *time.Time        `json:"rpc_until"`    // end of its trust in the map without news
	SSHUntil     *time.Time        `json:"ssh_until"`
	Pending      []string          `json:"pending"` // for people: what is not yet as it should be

	PendingHostKeys *PendingHostKeys `json:"pending_host_keys,omitempty"`
}

// PendingHostKeys are what a master candidate says that its sshd has, and the
// roster has not.
type PendingHostKeys struct {
	HostKeys []string       `json:"host_keys"` // fingerprints
	SSHPort  uint16         `json:"ssh_port"`
	Since    time.Time      `json:"since"`
	Rejected bool           `json:"rejected"`
	Digest   cluster.Digest `json:"digest"` // names them in a HostKeysDecision
}

// HostKeysDecision accepts or rejects pending host keys, if they are still the
// same.
type HostKeysDecision struct {
	Digest cluster.Digest `json:"digest"`
	Reject bool           `json:"reject,omitempty"`
}

// NodeCertificate is the newest certificate of a kind that was issued to a node.
type NodeCertificate struct {
	Kind      string           `json:"kind"` // server, identity or candidate
	Digest    cluster.Digest   `json:"digest"`
	Pins      []cluster.Digest `json:"pins"` // of the keys that the roster accepts; of a candidate: none
	Name      cluster.Name     `json:"name"`
	Addresses []netip.Addr     `json:"addresses"`
	NotBefore time.Time        `json:"not_before"`
	NotAfter  time.Time        `json:"not_after"`
	RenewAt   time.Time        `json:"renew_at"`
}
