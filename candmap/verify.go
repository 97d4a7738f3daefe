package candmap

import (
	"bytes"
	"errors"
	"slices"

	"rolekey/cluster"
)

// ErrKnown says that a map is the one already held: nothing to do.
var ErrKnown = errors.New("map is already known")

// Verified is a map whose signatures were checked. Only Genesis and Follow
// make one; it never changes.
type Verified struct {
	*Map
	Envelope Envelope
	Hash     cluster.Digest

	own      basis  // what the next map needs
	by       *basis // what permitted this one; nil if it was pinned or loaded
	byClient map[cluster.Digest]*Candidate
}

func newVerified(m *Map, env Envelope, by *basis) *Verified {
	v := &Verified{Map: m, Envelope: env, Hash: env.Hash(), by: by, byClient: map[cluster.Digest]*Candidate{}}
	v.own = basis{Authority: m.Authority(), epoch: m.Epoch}
	for i := range m.Candidates {
		c := &m.Candidates[i]
		for _, d := range c.Client {
			v.byClient[d] = c
		}
	}
	return v
}

// Candidate returns the entry of a node, or nil.
func (v *Verified) Candidate(id cluster.NodeID) *Candidate {
	i, ok := slices.BinarySearchFunc(v.Candidates, id, func(c Candidate, id cluster.NodeID) int {
		return bytes.Compare(c.UUID[:], id[:])
	})
	if !ok {
		return nil
	}
	return &v.Candidates[i]
}

// ByClient returns the entry with this client certificate, or nil. It does not
// allocate.
func (v *Verified) ByClient(d cluster.Digest) *Candidate { return v.byClient[d] }

// ChangesAuthority reports whether v trusts other keys than prev did. Such
// versions are kept for ever, as the links of the chain.
func (v *Verified) ChangesAuthority(prev *Verified) bool {
	return prev == nil || v.Epoch != prev.Epoch || !v.own.Equal(prev.own.Authority)
}

// ForkError is proof that voters signed two documents for one version: an
// attack, or a copied disk that came back. Both envelopes are evidence.
type ForkError struct {
	Held, Other Envelope
	err         *cluster.Error
}

func newFork(held, other Envelope, at cluster.Version) *ForkError {
	return &ForkError{Held: held, Other: other, err: cluster.Errorf(cluster.CodeMapFork,
		"two signed documents exist for map %s: %s and %s", at, held.Hash().Short(), other.Hash().Short()).
		WithHint("signing keys were misused or a voter's disk was copied; run gnt-cluster verify")}
}

// Error implements error.
func (f *ForkError) Error() string { return f.err.Error() }

// Unwrap gives the *cluster.Error with code map_fork.
func (f *ForkError) Unwrap() error { return f.err }

// Genesis verifies a first map: its hash must be the one that was pinned by a
// trusted way (an admission string, local root), and a majority of its own
// voters must have signed it.
func Genesis(env Envelope, pin cluster.Digest) (*Verified, error) {
	if err := env.check(MapType, MaxMapPayload); err != nil {
		return nil, wrapCode("verify map", err)
	}
	if env.Hash() != pin {
		return nil, cluster.Errorf(cluster.CodeBadSignature, "verify map: hash %s is not the pinned %s", env.Hash().Short(), pin.Short())
	}
	// The pin vouches for the bytes, so they may be parsed now.
	m, err := DecodeMap(env.Payload)
	if err != nil {
		return nil, err
	}
	if !m.Authority().signedByVoters(env) {
		return nil, cluster.Errorf(cluster.CodeBadSignature, "verify map %s: no majority of its voters signed it", m.At())
	}
	return newVerified(m, env, nil), nil
}

// Follow verifies a map against the one held and returns it if it is strictly
// newer. Errors carry a code; ErrKnown is no failure.
func Follow(held *Verified, env Envelope) (*Verified, error) { return FollowAged(held, env, false) }

// FollowAged is Follow for a node that may have slept: when its trust has
// expired, keys of the authority it holds may have been stolen since, and it
// crosses no change of authority by itself.
func FollowAged(held *Verified, env Envelope, trustExpired bool) (*Verified, error) {
	if err := env.check(MapType, MaxMapPayload); err != nil {
		return nil, wrapCode("verify map", err)
	}
	if env.Hash() == held.Hash {
		return nil, ErrKnown
	}
	if !held.own.speaks(env) && !held.by.speaks(env) {
		return nil, unsigned(held)
	}
	m, err := DecodeMap(env.Payload)
	if err != nil {
		return nil, err
	}
	if m.Cluster != held.Cluster {
		return nil, cluster.Errorf(cluster.CodeBadSignature, "verify map: it is of another cluster, %s", m.Cluster)
	}
	switch m.At().Compare(held.At()) {
	case -1:
		return nil, older("map", m.At(), held.At())
	case 0:
		return nil, held.sameVersion(m, env)
	}
	return held.follow(m, env, trustExpired)
}

