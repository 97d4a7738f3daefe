package masterd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// signedKey is where the stable store keeps the newest version signed.
var signedKey = []byte("rolekey/signed")

// signWait is how long a request waits for this node's log to reach the
// version that is to be signed.
const signWait = 3 * time.Second

// signed is the newest map version that this voter signed. It is on disk
// before the signature leaves, so that a restart cannot sign another form.
type signed struct {
	Version cluster.Version `json:"version"`
	Hash    cluster.Digest  `json:"hash"`
}

// voter is what the signer needs of raft.
type voter interface {
	State() *state.State
	Watch() <-chan struct{}
	Term() uint64
	Leader() raft.ServerID
}

// signer signs maps and beacons that this node's own log yields, for the
// leader of the current term and nobody else (DESIGN 4.2, 4.5).
type signer struct {
	node   voter
	self   cluster.NodeID
	keys   func() []ed25519.PrivateKey
	stable raft.StableStore
	now    func() time.Time
	evicts func(cluster.NodeID) bool // nil: nobody

	mu   sync.Mutex
	last signed
}

func newSigner(n voter, self cluster.NodeID, keys func() []ed25519.PrivateKey, stable raft.StableStore, now func() time.Time) (*signer, error) {
	last, err := readSigned(stable)
	if err != nil {
		return nil, err
	}
	return &signer{node: n, self: self, keys: keys, stable: stable, now: now, last: last}, nil
}

// readSigned returns the newest version signed; zero if there is none.
func readSigned(stable raft.StableStore) (signed, error) {
	b, err := stable.Get(signedKey)
	switch {
	case err != nil && err.Error() == "not found": // raft's convention
		return signed{}, nil
	case err != nil:
		return signed{}, fmt.Errorf("read newest signed version: %w", err)
	}
	var last signed
	if err := json.Unmarshal(b, &last); err != nil {
		return signed{}, fmt.Errorf("read newest signed version: %w", err)
	}
	if last.Version.IsZero() || last.Hash.IsZero() {
		return signed{}, errors.New("read newest signed version: it is empty")
	}
	return last, nil
}

// writeSigned is durable when it returns.
func writeSigned(stable raft.StableStore, s signed) error {
	b, err := json.Marshal(s)
	if err == nil {
		err = stable.Set(signedKey, b)
	}
	if err != nil {
		return fmt.Errorf("remember what is signed: %w", err)
	}
	return nil
}

// newest returns the newest version signed.
func (s *signer) newest() cluster.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Version
}

// sign answers a request of the named peer. There are two signatures of a map
// while the signing key is replaced, that of the key which the map lists first.
func (s *signer) sign(ctx context.Context, peer cluster.NodeID, req rpc.SignRequest) ([]candmap.Signature, error) {
	if err := s.fromLeader(peer, req.Term); err != nil {
		return nil, err
	}
	keys := s.keys()
	if len(keys) == 0 {
		return nil, cluster.Errorf(cluster.CodeUnavailable, "this node holds no signing key")
	}
	switch req.PayloadType {
	case candmap.MapType:
		return s.signMap(ctx, keys, peer, req)
	case candmap.BeaconType:
		return s.signBeacon(keys, req)
	default:
		return nil, cluster.Errorf(cluster.CodeUnsupportedFormat, "documents of type %.60q are not signed here", req.PayloadType)
	}
}

// evicted reports whether local root has evicted a node.
func (s *signer) evicted(id cluster.NodeID) bool { return s.evicts != nil && s.evicts(id) }

// fromLeader refuses everybody but the leader of the current term, and it too if
// it is evicted.
func (s *signer) fromLeader(peer cluster.NodeID, term uint64) error {
	if s.evicted(peer) {
		return cluster.Errorf(cluster.CodeEvicted, "root on this voter has evicted the leader; nothing is signed for it")
	}
	leader, _, err := consensus.ParseServerID(s.node.Leader())
	if now := s.node.Term(); err != nil || leader != peer || term != now {
		return cluster.Errorf(cluster.CodeNotMaster, "signatures go to the leader of raft term %d only", now)
	}
	return nil
}

func (s *signer) signMap(ctx context.Context, keys []ed25519.PrivateKey, leader cluster.NodeID, req rpc.SignRequest) ([]candmap.Signature, error) {
	if newest := s.newest(); newest.Newer(req.Version) {
		// After a restart the log first has to reach what was signed before.
		if _, err := s.entry(ctx, newest); err != nil {
			return nil, err
		}
	}
	entry, err := s.entry(ctx, req.Version)
	if err == nil {
		err = s.fromLeader(leader, req.Term) // it may have waited
	}
	if err != nil {
		return nil, err
	}
	if entry.Hash != req.Hash {
		return nil, cluster.Errorf(cluster.CodeMapFork, "this voter's log yields another map %s: %s, not %s", req.Version, entry.Hash.Short(), req.Hash.Short())
	}
	m, err := candmap.DecodeMap(entry.Payload)
	if err != nil {
		return nil, err
	}
	if err := s.timely(m, entry, leader); err != nil {
		return nil, err
	}
	if err := s.remember(entry); err != nil {
		return nil, err
	}
	return signWith(s.ordered(keys, m), candmap.MapType, entry.Payload)
}

