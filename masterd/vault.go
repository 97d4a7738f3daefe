package masterd

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/internal/paths"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/seal"
)

// Purposes of the sealed files; part of their seal.
const (
	purposeClientKey  = "candidate-key"
	purposeSigningKey = "signing-key"
)

// vault holds what makes this node a candidate: the client key with its
// certificate and the signing key, sealed on disk. The certificate is not
// secret. Its methods may be called concurrently.
type vault struct {
	at paths.Layout

	mu      sync.Mutex
	ring    *seal.Keyring      // nil: nothing here, or not opened
	signing ed25519.PrivateKey // that the map lists, as far as is known
	other   ed25519.PrivateKey // while one is replaced: the one before or after it
	client  *tls.Certificate   // nil: no certificate installed
}

func newVault(at paths.Layout) *vault { return &vault{at: at} }

// present reports whether anything of a candidate lies on disk.
func (v *vault) present() bool {
	for _, p := range v.files() {
		if _, err := os.Lstat(p); err == nil {
			return true
		}
	}
	return false
}

// files lists everything that a loss of role removes. The certificate goes
// first: without it, keys are not complete and nothing starts with them. The
// keyring goes last: while it is there, an interrupted removal is only repeated.
func (v *vault) files() []string {
	return []string{
		v.at.CandidateCert(), v.at.SigningKey(), v.at.NextSigningKey(), v.at.CandidateKey(), v.at.NextCandidateKey(),
		v.at.RaftDB(), v.at.SnapshotDir(), v.at.RecoveryDir() + tmpSuffix, v.at.RecoveryDir(), v.at.RecoveryNote(), v.at.Keyring(),
	}
}

// open loads the keys from disk. Nothing on disk is no error.
func (v *vault) open(ctx seal.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.openLocked(ctx)
}

func (v *vault) openLocked(ctx seal.Context) error {
	if v.ring != nil {
		if v.ring.Context() == ctx {
			return nil
		}
		return fmt.Errorf("open candidate keys: %w: destroy them first", seal.ErrKeyringForeign)
	}
	if !v.present() {
		return nil
	}
	ring, err := seal.Open(v.at.Keyring(), ctx)
	if err != nil {
		return fmt.Errorf("open candidate keys: %w", err)
	}
	signing, err := readSigning(ring, v.at.SigningKey())
	if errors.Is(err, fs.ErrNotExist) && missing(v.at.CandidateCert()) {
		return nil // their creation was interrupted; ensure completes it
	}
	if err != nil {
		return err
	}
	next, err := readNextSigning(ring, v.at)
	if err != nil {
		return err
	}
	client, err := v.readClient(ring)
	if err != nil {
		return err
	}
	if next != nil && next.Equal(signing) { // its retirement was interrupted
		if next, err = nil, atomicfile.Remove(v.at.NextSigningKey()); err != nil {
			return fmt.Errorf("read signing key: %w", err)
		}
	}
	v.ring, v.signing, v.other, v.client = ring, signing, next, client
	return nil
}

// ensure returns the public halves of the keys. Without a certificate it has
// keys in place; one that is given is installed, and must fit the keys that are
// there. Calling it again changes nothing.
func (v *vault) ensure(r rpc.LocalKeysRequest) (rpc.CandidateKeys, error) {
	return v.ensureListed(r, nil)
}

// ensureListed is ensure, and knows the signing key that the map lists of this
// node; nil: none.
func (v *vault) ensureListed(r rpc.LocalKeysRequest, listed candmap.SigningKey) (rpc.CandidateKeys, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	ctx := seal.Context{Cluster: r.Cluster, Node: r.Node, Incarnation: r.Incarnation}
	if r.Next {
		return v.nextLocked(r)
	}
	if len(r.Certificate) > 0 {
		if err := v.installLocked(ctx, r.Certificate); err != nil {
			return rpc.CandidateKeys{}, err
		}
	} else if err := v.createLocked(ctx); err != nil {
		return rpc.CandidateKeys{}, err
	}
	if r.Signing != nil {
		if err := v.orderLocked(r.Signing, listed); err != nil {
			return rpc.CandidateKeys{}, err
		}
	}
	return v.publicLocked(r)
}

