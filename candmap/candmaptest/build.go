// Package candmaptest builds candidate maps, beacons and rosters for tests
// from small numbers, and has an in-memory Store whose every operation can be
// made to fail. Number n stands for one node with one set of keys; the same
// number gives the same bytes in every test. For tests only: its keys are
// known to all. Its functions panic on impossible requests.
package candmaptest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

// Epoch0 is when the first map of a test cluster was issued.
var Epoch0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Cluster is the UUID of the test cluster.
var Cluster = uuid(0xc1, 0)

func uuid(kind byte, n int) cluster.UUID {
	u := cluster.UUID(bytes.Repeat([]byte{kind}, 16))
	binary.BigEndian.PutUint16(u[14:], uint16(n))
	u[6], u[8] = 0x40|u[6]&0x0f, 0x80|u[8]&0x3f
	return u
}

// NodeID is the UUID of node n; it grows with n.
func NodeID(n int) cluster.NodeID { return uuid(0xaa, n) }

// Name is the host name of node n.
func Name(n int) cluster.Name { return cluster.Name(fmt.Sprintf("node%d.example.com", n)) }

// Addr is the address of node n.
func Addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}) }

// Key is the signing key of node n: its seed is the byte n, 32 times.
func Key(n int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(n)}, ed25519.SeedSize))
}

// Public is the public half of Key.
func Public(n int) candmap.SigningKey {
	return candmap.SigningKey(Key(n).Public().(ed25519.PublicKey))
}

// Pin is a digest that belongs to node n, of a kind such as "client".
func Pin(kind string, n int) cluster.Digest {
	return cluster.DigestOf(fmt.Appendf(nil, "%s %d", kind, n))
}

// SSHKey is an Ed25519 SSH public key of node n.
func SSHKey(kind string, n int) cluster.SSHKey {
	pub := Pin(kind, n)
	blob := binary.BigEndian.AppendUint32(nil, 11)
	blob = append(blob, "ssh-ed25519"...)
	blob = binary.BigEndian.AppendUint32(blob, 32)
	return cluster.SSHKey{Type: "ssh-ed25519", Blob: append(blob, pub[:]...)}
}

// Candidate is the entry of node n.
func Candidate(n int, voter bool) candmap.Candidate {
	return candmap.Candidate{
		UUID: NodeID(n), Incarnation: 1, Name: Name(n), Addresses: []netip.Addr{Addr(n)}, MasterdPort: 1812,
		Voter: voter, Client: []cluster.Digest{Pin("client", n)}, Signing: Public(n),
		SSH: []cluster.SSHKey{SSHKey("ssh", n)}, From: []netip.Prefix{netip.PrefixFrom(Addr(n), 32)},
	}
}

// Map is version 1.1 with these nodes as voters, the first being master. It is
// fresh and may be changed.
func Map(voters ...int) *candmap.Map {
	m := &candmap.Map{
		Cluster: Cluster, Epoch: 1, Version: 1, Issued: Epoch0, LeaseSeconds: 120, SSHLeaseSeconds: 86400,
		Policy: cluster.PolicyStrict, SSHReach: cluster.ReachCandidates, Master: NodeID(voters[0]),
		Roster: Pin("roster", 0),
	}
	SetVoters(m, voters...)
	return m
}

// SetVoters makes these nodes the voters, keeps no other candidate, and makes
// the first one master unless the master stays.
func SetVoters(m *candmap.Map, voters ...int) {
	m.Candidates = nil
	for _, n := range slices.Sorted(slices.Values(voters)) {
		m.Candidates = append(m.Candidates, Candidate(n, true))
	}
	if !slices.ContainsFunc(m.Candidates, func(c candmap.Candidate) bool { return c.UUID == m.Master }) {
		m.Master = NodeID(voters[0])
	}
}

// SetRecovery makes the keys of these numbers the recovery keys.
func SetRecovery(m *candmap.Map, threshold int, keys ...int) {
	m.Recovery = candmap.Recovery{Threshold: uint8(threshold)}
	for _, n := range keys {
		m.Recovery.Keys = append(m.Recovery.Keys, Public(n))
	}
	slices.SortFunc(m.Recovery.Keys, func(a, b candmap.SigningKey) int { return bytes.Compare(a, b) })
}

// Next is the version after prev, one minute later, the same otherwise.
func Next(prev *candmap.Map) *candmap.Map {
	b, err := prev.Encode()
	must(err)
	m, err := candmap.DecodeMap(b)
	must(err)
	m.Version, m.Previous, m.Issued = m.Version+1, cluster.DigestOf(b), m.Issued.Add(time.Minute)
	return m
}

// Seal encodes the map and signs it with the keys of these numbers.
func Seal(m *candmap.Map, signers ...int) candmap.Envelope {
	b, err := m.Encode()
	must(err)
	return SealBytes(candmap.MapType, b, signers...)
}

// SealBytes signs any payload.
func SealBytes(payloadType string, payload []byte, signers ...int) candmap.Envelope {
	env := candmap.Envelope{PayloadType: payloadType, Payload: payload}
	for _, n := range signers {
		sig, err := candmap.Sign(Key(n), payloadType, payload)
		must(err)
		env = candmap.Merge(env, sig)
	}
	return env
}

// Beacon says that m was current at t.
func Beacon(m *candmap.Map, t time.Time, signers ...int) candmap.Envelope {
	payload, err := m.Encode()
	must(err)
	b := candmap.Beacon{Cluster: m.Cluster, Epoch: m.Epoch, Version: m.Version, Map: cluster.DigestOf(payload), Time: candmap.Stamp(t)}
	doc, err := b.Encode()
	must(err)
	return SealBytes(candmap.BeaconType, doc, signers...)
}

// RosterNode is node n as the roster has it.
func RosterNode(n int) candmap.RosterNode {
	return candmap.RosterNode{
		UUID: NodeID(n), Incarnation: 1, Name: Name(n), Addresses: []netip.Addr{Addr(n)}, Ports: cluster.DefaultPorts,
		Flags: cluster.Flags{MasterCapable: true, VMCapable: true}, HostKeys: []cluster.SSHKey{SSHKey("host", n)},
		Server: []cluster.Digest{Pin("server", n)}, Identity: []cluster.Digest{Pin("identity", n)},
	}
}

// Roster is the roster of these nodes.
func Roster(nodes ...int) *candmap.Roster {
	var list []candmap.RosterNode
	for _, n := range nodes {
		list = append(list, RosterNode(n))
	}
	r, err := candmap.NewRoster(list, nil)
	must(err)
	return r
}

// Docs are a roster's documents as they are delivered.
func Docs(r *candmap.Roster) (docs [][]byte) {
	for _, b := range r.Docs() {
		docs = append(docs, b)
	}
	return docs
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
