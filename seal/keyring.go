package seal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"rolekey/internal/atomicfile"
)

// Keyring holds the data keys of one node. It may be used concurrently.
type Keyring struct {
	path string
	ctx  Context
	keys atomic.Pointer[keySet]
	mu   sync.Mutex // held while the file is replaced
}

// Create makes a keyring with one new key, on disk before it returns. It fails
// if path exists, whatever is there.
func Create(path string, ctx Context) (*Keyring, error) {
	unlock, err := lockFolder(path)
	if err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	defer unlock()
	k, err := create(path, ctx)
	if err != nil {
		return nil, fmt.Errorf("create keyring %s: %w", path, err)
	}
	return k, nil
}

func create(path string, ctx Context) (*Keyring, error) {
	if err := ctx.check(); err != nil {
		return nil, err
	}
	// The folder is locked: nobody else creates between check and rename.
	if _, err := os.Lstat(path); err == nil {
		return nil, fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := randomKey()
	if err != nil {
		return nil, err
	}
	k := &Keyring{path: path, ctx: ctx}
	if err := k.replace([]*dataKey{key}); err != nil {
		return nil, err
	}
	return k, nil
}

// Open reads the keyring at path, which must have been created for ctx. A
// missing file is ErrKeyringMissing; Open never makes one.
func Open(path string, ctx Context) (*Keyring, error) {
	k, err := open(path, ctx)
	if err != nil {
		return nil, fmt.Errorf("open keyring %s: %w", path, err)
	}
	return k, nil
}

func open(path string, ctx Context) (*Keyring, error) {
	if err := ctx.check(); err != nil {
		return nil, err
	}
	text, err := readPrivate(path, maxKeyringFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrKeyringMissing
	}
	if errors.Is(err, ErrTooLarge) {
		return nil, fmt.Errorf("%w: %w", ErrKeyringDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	owner, keys, err := parseKeyring(text)
	if err != nil {
		return nil, err
	}
	if owner != ctx {
		return nil, fmt.Errorf("%w (made for cluster %s, node %s, incarnation %d)",
			ErrKeyringForeign, owner.Cluster, owner.Node, owner.Incarnation)
	}
	// A write that was interrupted left keys under the temporary name.
	if err := atomicfile.Remove(atomicfile.TempName(path)); err != nil {
		return nil, err
	}
	k := &Keyring{path: path, ctx: ctx}
	k.keys.Store(keys)
	return k, nil
}

// Ensure opens the keyring at path, or creates it if there is none and nothing
// was sealed yet. The caller names all files and folders that hold sealed
// data: with one of them there (a folder: not empty) a missing keyring is
// ErrKeyringMissing, because a new one could open none of it.
func Ensure(path string, ctx Context, sealed ...string) (*Keyring, error) {
	unlock, err := lockFolder(path)
	if err != nil {
		return nil, fmt.Errorf("ensure keyring: %w", err)
	}
	defer unlock()
	k, err := open(path, ctx)
	if errors.Is(err, ErrKeyringMissing) {
		if err = refuseOrphans(sealed); err == nil {
			k, err = create(path, ctx)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ensure keyring %s: %w", path, err)
	}
	return k, nil
}

// Rotate makes a new active key, on disk before it returns and before anything
// is sealed with it. The old key is retiring from then on.
func (k *Keyring) Rotate() (KeyID, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := randomKey()
	if err != nil {
		return KeyID{}, fmt.Errorf("rotate data key: %w", err)
	}
	keys := []*dataKey{key}
	for _, old := range k.keys.Load().all {
		keys = append(keys, old.in(Retiring))
	}
	if err := k.replace(keys); err != nil {
		return KeyID{}, fmt.Errorf("rotate data key: %w", err)
	}
	return key.ID, nil
}

// Keys describes the keys, the active one first.
func (k *Keyring) Keys() []KeyInfo {
	var infos []KeyInfo
	for _, key := range k.keys.Load().all {
		infos = append(infos, key.KeyInfo)
	}
	return infos
}

// Context returns whose data the keyring seals.
func (k *Keyring) Context() Context { return k.ctx }

// Format implements fmt.Formatter for every verb.
func (k *Keyring) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "keyring %s [redacted]", k.path)
}

// replace makes keys the content of the file, then of the ring. Memory changes
// last: a key that is not on disk must not seal anything.
func (k *Keyring) replace(keys []*dataKey) error {
	set, err := newKeySet(keys)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(k.path, encodeKeyring(k.ctx, keys), atomicfile.Durable(0o600)); err != nil {
		return err
	}
	k.keys.Store(set)
	return nil
}

func randomKey() (*dataKey, error) {
	secret := make([]byte, keySize)
	_, _ = rand.Read(secret) // never fails since Go 1.24
	return newDataKey(secret, Active)
}

// refuseOrphans reports sealed data that lies there without its keyring.
func refuseOrphans(sealed []string) error {
	for _, path := range sealed {
		there, err := holdsData(path)
		if err != nil {
			return err
		}
		if there {
			return fmt.Errorf("%w, but %s was sealed with it: restore the keyring, or readd this node", ErrKeyringMissing, path)
		}
	}
	return nil
}

// holdsData reports whether path is a file, or a folder with something in it.
func holdsData(path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !info.IsDir() {
		return err == nil, err
	}
	entries, err := os.ReadDir(path)
	return len(entries) > 0, err
}

// lockFolder excludes other processes that would create a file in the folder
// of path at the same time.
func lockFolder(path string) (unlock func(), err error) {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock folder %s: %w", d.Name(), err), d.Close())
	}
	return func() { _ = d.Close() }, nil // closing unlocks
}

// readPrivate reads a whole file of at most limit bytes that nobody but its
// owner may read.
func readPrivate(path string, limit int64) (_ []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return nil, fmt.Errorf("others may use this file (mode %04o): check who read it, then chmod 0600", m)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("more than %d bytes: %w", limit, ErrTooLarge)
	}
	return b, err
}
