package cluster

import "fmt"

// Policy says what a node does when its map is stale.
type Policy string

// The policies. Strict refuses; BestEffort serves on and says so, and then
// revocation of an unreachable node has no bound.
const (
	PolicyStrict     Policy = "strict"
	PolicyBestEffort Policy = "best_effort"
)

// SSHReach says whose SSH keys the nodes authorize.
type SSHReach string

// The reaches. ReachCandidates is Ganeti's way; under ReachMaster only the
// current master's key opens any node.
const (
	ReachCandidates SSHReach = "candidates"
	ReachMaster     SSHReach = "master"
)

// ParsePolicy reads a policy.
func ParsePolicy(s string) (Policy, error) {
	if p := Policy(s); p == PolicyStrict || p == PolicyBestEffort {
		return p, nil
	}
	return "", fmt.Errorf("parse policy %q: want strict or best_effort", clip(s))
}

// ParseSSHReach reads a reach.
func ParseSSHReach(s string) (SSHReach, error) {
	if r := SSHReach(s); r == ReachCandidates || r == ReachMaster {
		return r, nil
	}
	return "", fmt.Errorf("parse ssh reach %q: want candidates or master", clip(s))
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Policy) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePolicy(string(b))
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *SSHReach) UnmarshalText(b []byte) (err error) {
	*r, err = ParseSSHReach(string(b))
	return err
}

// Ports are the TCP ports of one node (gossip also UDP).
type Ports struct {
	Noded   uint16 `json:"noded"`
	Masterd uint16 `json:"masterd"`
	Gossip  uint16 `json:"gossip"`
	RAPI    uint16 `json:"rapi"`
	SSH     uint16 `json:"ssh"`
}

// DefaultPorts are the ports of a node that says nothing else.
var DefaultPorts = Ports{Noded: 1811, Masterd: 1812, Gossip: 1813, RAPI: 5080, SSH: 22}

// Valid reports whether every port is set and no TCP port is used twice.
func (p Ports) Valid() bool {
	seen := map[uint16]bool{0: true}
	for _, n := range [...]uint16{p.Noded, p.Masterd, p.Gossip, p.RAPI, p.SSH} {
		if seen[n] {
			return false
		}
		seen[n] = true
	}
	return true
}

// SSHKey is a public key as sshd knows it: algorithm name and wire blob
// (RFC 4253 §6.6). It is parsed and checked by package sshkeys; here it is
// only data.
type SSHKey struct {
	Type string `json:"type"`
	Blob []byte `json:"blob"`
}