// ordered puts the key that a map lists of this node first.
func (s *signer) ordered(keys []ed25519.PrivateKey, m *candmap.Map) []ed25519.PrivateKey {
	for _, c := range m.Candidates {
		for i, k := range keys {
			if c.UUID == s.self && bytes.Equal(publicKey(k), c.Signing) {
				return append([]ed25519.PrivateKey{k}, slices.Delete(slices.Clone(keys), i, i+1)...)
			}
		}
	}
	return keys
}

func signWith(keys []ed25519.PrivateKey, payloadType string, payload []byte) (sigs []candmap.Signature, err error) {
	for _, k := range keys {
		sig, err := candmap.Sign(k, payloadType, payload)
		if err != nil {
			return nil, err
		}
		sigs = append(sigs, sig)
	}
	return sigs, nil
}

// entry waits until this node's own log yields the version.
func (s *signer) entry(ctx context.Context, v cluster.Version) (state.ChainEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, signWait)
	defer cancel()
	for {
		changed := s.node.Watch()
		if e, ok := s.node.State().Entry(v); ok {
			return e, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return state.ChainEntry{}, cluster.Errorf(cluster.CodeNotFound, "this voter's log does not hold map %s", v)
		}
	}
}

// timely checks what binds a map to its time and its master. A version that
// an earlier leader committed and could not publish is only completed: its
// time has passed and its master may be gone, even evicted, and its age makes
// nobody trust it any longer; without it the next could not be published.
func (s *signer) timely(m *candmap.Map, e state.ChainEntry, leader cluster.NodeID) error {
	now := s.now()
	if m.Issued.After(now.Add(candmap.MaxSkew)) {
		return cluster.Errorf(cluster.CodeBadFormat, "map %s is issued %s in this voter's future: compare the clocks", m.At(), m.Issued.Sub(now).Round(time.Millisecond))
	}
	if e.Term != s.node.Term() {
		return nil
	}
	if m.Master != leader {
		return cluster.Errorf(cluster.CodeNotMaster, "map %s names another master than the leader of its term", m.At())
	}
	// A time in the past makes nobody trust the map for longer. However old it
	// is, it must be signed in the end: it is committed, the voters may have been
	// out of reach for long, and no later version can be published before it.
	return nil
}

// remember writes down what is about to be signed. It refuses, for ever, the
// same version in another form, and any version of a log that does not lead to,
// or from, the newest one signed: only that one is kept.
func (s *signer) remember(e state.ChainEntry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest, ok := s.node.State().Entry(s.last.Version)
	switch c := e.Version.Compare(s.last.Version); {
	case ok && newest.Hash != s.last.Hash, !ok && c < 0, c == 0 && e.Hash != s.last.Hash: // absent before a newer one: forgotten
		return cluster.Errorf(cluster.CodeMapFork, "this voter has signed another map %s than its log yields", s.last.Version)
	case c <= 0:
		return nil
	}
	next := signed{e.Version, e.Hash}
	if err := writeSigned(s.stable, next); err != nil {
		return err
	}
	s.last = next
	return nil
}

func (s *signer) signBeacon(keys []ed25519.PrivateKey, req rpc.SignRequest) ([]candmap.Signature, error) {
	b, err := candmap.DecodeBeacon(req.Payload)
	if err != nil {
		return nil, err
	}
	st := s.node.State()
	e, ok := st.Entry(b.At())
	switch skew := s.now().Sub(b.Time); {
	case b.Cluster != st.Cluster.UUID || !ok || !bytes.Equal(e.Hash[:], b.Map[:]):
		return nil, cluster.Errorf(cluster.CodeNotFound, "this voter's log does not hold the map of the beacon")
	case s.newest().Newer(b.At()):
		return nil, cluster.Errorf(cluster.CodeMapOlder, "this voter has signed a newer map than %s", b.At())
	case skew.Abs() > candmap.MaxSkew:
		return nil, cluster.Errorf(cluster.CodeBadFormat, "the beacon's time is %s from this voter's clock: compare the clocks", skew.Round(time.Millisecond))
	}
	m, err := candmap.DecodeMap(e.Payload)
	if err != nil {
		return nil, err
	}
	if s.evicted(m.Master) {
		return nil, errClockOnly
	}
	return signWith(s.ordered(keys, m)[:1], candmap.BeaconType, req.Payload)
}

// errRestored stops a daemon whose disk is older than what others saw from it.
var errRestored = errors.New("this disk is a restored or cloned copy: other nodes have seen newer raft entries or signatures of this node; remove the node and add it again")
