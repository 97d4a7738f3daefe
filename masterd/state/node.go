package state

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

// Node is what the cluster intends a node to be. Its slices are replaced, and
// never written to.
type Node struct {
	UUID        cluster.NodeID   `json:"uuid"`
	Incarnation uint64           `json:"incarnation"` // counts admissions of this node
	Name        cluster.Name     `json:"name"`
	Addresses   []netip.Addr     `json:"addresses"`
	Ports       cluster.Ports    `json:"ports"`
	Flags       cluster.Flags    `json:"flags"`
	HostKeys    []cluster.SSHKey `json:"host_keys"`
	Server      []cluster.Digest `json:"server"`   // pins: one, or two while a renewal overlaps
	Identity    []cluster.Digest `json:"identity"` // same
	Certs       Certs            `json:"certs"`
	Keys        *CandidateKeys   `json:"keys"` // set exactly while the node is a candidate
	Voter       bool             `json:"voter"`
	Joined      bool             `json:"joined"` // it has used its identity certificate
	CTime       time.Time        `json:"ctime"`
	MTime       time.Time        `json:"mtime"`
	Serial      int              `json:"serial"`
	Tags        []string         `json:"tags"`
	// WasCandidate is set while the node is offline and was a candidate before:
	// when it is online again it becomes one again.
	WasCandidate bool `json:"was_candidate,omitempty"`
	// RenewBefore is set while a renewal has not reached the node: its
	// certificates of before that time are to be replaced.
	RenewBefore time.Time `json:"renew_before,omitzero"`
	// HostKeysIssued is the time of the newest statement about HostKeys.
	HostKeysIssued  time.Time        `json:"host_keys_issued,omitzero"`
	PendingHostKeys *PendingHostKeys `json:"pending_host_keys,omitempty"`
}

// Certs are the newest certificates issued to a node, in DER, so that a reply
// that was lost can be given again. They are public.
type Certs struct {
	Server    []byte `json:"server"`
	Identity  []byte `json:"identity"`
	Candidate []byte `json:"candidate"` // empty unless the node is a candidate
}

// CandidateKeys are the public halves of what makes a node a candidate.
type CandidateKeys struct {
	Client  []cluster.Digest   `json:"client"` // 1..2 SHA-256 of the DER client certificate
	Signing candmap.SigningKey `json:"signing"`
	SSH     []cluster.SSHKey   `json:"ssh"` // 0..2
	// RenewSigning is set while a renewal has not reached the node: its signing
	// key is to be replaced.
	RenewSigning bool `json:"renew_signing,omitempty"`
}

// listed reports whether the map lists the node.
func (n *Node) listed() bool {
	return n.Flags.MasterCandidate && !n.Flags.Offline && !n.Flags.Drained && n.Keys != nil
}

func (n *Node) candidate() candmap.Candidate {
	from := make([]netip.Prefix, len(n.Addresses))
	for i, a := range n.Addresses {
		from[i] = netip.PrefixFrom(a, a.BitLen())
	}
	return candmap.Candidate{
		UUID: n.UUID, Incarnation: n.Incarnation, Name: n.Name, Addresses: n.Addresses,
		MasterdPort: n.Ports.Masterd, Voter: n.Voter,
		Client: n.Keys.Client, Signing: n.Keys.Signing, SSH: n.Keys.SSH, From: from,
	}
}

func (n *Node) rosterNode() candmap.RosterNode {
	return candmap.RosterNode{
		UUID: n.UUID, Incarnation: n.Incarnation, Name: n.Name, Addresses: n.Addresses, Ports: n.Ports,
		Flags: n.Flags, HostKeys: n.HostKeys, Server: n.Server, Identity: n.Identity,
	}
}

// check finds contradictions within one node. What the map and the roster
// check when they are encoded is not repeated here.
func (n *Node) check() error {
	switch {
	case n.UUID.IsZero() || n.Incarnation == 0:
		return fmt.Errorf("node %s: UUID and incarnation must be set", n.Name)
	case !n.Flags.Valid():
		return fmt.Errorf("node %s: flags contradict each other: master_candidate=%t, drained=%t, offline=%t, master_capable=%t",
			n.Name, n.Flags.MasterCandidate, n.Flags.Drained, n.Flags.Offline, n.Flags.MasterCapable)
	case n.Flags.MasterCandidate != (n.Keys != nil):
		return fmt.Errorf("node %s: a master candidate needs candidate keys, and nobody else has them", n.Name)
	case n.Voter && !n.Flags.MasterCandidate:
		return fmt.Errorf("node %s: votes and is no master candidate", n.Name)
	case max(len(n.Certs.Server), len(n.Certs.Identity), len(n.Certs.Candidate)) > MaxCertificate:
		return fmt.Errorf("node %s: a certificate over %d bytes", n.Name, MaxCertificate)
	case n.Keys == nil && len(n.Certs.Candidate) > 0:
		return fmt.Errorf("node %s: a candidate certificate without candidate keys", n.Name)
	}
	if err := n.checkHostKeys(); err != nil {
		return err
	}
	return CheckTags(n.Tags)
}

// CheckTags accepts Ganeti's alphabet for tags, sorted and without repetition.
func CheckTags(tags []string) error {
	for i, t := range tags {
		if t == "" || len(t) > MaxTag {
			return fmt.Errorf("tag %.40q: want 1 to %d characters", t, MaxTag)
		}
		if i := slices.IndexFunc([]byte(t), func(c byte) bool { return !tagByte(c) }); i >= 0 {
			return fmt.Errorf("tag %.40q: character %q is not allowed", t, t[i])
		}
		if i > 0 && tags[i-1] >= t {
			return fmt.Errorf("tags are not sorted")
		}
	}
	return nil
}

func tagByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return slices.Contains([]byte(".+*/:@-_"), c)
}
