package candmap

import (
	"net/netip"

	"rolekey/cluster"
)

// Settings are facts about the whole cluster that every node needs. They are
// part of the roster's index from format 2 on.
type Settings struct {
	Name    cluster.Name           `json:"name"`           // of the cluster
	Address *cluster.MasterAddress `json:"master_address"` // null: there is none
	// From feature level 3 on; before, none of them is there.
	SSH    *cluster.SSHSettings `json:"ssh,omitempty"`    // nil: the defaults
	CA     [][]byte             `json:"ca,omitempty"`     // DER: the authorities that are trusted, that which issues first
	Gossip []cluster.Digest     `json:"gossip,omitempty"` // SHA-256 of the gossip keys, that to send with first
}

// RosterNode is what every node knows of another node.
type RosterNode struct {
	UUID        cluster.NodeID   `json:"uuid"`
	Incarnation uint64           `json:"incarnation"`
	Name        cluster.Name     `json:"name"`
	Addresses   []netip.Addr     `json:"addresses"`
	Ports       cluster.Ports    `json:"ports"`
	Flags       cluster.Flags    `json:"flags"`
	HostKeys    []cluster.SSHKey `json:"host_keys"` // of its sshd
	Server      []cluster.Digest `json:"server"`    // 1..2 SHA-256 of the SubjectPublicKeyInfo of its server certificate
	Identity    []cluster.Digest `json:"identity"`  // 1..2, same of its identity certificate
}
