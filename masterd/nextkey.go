package masterd

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"rolekey/internal/atomicfile"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/seal"
)

// The client key is replaced as package pki's Files replaces one, but sealed: the
// next key lies beside the key in use, the certificate's rename commits the
// replacement, and whoever reads them finishes what a crash interrupted.

// readKey opens a sealed client key.
func readKey(ring *seal.Keyring, path string) (crypto.Signer, error) {
	secret, err := ring.OpenFile(path, purposeClientKey)
	if err != nil {
		return nil, fmt.Errorf("read candidate key: %w", err)
	}
	key, err := pki.ParseKey(secret)
	if err != nil {
		return nil, fmt.Errorf("read candidate key: %w", err)
	}
	return key, nil
}

// pairFor joins a certificate with the key in use, or with the next one.
func (v *vault) pairFor(ring *seal.Keyring, cert *x509.Certificate) (pair pki.Pair, next bool, err error) {
	key, err := readKey(ring, v.at.CandidateKey())
	if err == nil {
		if pair, err = pki.NewPair(cert, key); err == nil {
			return pair, false, nil
		}
		err = fmt.Errorf("%w: %w", errUnfit, err)
	}
	if key, nextErr := readKey(ring, v.at.NextCandidateKey()); nextErr == nil {
		if pair, nextErr := pki.NewPair(cert, key); nextErr == nil {
			return pair, true, nil
		}
	}
	return pki.Pair{}, false, err
}

// promoteNext makes the next key the key in use, which destroys the one before.
func (v *vault) promoteNext() error {
	if err := os.Rename(v.at.NextCandidateKey(), v.at.CandidateKey()); err != nil {
		return fmt.Errorf("replace candidate key: %w", err)
	}
	return atomicfile.SyncDir(v.at.MasterdDir())
}

// nextLocked returns the request for the next key, and makes that on the first
// call. It stays the same until a certificate for it is installed, or until it
// lies there for long.
func (v *vault) nextLocked(r rpc.LocalKeysRequest) (rpc.CandidateKeys, error) {
	ctx := seal.Context{Cluster: r.Cluster, Node: r.Node, Incarnation: r.Incarnation}
	if err := v.findLocked(ctx); err != nil { // which finishes an interrupted replacement
		return rpc.CandidateKeys{}, fmt.Errorf("prepare candidate key: %w", err)
	}
	if pki.LiesLong(v.at.NextCandidateKey(), time.Now()) {
		if err := atomicfile.Remove(v.at.NextCandidateKey()); err != nil {
			return rpc.CandidateKeys{}, fmt.Errorf("prepare candidate key: %w", err)
		}
	}
	key, err := readKey(v.ring, v.at.NextCandidateKey())
	if errors.Is(err, fs.ErrNotExist) {
		if err = createClient(v.ring, v.at.NextCandidateKey()); err == nil {
			key, err = readKey(v.ring, v.at.NextCandidateKey())
		}
	}
	if err != nil {
		return rpc.CandidateKeys{}, fmt.Errorf("prepare candidate key: %w", err)
	}
	keys, err := v.publicLocked(r)
	if err != nil {
		return rpc.CandidateKeys{}, err
	}
	keys.CSR, err = pki.NewCSR(key)
	return keys, err
}
