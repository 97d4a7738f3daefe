package state

import (
	"slices"
	"time"

	"rolekey/cluster"
	"rolekey/pki"
)

// PendingHostKeys are what a master candidate said of its sshd, until the
// administrator decides. Meanwhile the roster has what it had.
type PendingHostKeys struct {
	Keys     []cluster.SSHKey `json:"keys"` // as pki.Hosts sorts them
	Port     uint16           `json:"port"`
	Since    time.Time        `json:"since"`
	Rejected bool             `json:"rejected,omitempty"` // the node says so still, and is not believed
}

// Digest names what is to be decided, so that nobody accepts what he did not
// see.
func (p *PendingHostKeys) Digest() (cluster.Digest, error) {
	b, err := marshal(struct {
		Keys []cluster.SSHKey `json:"keys"`
		Port uint16           `json:"port"`
	}{p.Keys, p.Port})
	return cluster.DigestOf(b), err
}

func (p *PendingHostKeys) says(keys []cluster.SSHKey, port uint16) bool {
	return p != nil && p.Port == port && sameHostKeys(p.Keys, keys)
}

func sameHostKeys(a, b []cluster.SSHKey) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(k cluster.SSHKey) bool { return !hasKey(b, k) })
}

// HostKeysClaim is a node's statement about its own sshd, whose signature and
// time the master has checked. That of a normal node is in force at once; that
// of a candidate, whom root's ssh trusts with more, waits for the administrator.
type HostKeysClaim struct {
	Node        cluster.NodeID   `json:"node"`
	Incarnation uint64           `json:"incarnation"`
	Issued      time.Time        `json:"issued"`
	Keys        []cluster.SSHKey `json:"keys"`
	Port        uint16           `json:"port"`
}

// HostKeysDecision is the administrator's word on what is pending.
type HostKeysDecision struct {
	Node   cluster.NodeID `json:"node"`
	Digest cluster.Digest `json:"digest"` // of what he saw
	Accept bool           `json:"accept"`
	Job    *JobUpdate     `json:"job,omitempty"`
}

// HostKeysVerdict is what a claim comes to.
type HostKeysVerdict string

// The verdicts. Current and Waits change nothing.
const (
	HostKeysCurrent  HostKeysVerdict = "current"   // the roster says the same
	HostKeysAccepted HostKeysVerdict = "accepted"  // the roster will
	HostKeysPending  HostKeysVerdict = "pending"   // the administrator is to decide
	HostKeysWaits    HostKeysVerdict = "waits"     // it has been pending before
	HostKeysRejected HostKeysVerdict = "rejected"  // the administrator has decided
	HostKeysWithdraw HostKeysVerdict = "withdrawn" // what was pending is said no more
)

// Commits reports whether the verdict changes the state.
func (v HostKeysVerdict) Commits() bool {
	return v == HostKeysAccepted || v == HostKeysPending || v == HostKeysWithdraw
}

// JudgeHostKeys says what a claim comes to, or why it is refused.
func (s *State) JudgeHostKeys(c *HostKeysClaim) (HostKeysVerdict, error) {
	n := s.Nodes[c.Node]
	switch {
	case n == nil:
		return "", cluster.Errorf(cluster.CodeNotInRoster, "node %s is not in the cluster", c.Node)
	case n.Incarnation != c.Incarnation:
		return "", cluster.Errorf(cluster.CodeIdentityMismatch, "the statement is of incarnation %d of node %s, which is in incarnation %d", c.Incarnation, n.Name, n.Incarnation)
	case !validTime(c.Issued) || c.Port == 0 || len(c.Keys) == 0 || len(c.Keys) > pki.MaxHostKeys:
		return "", badFormat("host keys of node %s: want a time, a port and 1 to %d keys", n.Name, pki.MaxHostKeys)
	case !c.Issued.After(n.HostKeysIssued):
		return "", conflict("node %s has said something newer of its host keys, at %s", n.Name, n.HostKeysIssued.Format(time.RFC3339Nano)).
			WithHint("the node's clock was set back, or an old statement was sent again")
	}
	ports := n.Ports
	if ports.SSH = c.Port; !ports.Valid() {
		return "", badFormat("host keys of node %s: port %d of its sshd is another daemon's", n.Name, c.Port)
	}
	if err := s.foreignHostKey(n, c.Keys); err != nil {
		return "", err
	}
	return n.judge(c), nil
}

