package masterd

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/internal/paths"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/seal"
)

// While its signing key is replaced, a candidate holds two. The next one is on
// disk before the master hears of it. Which of them counts the map says: of each
// map and beacon the key that it lists of this node. A map that lists the next
// key changes the authority, and is signed with both. The key before is destroyed
// when the master orders that and this node holds such a map, never earlier: a
// voter that lacked it could not help to publish that map.

// readNextSigning returns nil if there is no second key.
func readNextSigning(ring *seal.Keyring, at paths.Layout) (ed25519.PrivateKey, error) {
	key, err := readSigning(ring, at.NextSigningKey())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return key, err
}

func publicKey(key ed25519.PrivateKey) candmap.SigningKey {
	public, _ := key.Public().(ed25519.PublicKey)
	return candmap.SigningKey(public)
}

// settle notes which key the map lists of this node.
func (v *vault) settle(listed candmap.SigningKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.settleLocked(listed)
}

func (v *vault) settleLocked(listed candmap.SigningKey) {
	if v.other != nil && bytes.Equal(publicKey(v.other), listed) {
		v.signing, v.other = v.other, v.signing
	}
}

// signers returns the signing keys, that of the map first.
func (v *vault) signers() []ed25519.PrivateKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	var keys []ed25519.PrivateKey
	for _, k := range []ed25519.PrivateKey{v.signing, v.other} {
		if k != nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// newestLocked is the key that was made last, which is the one to be listed.
func (v *vault) newestLocked() ed25519.PrivateKey {
	if v.other == nil {
		return v.signing
	}
	if next, err := readNextSigning(v.ring, v.at); err == nil && next != nil {
		return next
	}
	return v.signing
}

// orderLocked does what the master orders about signing keys.
func (v *vault) orderLocked(o *rpc.SigningOrder, listed candmap.SigningKey) error {
	v.settleLocked(listed)
	if len(listed) > 0 && bytes.Equal(o.Keep, listed) {
		if !bytes.Equal(publicKey(v.signing), listed) {
			return keysLost("the signing key that the map lists is not here")
		}
		if err := v.retireLocked(); err != nil {
			return err
		}
	}
	avoided := func() bool {
		newest := publicKey(v.newestLocked())
		return slices.ContainsFunc(o.Avoid, func(k candmap.SigningKey) bool { return bytes.Equal(k, newest) })
	}
	if !avoided() {
		return v.refreshLocked(o, listed)
	}
	// An earlier renewal may not have been ended here; the map lists its key.
	if err := v.retireLocked(); err != nil {
		return err
	}
	if v.other != nil {
		return errors.New("make signing key: the one before is still needed")
	}
	if err := createSigning(v.ring, v.at.NextSigningKey()); err != nil {
		return err
	}
	next, err := readNextSigning(v.ring, v.at)
	v.other = next
	return err
}

// refreshLocked replaces a next key that lies there for long: the renewal that it
// was made for was given up. The master that orders a renewal has committed no map
// that lists it, or it would have it avoided.
func (v *vault) refreshLocked(o *rpc.SigningOrder, listed candmap.SigningKey) error {
	if len(o.Avoid) == 0 || v.other == nil || !bytes.Equal(publicKey(v.signing), listed) || !pki.LiesLong(v.at.NextSigningKey(), time.Now()) {
		return nil
	}
	if err := createSigning(v.ring, v.at.NextSigningKey()); err != nil {
		return err
	}
	next, err := readNextSigning(v.ring, v.at)
	if err == nil {
		clear(v.other)
		v.other = next
	}
	return err
}

// retireLocked destroys the key that came before the one of the map. A key that
// is still to come stays.
func (v *vault) retireLocked() error {
	if v.other == nil {
		return nil
	}
	next, err := readNextSigning(v.ring, v.at)
	if err != nil || next == nil || !next.Equal(v.signing) {
		return err
	}
	// A crash in between leaves the key under both names.
	if err := v.ring.SealFile(v.at.SigningKey(), purposeSigningKey, secretOf(next)); err != nil {
		return fmt.Errorf("retire signing key: %w", err)
	}
	if err := atomicfile.Remove(v.at.NextSigningKey()); err != nil {
		return fmt.Errorf("retire signing key: %w", err)
	}
	clear(v.other)
	v.other = nil
	return nil
}

func secretOf(key ed25519.PrivateKey) cluster.Secret { return cluster.NewSecret(key.Seed()) }
