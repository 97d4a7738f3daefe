package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

// ErrNoPair means that no certificate has been installed yet.
var ErrNoPair = errors.New("no certificate installed yet")

const (
	keyMode  = 0o600
	certMode = 0o644
)

// Pair is a certificate with its private key.
type Pair struct {
	Cert *x509.Certificate
	key  hiddenKey
}

// NewPair joins a certificate and a key that fit each other.
func NewPair(cert *x509.Certificate, key crypto.Signer) (Pair, error) {
	if !samePublic(key, cert.PublicKey) {
		return Pair{}, errors.New("make pair: the key does not fit the certificate")
	}
	return Pair{Cert: cert, key: hide(key)}, nil
}

// Key returns the private key; nil in the zero Pair.
func (p Pair) Key() crypto.Signer {
	if p.key == nil {
		return nil
	}
	return p.key()
}

// Format implements fmt.Formatter, so that no verb prints the key.
func (p Pair) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("Pair([redacted])")) }

// TLS returns the pair as crypto/tls wants it.
func (p Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.Key(), Leaf: p.Cert}
}

// Files is a pair on disk: Dir/Name.pem, Dir/Name.key, and Dir/Name.key.next
// while a replacement is under way. The certificate's rename commits a
// replacement; whoever loads the pair finishes what a crash interrupted (see
// docs/admission.rst, "Files of a pair").
type Files struct {
	Dir  string
	Name string
}

func (f Files) cert() string { return filepath.Join(f.Dir, f.Name+".pem") }
func (f Files) key() string  { return filepath.Join(f.Dir, f.Name+".key") }
func (f Files) next() string { return f.key() + ".next" }

// Load returns the installed pair, or an error that is ErrNoPair.
func (f Files) Load() (Pair, error) {
	p, err := f.load()
	if err != nil {
		return Pair{}, fmt.Errorf("load pair %s: %w", f.cert(), err)
	}
	return p, nil
}

func (f Files) load() (Pair, error) {
	text, err := readFile(f.cert())
	if errors.Is(err, fs.ErrNotExist) {
		return Pair{}, ErrNoPair
	}
	if err != nil {
		return Pair{}, err
	}
	cert, err := ParseCert(text)
	if err != nil {
		return Pair{}, err
	}
	// The key in use is tried first; its failure matters only if the next
	// key does not fit either.
	key, errKey := ReadKey(f.key())
	if errKey == nil && samePublic(key, cert.PublicKey) {
		return Pair{Cert: cert, key: hide(key)}, nil
	}
	next, errNext := ReadKey(f.next())
	if errNext != nil || !samePublic(next, cert.PublicKey) {
		return Pair{}, errors.Join(errors.New("no key fits the certificate"), errKey, errNext)
	}
	return Pair{Cert: cert, key: hide(next)}, f.promote()
}

// Prepare returns the key for the next certificate request, and makes it on
// the first call. It stays the same until Install or Discard, across
// restarts: an admission record is bound to it.
func (f Files) Prepare() (crypto.Signer, error) {
	// Loading finishes an interrupted Install, whose key would otherwise be
	// handed out again. That there is no usable pair is no hindrance: a node
	// with a damaged one needs another all the more.
	_, _ = f.load()
	key, err := ReadKey(f.next())
	if err == nil {
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errBadKey) {
		return nil, fmt.Errorf("prepare key: %w", err)
	}
	if key, err = GenerateKey(); err != nil {
		return nil, err
	}
	if err := WriteKey(f.next(), key); err != nil {
		return nil, fmt.Errorf("prepare key: %w", err)
	}
	return key, nil
}

// PrepareAnew is Prepare for a renewal that the master leads: it asks for a
// certificate at once, so that a key which lies long is of one that was given up.
func (f Files) PrepareAnew(now time.Time) (crypto.Signer, error) {
	if LiesLong(f.next(), now) {
		if err := f.Discard(); err != nil {
			return nil, fmt.Errorf("prepare key: %w", err)
		}
	}
	return f.Prepare()
}

// preparedLife is how long a key that was prepared is good for. A renewal takes
// seconds; whoever renews keys because a disk or a backup was stolen must not get
// one that lay there.
const preparedLife = time.Hour

// LiesLong reports whether the file of a prepared key is so old that it is not to
// be used any more.
func LiesLong(path string, now time.Time) bool {
	info, err := os.Lstat(path)
	return err == nil && now.Sub(info.ModTime()) > preparedLife
}

// Install makes cert the installed certificate. Its key is the prepared one,
// or the one in use. The caller has verified the certificate.
func (f Files) Install(cert *x509.Certificate) error {
	steps, err := f.installSteps(cert)
	for i := 0; err == nil && i < len(steps); i++ {
		err = steps[i]()
	}
	if err != nil {
		return fmt.Errorf("install pair %s: %w", f.cert(), err)
	}
	return nil
}

// installSteps returns the steps between which a crash is survived.
func (f Files) installSteps(cert *x509.Certificate) ([]func() error, error) {
	write := func() error {
		return atomicfile.Write(f.cert(), EncodeCert(cert.Raw), atomicfile.Durable(certMode))
	}
	if next, err := ReadKey(f.next()); err == nil && samePublic(next, cert.PublicKey) {
		return []func() error{write, f.promote}, nil
	}
	key, err := ReadKey(f.key())
	if err != nil {
		return nil, err
	}
	if !samePublic(key, cert.PublicKey) {
		return nil, errors.New("neither the prepared key nor the key in use fits the certificate")
	}
	return []func() error{write}, nil
}

// promote makes the prepared key the key in use.
func (f Files) promote() error {
	if err := os.Rename(f.next(), f.key()); err != nil {
		return err
	}
	return atomicfile.SyncDir(f.Dir)
}

// Discard forgets a prepared key. It first finishes an interrupted Install,
// whose key it would otherwise destroy.
func (f Files) Discard() error {
	if _, err := f.Load(); err != nil && !errors.Is(err, ErrNoPair) {
		return err
	}
	return removeAll(f.next())
}

// Remove destroys the pair and a prepared key: keys first, so that a crash
// leaves a certificate without a key and not the reverse.
func (f Files) Remove() error { return removeAll(f.next(), f.key(), f.cert()) }

// removeAll removes files and what interrupted writes of them left.
func removeAll(paths ...string) error {
	var errs []error
	for _, p := range paths {
		errs = append(errs, atomicfile.Remove(atomicfile.TempName(p)), atomicfile.Remove(p))
	}
	return errors.Join(errs...)
}

// WriteKey writes a private key, readable by its owner alone.
func WriteKey(path string, key crypto.Signer) error {
	text, err := EncodeKey(key)
	if err != nil {
		return err
	}
	defer clear(text.Reveal())
	return atomicfile.Write(path, text.Reveal(), atomicfile.Durable(keyMode))
}

// ReadKey reads what WriteKey wrote.
func ReadKey(path string) (crypto.Signer, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := ParseKey(cluster.NewSecret(text))
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	return key, nil
}

// readFile reads a small file; a large one is not ours.
func readFile(path string) (_ []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	text, err := io.ReadAll(io.LimitReader(file, maxPEMFile+1))
	if err != nil {
		return nil, fmt.Errorf("read file %s: %w", path, err)
	}
	if len(text) > maxPEMFile {
		return nil, fmt.Errorf("read file %s: over %d bytes", path, maxPEMFile)
	}
	return text, nil
}
