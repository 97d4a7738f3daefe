package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"rolekey/cluster"
)

const keySize = 32

// Labels of what is derived from a data key.
const (
	infoKeyID     = "rolekey data key id 1"
	infoRecordKey = "rolekey record key 1"
)

// KeyID names a data key. It is derived from the key, and tells nothing about
// it.
type KeyID [8]byte

// String returns 16 hex digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// State says what a data key is used for.
type State uint8

// The states. One key is active and seals; retiring keys only open what they
// sealed before.
const (
	Active State = iota + 1
	Retiring
)

// String returns the word of the keyring file.
func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Retiring:
		return "retiring"
	default:
		return fmt.Sprintf("state(%d)", uint8(s))
	}
}

// KeyInfo describes a data key without revealing it.
type KeyInfo struct {
	ID    KeyID
	State State
}

// dataKey is one key of the ring with what is derived from it. It is handled
// by pointer only: package fmt follows no pointer below the top level, so a
// key inside another value prints as an address.
type dataKey struct {
	KeyInfo
	secret cluster.Secret
	record cipher.AEAD
}

// newDataKey derives id and record cipher of a 32-byte secret.
func newDataKey(secret []byte, state State) (*dataKey, error) {
	if len(secret) != keySize {
		return nil, fmt.Errorf("data key has %d bytes, want %d", len(secret), keySize)
	}
	id, err := hkdf.Key(sha256.New, secret, nil, infoKeyID, len(KeyID{}))
	if err != nil {
		return nil, fmt.Errorf("derive key id: %w", err)
	}
	rk, err := hkdf.Key(sha256.New, secret, nil, infoRecordKey, chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive record key: %w", err)
	}
	aead, err := chacha20poly1305.NewX(rk)
	if err != nil {
		return nil, fmt.Errorf("derive record key: %w", err)
	}
	return &dataKey{KeyInfo{KeyID(id), state}, cluster.NewSecret(secret), aead}, nil
}

// in returns the key in another state.
func (k *dataKey) in(state State) *dataKey {
	c := *k
	c.State = state
	return &c
}

// stream derives the cipher of one stream.
func (k *dataKey) stream(salt, associated []byte) (cipher.AEAD, error) {
	sk, err := hkdf.Key(sha256.New, k.secret.Reveal(), salt, string(associated), chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive stream key: %w", err)
	}
	return chacha20poly1305.New(sk)
}

// Format implements fmt.Formatter: a key prints its id and state only.
func (k *dataKey) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "%s %s [redacted]", k.ID, k.State)
}

// keySet is what a keyring holds at one time. It never changes.
type keySet struct {
	active *dataKey
	all    []*dataKey
}

// newKeySet checks the rules of a keyring: one active key, no key twice.
func newKeySet(keys []*dataKey) (*keySet, error) {
	s := &keySet{all: keys}
	if len(keys) > maxKeys {
		return nil, fmt.Errorf("%d keys, at most %d fit", len(keys), maxKeys)
	}
	seen := make(map[KeyID]bool, len(keys))
	for _, k := range keys {
		if seen[k.ID] {
			return nil, fmt.Errorf("key %s is there twice", k.ID)
		}
		seen[k.ID] = true
		if k.State != Active {
			continue
		}
		if s.active != nil {
			return nil, fmt.Errorf("keys %s and %s are both active", s.active.ID, k.ID)
		}
		s.active = k
	}
	if s.active == nil {
		return nil, fmt.Errorf("none of %d keys is active", len(keys))
	}
	return s, nil
}

func (s *keySet) find(id KeyID) (*dataKey, error) {
	for _, k := range s.all {
		if k.ID == id {
			return k, nil
		}
	}
	return nil, fmt.Errorf("key %s: %w", id, ErrWrongKey)
}