// createLocked makes what is missing, in an order in which a crash leaves
// something that the next call completes.
func (v *vault) createLocked(ctx seal.Context) error {
	ring, err := v.ringLocked(ctx)
	if err != nil {
		return err
	}
	if missing(v.at.SigningKey()) {
		if err := createSigning(ring, v.at.SigningKey()); err != nil {
			return err
		}
	}
	// Even with an open ring: a crash may have come between the two keys.
	if missing(v.at.CandidateKey()) {
		// A certificate of a key that is gone would fit no other.
		if err := atomicfile.Remove(v.at.CandidateCert()); err != nil {
			return fmt.Errorf("create candidate keys: %w", err)
		}
		if err := createClient(ring, v.at.CandidateKey()); err != nil {
			return err
		}
	}
	return v.openLocked(ctx)
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// ringLocked returns the keyring that is open, or opens or makes it.
func (v *vault) ringLocked(ctx seal.Context) (*seal.Keyring, error) {
	if v.ring != nil && v.ring.Context() == ctx {
		return v.ring, nil
	}
	if err := os.MkdirAll(v.at.MasterdDir(), 0o700); err != nil {
		return nil, fmt.Errorf("create candidate keys: %w", err)
	}
	ring, err := seal.Ensure(v.at.Keyring(), ctx, v.at.SigningKey(), v.at.CandidateKey(), v.at.NextCandidateKey(), v.at.RaftDB(), v.at.SnapshotDir())
	if err != nil {
		return nil, fmt.Errorf("create candidate keys: %w", err)
	}
	return ring, nil
}

func createSigning(ring *seal.Keyring, path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("create signing key: %w", err)
	}
	return ring.SealFile(path, purposeSigningKey, cluster.NewSecret(key.Seed()))
}

func createClient(ring *seal.Keyring, path string) error {
	key, err := pki.GenerateKey()
	if err != nil {
		return err
	}
	text, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	return ring.SealFile(path, purposeClientKey, text)
}

func readSigning(ring *seal.Keyring, path string) (ed25519.PrivateKey, error) {
	seed, err := ring.OpenFile(path, purposeSigningKey)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	if len(seed.Reveal()) != ed25519.SeedSize {
		return nil, errors.New("read signing key: it has the wrong length")
	}
	return ed25519.NewKeyFromSeed(seed.Reveal()), nil
}

// readClient returns nil when no certificate is installed yet.
func (v *vault) readClient(ring *seal.Keyring) (*tls.Certificate, error) {
	text, err := os.ReadFile(v.at.CandidateCert())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read candidate certificate: %w", err)
	}
	cert, err := pki.ParseCert(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnfit, err)
	}
	pair, next, err := v.pairFor(ring, cert)
	if err == nil && next {
		err = v.promoteNext()
	}
	if err != nil {
		return nil, err
	}
	t := pair.TLS()
	return &t, nil
}

func (v *vault) publicLocked(r rpc.LocalKeysRequest) (rpc.CandidateKeys, error) {
	key, err := readKey(v.ring, v.at.CandidateKey())
	if err != nil {
		return rpc.CandidateKeys{}, err
	}
	csr, err := pki.NewCSR(key)
	if err != nil {
		return rpc.CandidateKeys{}, err
	}
	newest := v.newestLocked()
	proof, err := pki.ProvePossession(newest, r.Cluster, r.Node, r.Incarnation)
	if err != nil {
		return rpc.CandidateKeys{}, err
	}
	keys := rpc.CandidateKeys{CSR: csr, Signing: publicKey(newest), Possession: proof, Features: cluster.FeatureLevel}
	if v.client != nil {
		keys.Installed = cluster.DigestOf(v.client.Certificate[0])
	}
	return keys, nil
}

// destroy removes every key and all sealed state. What could not be removed
// is listed; what counts is that the map no longer names these keys.
func (v *vault) destroy() rpc.KeyDestroyReply {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.signing)
	clear(v.other)
	v.ring, v.signing, v.other, v.client = nil, nil, nil, nil
	var names []string
	for _, p := range v.files() {
		names = append(names, filepath.Base(p)) // all are in masterd's folder
	}
	return rpc.Destroyed(atomicfile.Erase(v.at.MasterdDir(), names...))
}

// publicOf returns the public half of the signing key, nil without one.
func publicOf(v *vault) candmap.SigningKey {
	key := v.signer()
	if key == nil {
		return nil
	}
	return publicKey(key)
}

// certificate returns the client certificate with its key, or nil.
func (v *vault) certificate() *tls.Certificate {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.client
}

// signer returns the signing key, or nil.
func (v *vault) signer() ed25519.PrivateKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.signing
}

// keyring returns the opened keyring, or nil.
func (v *vault) keyring() *seal.Keyring {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ring
}
