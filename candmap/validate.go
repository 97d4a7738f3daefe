package candmap

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"rolekey/cluster"
)

// sshTypes are the key types that may be authorized (RFC 8709, 5656, 4253).
var sshTypes = []string{"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"}

// validate checks everything that a map says by itself. What it says relative
// to another map is checked by Follow.
func (m *Map) validate() error {
	if err := m.validateHead(); err != nil {
		return err
	}
	if err := m.Recovery.validate(); err != nil {
		return err
	}
	if len(m.Candidates) < 1 || len(m.Candidates) > MaxCandidates {
		return bad("%d candidates, want 1 to %d", len(m.Candidates), MaxCandidates)
	}
	seen := newSeen()
	for _, k := range m.Recovery.Keys { // a key of both kinds would count twice
		if !seen.add("key", string(k)) {
			return bad("a recovery key is listed twice")
		}
	}
	voters, master := 0, m.Master.IsZero()
	for i := range m.Candidates {
		c := &m.Candidates[i]
		if i > 0 && bytes.Compare(m.Candidates[i-1].UUID[:], c.UUID[:]) >= 0 {
			return bad("candidates are not sorted by UUID, each once")
		}
		if err := c.validate(seen); err != nil {
			return wrapCode("candidate "+c.UUID.String(), err)
		}
		if c.Voter {
			voters++
		}
		master = master || c.UUID == m.Master
	}
	if err := m.validateShared(); err != nil {
		return err
	}
	if voters < 1 || voters > MaxVoters {
		return bad("%d voters, want 1 to %d", voters, MaxVoters)
	}
	if !master {
		return bad("the master is not a candidate")
	}
	return nil
}

func (m *Map) validateHead() error {
	if m.Cluster.IsZero() || !inRange(m.Epoch) || !inRange(m.Version) || m.Roster.IsZero() {
		return bad("cluster, epoch, version and roster must be set")
	}
	if first := m.Epoch == 1 && m.Version == 1; first != m.Previous.IsZero() {
		return bad("previous must be set in every map but the first")
	}
	if err := checkTime("issued", m.Issued); err != nil {
		return err
	}
	if d := m.Lease(); d < MinLease || d > MaxLease {
		return bad("lease of %s, want %s to %s", d, MinLease, MaxLease)
	}
	if d := m.SSHLease(); d < MinSSHLease || d > MaxSSHLease {
		return bad("ssh lease of %s, want %s to %s", d, MinSSHLease, MaxSSHLease)
	}
	if _, err := cluster.ParsePolicy(string(m.Policy)); err != nil {
		return bad("%v", err)
	}
	if _, err := cluster.ParseSSHReach(string(m.SSHReach)); err != nil {
		return bad("%v", err)
	}
	return nil
}

func (r Recovery) validate() error {
	n := len(r.Keys)
	if n > MaxRecoveryKeys {
		return bad("%d recovery keys, the limit is %d", n, MaxRecoveryKeys)
	}
	if t := int(r.Threshold); (n == 0) != (t == 0) || t > n || t > MaxRecoveryThreshold {
		return bad("recovery threshold %d of %d keys, want 1 to %d, or 0 of 0", t, n, min(n, MaxRecoveryThreshold))
	}
	for i, k := range r.Keys {
		if err := k.validate(); err != nil {
			return wrapCode("recovery", err)
		}
		if i > 0 && bytes.Compare(r.Keys[i-1], k) >= 0 {
			return bad("recovery keys are not sorted, each once")
		}
	}
	return nil
}