func (n *Node) judge(c *HostKeysClaim) HostKeysVerdict {
	current := n.Ports.SSH == c.Port && sameHostKeys(n.HostKeys, c.Keys)
	switch p := n.PendingHostKeys; {
	case current && p != nil:
		return HostKeysWithdraw
	case current:
		return HostKeysCurrent
	case p.says(c.Keys, c.Port) && p.Rejected:
		return HostKeysRejected
	case n.Flags.MasterCandidate || n.WasCandidate:
		if p.says(c.Keys, c.Port) {
			return HostKeysWaits
		}
		return HostKeysPending
	}
	return HostKeysAccepted
}

// foreignHostKey refuses a key that is another node's: who holds a member's
// identity must not pass for another machine. Machines made from one image
// share keys from the beginning; verify says so.
func (s *State) foreignHostKey(n *Node, keys []cluster.SSHKey) error {
	for _, other := range s.SortedNodes() {
		if other.UUID == n.UUID {
			continue
		}
		theirs := other.HostKeys
		if other.PendingHostKeys != nil {
			theirs = slices.Concat(theirs, other.PendingHostKeys.Keys)
		}
		for _, k := range keys {
			if hasKey(theirs, k) && !hasKey(n.HostKeys, k) {
				return cluster.Errorf(cluster.CodeAlreadyExists, "node %s claims a host key of node %s", n.Name, other.Name).
					WithHint("a machine that was copied from another needs host keys of its own: ssh-keygen -A makes them")
			}
		}
	}
	return nil
}

func (c *HostKeysClaim) apply(d *draft) error {
	verdict, err := d.JudgeHostKeys(c)
	if err != nil {
		return err
	}
	if !verdict.Commits() {
		return conflict("the host keys of node %s: %s; there is nothing to change", d.Nodes[c.Node].Name, verdict)
	}
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	n.HostKeysIssued = c.Issued
	switch verdict {
	case HostKeysAccepted:
		n.HostKeys, n.Ports.SSH, n.PendingHostKeys = c.Keys, c.Port, nil
	case HostKeysPending:
		n.PendingHostKeys = &PendingHostKeys{Keys: c.Keys, Port: c.Port, Since: d.now}
	default:
		n.PendingHostKeys = nil
	}
	return nil
}

func (c *HostKeysDecision) apply(d *draft) error {
	n, err := d.node(c.Node)
	if err != nil {
		return err
	}
	p := n.PendingHostKeys
	if p == nil {
		return conflict("Node %s has no host keys that wait for a decision", n.Name)
	}
	if digest, err := p.Digest(); err != nil || digest != c.Digest {
		return conflict("Node %s has said something else of its host keys meanwhile", n.Name).
			WithHint("look again: gnt-node accept-host-keys %s", n.Name)
	}
	if !c.Accept {
		rejected := *p
		rejected.Rejected = true
		n.PendingHostKeys = &rejected
		return d.linkJob(c.Job)
	}
	if err := d.foreignHostKey(n, p.Keys); err != nil {
		return err
	}
	n.HostKeys, n.Ports.SSH, n.PendingHostKeys = p.Keys, p.Port, nil
	return d.linkJob(c.Job)
}

// checkHostKeys finds what no command of ours leaves behind.
func (n *Node) checkHostKeys() error {
	if !n.HostKeysIssued.IsZero() && !validTime(n.HostKeysIssued) {
		return badFormat("node %s: time of its host keys", n.Name)
	}
	p := n.PendingHostKeys
	if p == nil {
		return nil
	}
	if p.Port == 0 || len(p.Keys) == 0 || len(p.Keys) > pki.MaxHostKeys || !validTime(p.Since) {
		return badFormat("node %s: pending host keys", n.Name)
	}
	for i, k := range p.Keys {
		if len(k.Blob) == 0 || len(k.Blob) > maxHostKeyBlob || i > 0 && pki.CompareHostKeys(p.Keys[i-1], k) >= 0 {
			return badFormat("node %s: pending host keys", n.Name)
		}
	}
	return nil
}
