package kit

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/lab"
	"rolekey/internal/paths"
	"rolekey/pki"
	"rolekey/seal"
)

// Loot is what root of a node can copy from its disk: attackers (b), (c) and
// (d) of the design. What the node does not have is nil.
type Loot struct {
	Node        lab.Node
	Cluster     cluster.UUID
	ID          cluster.NodeID
	Incarnation uint64

	Server    *tls.Certificate // serves noded
	Member    *tls.Certificate // the identity, signed by the cluster's CA
	Candidate *tls.Certificate // the RPC client certificate of a candidate
	Signing   ed25519.PrivateKey
	SSHKey    []byte // OpenSSH private key file
	Gossip    []byte
	Map       candmap.Envelope
}

// Steal copies everything. It opens the sealed files as masterd does, with the
// keyring that lies beside them.
func Steal(n lab.Node) (*Loot, error) {
	at := paths.Layout{Root: n.Root}
	l := &Loot{Node: n}
	if err := l.readIdentity(at); err != nil {
		return nil, fmt.Errorf("rob %s: %w", n.Name, err)
	}
	var err error
	if l.Server, err = readPair(at.ServerCert(), at.ServerKey()); err != nil {
		return nil, fmt.Errorf("rob %s: %w", n.Name, err)
	}
	if l.Member, err = readPair(at.IdentityCert(), at.IdentityKey()); err != nil {
		return nil, fmt.Errorf("rob %s: %w", n.Name, err)
	}
	if err := l.openVault(at); err != nil {
		return nil, fmt.Errorf("rob %s: %w", n.Name, err)
	}
	for path, into := range map[string]*[]byte{at.SSHKey(): &l.SSHKey, filepath.Join(at.NodeDir(), "gossip.key"): &l.Gossip} {
		if *into, err = readIfThere(path); err != nil {
			return nil, fmt.Errorf("rob %s: %w", n.Name, err)
		}
	}
	if l.Map, err = CurrentMap(n); err != nil {
		return nil, fmt.Errorf("rob %s: %w", n.Name, err)
	}
	return l, nil
}

// StealWhole does the same on a candidate where certificate and key of the
// candidate belong together. While they are replaced, one after the other, they
// do not for a moment.
func StealWhole(ctx context.Context, n lab.Node) (*Loot, error) {
	for {
		l, err := Steal(n)
		if err == nil && l.Candidate != nil && belongs(l.Candidate) {
			return l, nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		}
	}
}

func belongs(c *tls.Certificate) bool {
	cert, err := x509.ParseCertificate(c.Certificate[0])
	signer, ok := c.PrivateKey.(crypto.Signer)
	if err != nil || !ok {
		return false
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// Caller calls with a certificate of the loot from the robbed node's address.
func (l *Loot) Caller(cert *tls.Certificate) Caller {
	return Caller{From: netip.MustParseAddr(l.Node.Address), Node: l.Node, Cert: cert}
}

func (l *Loot) readIdentity(at paths.Layout) error {
	b, err := os.ReadFile(filepath.Join(at.NodeDir(), "identity.json"))
	if err != nil {
		return err
	}
	var id struct {
		Cluster     cluster.UUID   `json:"cluster"`
		Node        cluster.NodeID `json:"node"`
		Incarnation uint64         `json:"incarnation"`
	}
	if err := json.Unmarshal(b, &id); err != nil {
		return err
	}
	l.Cluster, l.ID, l.Incarnation = id.Cluster, id.Node, id.Incarnation
	return nil
}

// openVault takes the sealed keys, if there are any.
func (l *Loot) openVault(at paths.Layout) error {
	ring, err := seal.Open(at.Keyring(), seal.Context{Cluster: l.Cluster, Node: l.ID, Incarnation: l.Incarnation})
	if errors.Is(err, seal.ErrKeyringMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	seed, err := ring.OpenFile(at.SigningKey(), "signing-key")
	if err != nil {
		return err
	}
	l.Signing = ed25519.NewKeyFromSeed(seed.Reveal())
	key, err := ring.OpenFile(at.CandidateKey(), "candidate-key")
	if err != nil {
		return err
	}
	cert, err := os.ReadFile(at.CandidateCert())
	if err != nil {
		return err
	}
	l.Candidate, err = pairOf(cert, key)
	return err
}

func readPair(certPath, keyPath string) (*tls.Certificate, error) {
	cert, err := os.ReadFile(certPath)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, err
	}
	return pairOf(cert, cluster.NewSecret(key))
}

func pairOf(certText []byte, keyText cluster.Secret) (*tls.Certificate, error) {
	cert, err := pki.ParseCert(certText)
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseKey(keyText)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

func readIfThere(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// CurrentMap reads the envelope of the map that a node has on its disk.
func CurrentMap(n lab.Node) (candmap.Envelope, error) {
	b, err := os.ReadFile(paths.Layout{Root: n.Root}.CurrentMap())
	if err != nil {
		return candmap.Envelope{}, fmt.Errorf("read map of %s: %w", n.Name, err)
	}
	env, err := candmap.ParseEnvelope(b)
	if err != nil {
		return candmap.Envelope{}, fmt.Errorf("read map of %s: %w", n.Name, err)
	}
	return env, nil
}

// Forge returns the map that would follow the stolen one, altered at will and
// signed with the stolen signing key alone.
func (l *Loot) Forge(alter func(*candmap.Map)) (candmap.Envelope, error) {
	if l.Signing == nil {
		return candmap.Envelope{}, fmt.Errorf("forge map: %s has no signing key", l.Node.Name)
	}
	m, err := candmap.DecodeMap(l.Map.Payload)
	if err != nil {
		return candmap.Envelope{}, fmt.Errorf("forge map: %w", err)
	}
	m.Version, m.Previous = m.Version+1, l.Map.Hash()
	alter(m)
	payload, err := m.Encode()
	if err != nil {
		return candmap.Envelope{}, fmt.Errorf("forge map: %w", err)
	}
	return l.sign(candmap.MapType, payload)
}

// ForgeBeacon says that the version after the stolen map's is current.
func (l *Loot) ForgeBeacon(b candmap.Beacon) (candmap.Envelope, error) {
	payload, err := b.Encode()
	if err != nil {
		return candmap.Envelope{}, fmt.Errorf("forge beacon: %w", err)
	}
	return l.sign(candmap.BeaconType, payload)
}

func (l *Loot) sign(kind string, payload []byte) (candmap.Envelope, error) {
	sig, err := candmap.Sign(l.Signing, kind, payload)
	if err != nil {
		return candmap.Envelope{}, fmt.Errorf("sign forgery: %w", err)
	}
	return candmap.Merge(candmap.Envelope{PayloadType: kind, Payload: payload}, sig), nil
}

// CandidateFiles lists what lies on a node that only a candidate may have.
func CandidateFiles(n lab.Node) []string {
	at := paths.Layout{Root: n.Root}
	var left []string
	for _, path := range []string{
		at.SSHKey(), at.CandidateKey(), at.CandidateCert(), at.SigningKey(), at.Keyring(), at.RaftDB(), at.SnapshotDir(),
	} {
		if _, err := os.Lstat(path); err == nil {
			left = append(left, path)
		}
	}
	return left
}

// At is the version of the stolen map.
func (l *Loot) At() (cluster.Version, error) {
	m, err := candmap.DecodeMap(l.Map.Payload)
	if err != nil {
		return cluster.Version{}, fmt.Errorf("read stolen map: %w", err)
	}
	return m.At(), nil
}