func (c *Candidate) validate(seen seen) error {
	if c.UUID.IsZero() || !inRange(c.Incarnation) || c.MasterdPort == 0 {
		return bad("uuid, incarnation and masterd_port must be set")
	}
	if err := seen.member(c.Name, c.Addresses); err != nil {
		return err
	}
	if err := seen.pins("client digest", c.Client); err != nil {
		return err
	}
	if err := c.Signing.validate(); err != nil {
		return err
	}
	if !seen.add("key", string(c.Signing)) {
		return bad("the signing key is listed twice")
	}
	if len(c.SSH) > 2 {
		return bad("%d SSH keys, the limit is 2", len(c.SSH))
	}
	if len(c.SSH) > 0 && len(c.From) == 0 {
		return bad("an SSH key without a source network")
	}
	for _, k := range c.SSH {
		if err := validSSHKey(k); err != nil {
			return err
		}
	}
	if len(c.SSH) == 2 && bytes.Equal(c.SSH[0].Blob, c.SSH[1].Blob) {
		return bad("an SSH key is listed twice")
	}
	return validFrom(c.From)
}

// validateShared accepts an SSH key in several entries only if it is the
// cluster's: then it is in every entry that has keys. One node's key in the
// entry of another would be a mistake or worse.
func (m *Map) validateShared() error {
	count, holders := map[string]int{}, 0
	for i := range m.Candidates {
		for _, k := range m.Candidates[i].SSH {
			count[string(k.Blob)]++
		}
		if len(m.Candidates[i].SSH) > 0 {
			holders++
		}
	}
	for _, n := range count {
		if n > 1 && n != holders {
			return bad("an SSH key is listed twice, and not by all candidates")
		}
	}
	return nil
}

func validFrom(from []netip.Prefix) error {
	if len(from) > MaxFrom {
		return bad("%d source networks, the limit is %d", len(from), MaxFrom)
	}
	for i, p := range from {
		if !p.IsValid() || p != p.Masked() || p.Bits() == 0 || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return bad("source network %q: want a masked prefix longer than /0", p)
		}
		if slices.Contains(from[:i], p) {
			return bad("source network %s is listed twice", p)
		}
	}
	return nil
}

// validSSHKey checks the frame of a key; package sshkeys parses the rest.
func validSSHKey(k cluster.SSHKey) error {
	if !slices.Contains(sshTypes, k.Type) {
		return bad("SSH key type %.40q is not allowed", k.Type)
	}
	head := append(binary.BigEndian.AppendUint32(nil, uint32(len(k.Type))), k.Type...)
	if len(k.Blob) > MaxSSHBlob || len(k.Blob) <= len(head) || !bytes.HasPrefix(k.Blob, head) {
		return bad("SSH key blob is not a %s key of at most %d bytes", k.Type, MaxSSHBlob)
	}
	return nil
}

// seen finds what occurs twice among the entries of a document.
type seen map[string]struct{}

func newSeen() seen { return seen{} }

func (s seen) add(kind, value string) bool {
	k := kind + "\x00" + value
	_, twice := s[k]
	s[k] = struct{}{}
	return !twice
}

// member checks what every entry has, of map and roster alike.
func (s seen) member(name cluster.Name, addrs []netip.Addr) error {
	if _, err := cluster.ParseName(string(name)); err != nil {
		return bad("%v", err)
	}
	if !s.add("name", string(name)) {
		return bad("name %s is listed twice", name)
	}
	if len(addrs) < 1 || len(addrs) > MaxAddresses {
		return bad("%d addresses, want 1 to %d", len(addrs), MaxAddresses)
	}
	for _, a := range addrs {
		if err := cluster.CheckAddr(a); err != nil {
			return bad("%v", err)
		}
		if !s.add("addr", a.String()) {
			return bad("address %s is listed twice", a)
		}
	}
	return nil
}

// pins checks one or two digests that nobody else in the document has.
func (s seen) pins(what string, pins []cluster.Digest) error {
	if len(pins) < 1 || len(pins) > 2 {
		return bad("%d of %s, want 1 or 2", len(pins), what)
	}
	for _, d := range pins {
		if d.IsZero() || !s.add("pin", string(d[:])) {
			return bad("%s %s is zero or listed twice", what, d.Short())
		}
	}
	return nil
}

func inRange(n uint64) bool { return n >= 1 && n < MaxNumber }