// sameVersion judges another payload for the version that is held.
func (v *Verified) sameVersion(m *Map, env Envelope) error {
	if v.own.permits(m, env) || v.by != nil && v.by.permits(m, env) {
		return newFork(v.Envelope, env, v.At())
	}
	return unsigned(v)
}

// follow judges a newer map.
func (v *Verified) follow(m *Map, env Envelope, trustExpired bool) (*Verified, error) {
	if !v.own.permits(m, env) {
		return nil, unsigned(v)
	}
	if m.Epoch == v.Epoch && m.Version == v.Version+1 && m.Previous != v.Hash {
		return nil, newFork(v.Envelope, env, v.At())
	}
	by := v.own // a copy: a pointer into v would keep every older map alive
	next := newVerified(m, env, &by)
	if trustExpired && next.ChangesAuthority(v) {
		return nil, cluster.Errorf(cluster.CodeTrustExpired,
			"verify map %s: it changes the authority, and this node heard nothing for more than %s", m.At(), TrustPeriod).
			WithHint("compare the hash %s with gnt-cluster map on the master, then run: noded trust %s", next.Hash, next.Hash)
	}
	return next, nil
}

// FollowChain follows each envelope that leads on, in the order given, and
// passes over those that do not. It returns the newest map reached, the
// envelopes that led there, and the error that stopped it if a later one did
// not verify. With nothing taken the map is held itself.
func FollowChain(held *Verified, envs []Envelope) (*Verified, []Envelope, error) {
	vs, err := followChain(held, envs, func(*Verified) bool { return false })
	taken := make([]Envelope, len(vs))
	for i, v := range vs {
		taken[i], held = v.Envelope, v
	}
	return held, taken, err
}

// followChain asks expired before each step whether trust in the map reached
// so far has expired.
func followChain(held *Verified, envs []Envelope, expired func(*Verified) bool) (taken []*Verified, err error) {
	if len(envs) > MaxChain {
		return nil, cluster.Errorf(cluster.CodeTooLarge, "%d maps at once, the limit is %d", len(envs), MaxChain)
	}
	var fork *ForkError
	for _, env := range envs {
		next, ferr := FollowAged(held, env, expired(held))
		switch {
		case ferr == nil:
			taken, held, err = append(taken, next), next, nil
		case errors.As(ferr, &fork):
			return taken, ferr
		case errors.Is(ferr, ErrKnown): // what came before it is behind us
			if len(taken) == 0 {
				err = ferr
			}
		case cluster.CodeOf(err) == cluster.CodeTrustExpired: // the reason for what failed since
		case cluster.CodeOf(ferr) != cluster.CodeMapOlder || len(taken) == 0 && err == nil:
			err = ferr
		}
	}
	return taken, err
}

// VerifyBeacon verifies that a majority of held's voters signed a beacon for
// held or for a later version.
func VerifyBeacon(held *Verified, env Envelope) (*Beacon, error) {
	if err := env.check(BeaconType, MaxBeaconPayload); err != nil {
		return nil, wrapCode("verify beacon", err)
	}
	if !held.own.signedByVoters(env) {
		return nil, cluster.Errorf(cluster.CodeBadSignature, "verify beacon: no majority of the voters of map %s signed it", held.At())
	}
	b, err := DecodeBeacon(env.Payload)
	if err != nil {
		return nil, err
	}
	switch order := b.At().Compare(held.At()); {
	case b.Cluster != held.Cluster:
		return nil, cluster.Errorf(cluster.CodeBadSignature, "verify beacon: it is of another cluster, %s", b.Cluster)
	case order < 0:
		return nil, older("beacon", b.At(), held.At())
	case order == 0 && b.Map != held.Hash:
		return nil, newFork(held.Envelope, env, held.At())
	}
	return b, nil
}

func unsigned(held *Verified) error {
	return cluster.Errorf(cluster.CodeBadSignature, "verify map: it lacks the signatures that map %s demands", held.At()).
		WithHint("if the voters changed since, the versions between are needed first")
}

func older(what string, at, held cluster.Version) error {
	return cluster.Errorf(cluster.CodeMapOlder, "verify %s: version %s is older than %s", what, at, held)
}
