// Package statetest builds replicated states for tests: deterministic nodes
// and keys, and a Lab that plays the part of raft for one replica. Every
// command of a Lab passes through its encoding, as it would in the log.
package statetest

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
)

// TB is the part of testing.TB and rapid.TB that is needed.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Epoch is the time of the first command.
var Epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// Secrets of every Lab, to be searched for in what must not hold them.
var (
	CAKey     = []byte("SECRET-of-the-certificate-authority")
	GossipKey = []byte("SECRET-of-gossip-SECRET-of-gossi")
)

// Lab applies commands to one replica.
type Lab struct {
	TB    TB
	S     *state.State
	Now   time.Time
	Index uint64
	Term  uint64
	Log   [][]byte // every command applied, encoded
}

// New founds a cluster whose only node is node 1.
func New(tb TB) *Lab {
	tb.Helper()
	l := &Lab{TB: tb, S: state.New(), Now: Epoch, Term: 1}
	l.Do(state.KindGenesis, Genesis())
	return l
}

// Genesis is the first command of every Lab.
func Genesis() state.Genesis {
	n := Node(1)
	keys := Keys(1, 0)
	return state.Genesis{
		Cluster: state.Cluster{UUID: ID(0xc1), Name: "lab.test"},
		Params:  state.DefaultParams,
		CA:      state.CA{Cert: []byte("CA certificate"), Key: cluster.NewSecret(CAKey)},
		Gossip:  cluster.NewSecret(GossipKey),
		Recovery: candmap.Recovery{
			Threshold: 1, Keys: []candmap.SigningKey{signing(0xeeee)},
		},
		Node: state.Node{
			UUID: n.Node, Name: n.Name, Addresses: n.Addresses, Ports: n.Ports, HostKeys: n.HostKeys,
			Server: []cluster.Digest{n.Server}, Identity: []cluster.Digest{n.Identity},
			Flags: cluster.Flags{VMCapable: true},
			Certs: state.Certs{Server: n.ServerCert, Identity: n.IdentityCert, Candidate: Cert(1, 0)},
			Keys:  &keys,
		},
	}
}

// Try proposes and applies a command and returns why it was refused, if it was.
// The state of the Lab changes only when it was not.
func (l *Lab) Try(kind string, body any) (state.Result, error) {
	l.TB.Helper()
	l.Now = l.Now.Add(time.Second)
	c, err := state.Propose(l.S, kind, body, state.Meta{Time: l.Now, Actor: "root@node1", RequestID: "r1"})
	if err != nil {
		return state.Result{}, err
	}
	b, err := state.EncodeCommand(c)
	if err != nil {
		l.TB.Fatalf("encode %s: %v", kind, err)
	}
	return l.Apply(b), nil
}

// Apply applies an encoded command that must fit.
func (l *Lab) Apply(b []byte) state.Result {
	l.TB.Helper()
	c, err := state.DecodeCommand(b)
	if err != nil {
		l.TB.Fatalf("decode what was encoded: %v", err)
	}
	l.Index++
	next, res := l.S.Apply(c, l.Index, l.Term)
	if res.Err != nil {
		l.TB.Fatalf("apply %s: %v", c.Kind, res.Err)
	}
	l.S, l.Log = next, append(l.Log, b)
	return res
}

// Do is Try for a command that must be accepted.
func (l *Lab) Do(kind string, body any) state.Result {
	l.TB.Helper()
	res, err := l.Try(kind, body)
	if err != nil {
		l.TB.Fatalf("propose %s: %v", kind, err)
	}
	return res
}

// Add admits node i as a regular node that has been heard from.
func (l *Lab) Add(i int) cluster.NodeID {
	l.TB.Helper()
	r := l.Record(i)
	l.Do(state.KindAdmissionCreate, state.AdmissionCreate{Record: r})
	n := Node(i)
	n.Record, n.Incarnation = r.ID, l.S.NextIncarnation(n.Node)
	l.Do(state.KindNodeAdmit, n)
	l.Do(state.KindAdmissionSpent, state.AdmissionSpent{ID: r.ID, Identity: n.Identity})
	return n.Node
}

// Record returns an open admission record for node i.
func (l *Lab) Record(i int) pki.Record {
	pub := ed25519.NewKeyFromSeed(seed(0x10000 + i)).Public().(ed25519.PublicKey) //nolint:forcetypeassert // documented
	return pki.Record{
		ID: ID(0x1000000 + i + int(l.Index)<<32), Name: Name(i), PublicKey: pub, Created: l.Now, Expires: l.Now.Add(time.Hour),
		State: pki.RecordOpen, Node: ID(i), Actor: "root",
	}
}

// Promote makes node i a candidate without a vote.
func (l *Lab) Promote(i int) {
	l.TB.Helper()
	keys := Keys(i, int(l.Index))
	l.Do(state.KindNodeChange, state.NodeChange{
		Node: ID(i), Flags: &state.FlagPatch{MasterCandidate: new(true)},
		Keys: &keys, Candidate: Cert(i, int(l.Index)),
	})
}

// Node returns the admission of node i, without the record.
func Node(i int) state.NodeAdmit {
	return state.NodeAdmit{
		Remote: Addr(i), Node: ID(i), Incarnation: 1, Name: Name(i), Addresses: []netip.Addr{Addr(i)}, Ports: cluster.DefaultPorts,
		HostKeys: []cluster.SSHKey{SSHKey(i, "host")},
		Server:   digest(i, "server"), Identity: digest(i, "identity"),
		ServerCert: []byte(fmt.Sprintf("server certificate of %d", i)), IdentityCert: []byte(fmt.Sprintf("identity certificate of %d", i)),
		MasterCapable: true, VMCapable: true,
	}
}

// Keys returns candidate keys of node i; gen tells several sets apart.
func Keys(i, gen int) state.CandidateKeys {
	return state.CandidateKeys{
		Client:  []cluster.Digest{cluster.DigestOf(Cert(i, gen))},
		Signing: signing(i<<16 + gen),
		SSH:     []cluster.SSHKey{SSHKey(i, fmt.Sprintf("root%d", gen))},
	}
}

// Cert returns the candidate certificate that goes with Keys.
func Cert(i, gen int) []byte { return []byte(fmt.Sprintf("candidate certificate %d of %d", gen, i)) }

// ID returns the UUID of node i; ids are in the order of i.
func ID(i int) cluster.UUID {
	var u cluster.UUID
	binary.BigEndian.PutUint64(u[:8], uint64(i)) // #nosec G115 -- a test's small number
	u[15] = 1
	return u
}

// Name returns the name of node i.
func Name(i int) cluster.Name { return cluster.Name(fmt.Sprintf("node%d.lab.test", i)) }

// Addr returns the address of node i.
func Addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}) }

// SSHKey returns an Ed25519 public key in the form of RFC 8709.
func SSHKey(i int, use string) cluster.SSHKey {
	const kind = "ssh-ed25519"
	d := digest(i, "ssh "+use)
	blob := append(binary.BigEndian.AppendUint32(nil, uint32(len(kind))), kind...)
	blob = append(binary.BigEndian.AppendUint32(blob, uint32(len(d))), d[:]...)
	return cluster.SSHKey{Type: kind, Blob: blob}
}

func digest(i int, use string) cluster.Digest {
	return cluster.DigestOf([]byte(fmt.Sprintf("%s of %d", use, i)))
}

func seed(i int) []byte {
	d := digest(i, "seed")
	return d[:]
}

func signing(i int) candmap.SigningKey {
	return candmap.SigningKey(ed25519.NewKeyFromSeed(seed(i)).Public().(ed25519.PublicKey)) //nolint:forcetypeassert // documented
}
