package sshkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

// The names in a key folder.
const (
	privateName = "id"
	publicName  = "id.pub"
	nextName    = "id.next"
	otherName   = "id.other"  // takes turns with id.next
	agentPublic = "agent.pub" // of keys that are in memory alone: by these ssh chooses them
	agentNext   = "agent.next.pub"
)

// maxKeyFile bounds what is read of a key file.
const maxKeyFile = 64 << 10

// ErrNoKey says that the folder holds no private key.
var ErrNoKey = errors.New("no ssh key here")

// KeyDir is the folder of the node's own SSH key pair, Rolekey's own and
// nobody else's. Its owner serialises the calls.
type KeyDir struct {
	Path string
	Step func(name string) error // nil, or where a test makes a crash
}

// PrivateFile returns the path that ssh's IdentityFile names.
func (d KeyDir) PrivateFile() string { return filepath.Join(d.Path, privateName) }

// Ensure returns the public key of the pair, making the pair if there is none.
// A file in the place of the key that is not a usable key, such as a
// symbolic link, is replaced: the folder is ours, and a key that nobody can use
// would block every promotion. Mode, owner and id.pub are put right each time.
func (d KeyDir) Ensure(node cluster.NodeID) (key cluster.SSHKey, created bool, err error) {
	if node.IsZero() {
		return cluster.SSHKey{}, false, fmt.Errorf("make ssh key: no node id")
	}
	if err := d.ensureFolder(); err != nil {
		return cluster.SSHKey{}, false, fmt.Errorf("make ssh key: %w", err)
	}
	signer, err := d.signer()
	if created = errors.Is(err, ErrNoKey) || errors.Is(err, errUnusable); created {
		signer, err = d.generate(node)
	}
	if err != nil {
		return cluster.SSHKey{}, false, fmt.Errorf("make ssh key: %w", err)
	}
	key = KeyOf(signer.PublicKey())
	if err := d.writePublicOf(privateName, key, node); err != nil {
		return cluster.SSHKey{}, created, fmt.Errorf("make ssh key: %w", err)
	}
	return key, created, nil
}

// Load returns the public half of the private key on disk, or ErrNoKey.
func (d KeyDir) Load() (cluster.SSHKey, error) {
	signer, err := d.signer()
	if err != nil {
		return cluster.SSHKey{}, fmt.Errorf("load ssh key: %w", err)
	}
	return KeyOf(signer.PublicKey()), nil
}

// Present lists the files of the pair, and leftovers of interrupted writes,
// that exist. What is not on this list holds no key of ours.
func (d KeyDir) Present() ([]string, error) {
	found, err := atomicfile.Leftovers(d.Path)
	for _, name := range ownNames() {
		path := filepath.Join(d.Path, name)
		switch _, err := os.Lstat(path); {
		case err == nil:
			found = append(found, path)
		case !errors.Is(err, fs.ErrNotExist):
			return found, fmt.Errorf("look for ssh key: %w", err)
		}
	}
	return found, err
}

// Strays lists other files of the folder that hold a private key. They are not
// ours to remove, and have no business there on a node without the role.
func (d KeyDir) Strays() ([]string, error) {
	entries, err := os.ReadDir(d.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for ssh key: %w", err)
	}
	var found []string
	for _, e := range entries {
		path := filepath.Join(d.Path, e.Name())
		if e.Type().IsRegular() && !slices.Contains(ownNames(), e.Name()) && holdsPrivateKey(path) {
			found = append(found, path)
		}
	}
	return found, nil
}

// holdsPrivateKey goes by the first line, which all forms of OpenSSH and PEM
// have in common.
func holdsPrivateKey(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	head, err := io.ReadAll(io.LimitReader(f, 64))
	line, _, _ := bytes.Cut(head, []byte("\n"))
	return err == nil && bytes.HasPrefix(line, []byte("-----BEGIN ")) && bytes.Contains(line, []byte("PRIVATE KEY-----"))
}

// Destroy unlinks the pair and the leftovers of interrupted writes, whatever
// lies in their place, makes that durable, and returns the paths that it
// removed and one error for each that remains. A folder that is not there
// holds nothing. Neither the folder nor a file is followed if it is a link.
func (d KeyDir) Destroy() (removed []string, remains []error) {
	return atomicfile.Erase(d.Path, ownNames()...)
}

// ownNames are the names that this package gives to files in the folder, the
// private ones first.
func ownNames() []string {
	return []string{privateName, nextName, otherName, publicName, nextName + ".pub", otherName + ".pub", agentPublic, agentNext}
}

func (d KeyDir) ensureFolder() error {
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return err
	}
	dir, err := unix.Open(d.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open folder %s: %w", d.Path, err)
	}
	return errors.Join(unix.Fchmod(dir, 0o700), unix.Close(dir))
}

// errUnusable marks a file in the place of the key that holds no key of ours.
var errUnusable = errors.New("the file holds no usable key")

func (d KeyDir) signer() (ssh.Signer, error) { return d.signerOf(privateName) }

func (d KeyDir) signerOf(name string) (ssh.Signer, error) {
	text, err := readPrivate(filepath.Join(d.Path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoKey
	}
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: it is a symbolic link", errUnusable)
	}
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return ParsePrivate(cluster.NewSecret(text))
}

// readPrivate reads the key file and takes away what ssh would refuse it for.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is no regular file", errUnusable, path)
	}
	if info.Mode().Perm() != 0o600 {
		if err := f.Chmod(0o600); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}

func (d KeyDir) generate(node cluster.NodeID) (ssh.Signer, error) {
	text, key, err := Generate(cluster.DefaultSSHKey, Comment(node))
	if err != nil {
		return nil, err
	}
	if err := d.write(privateName, text, key, node); err != nil {
		return nil, err
	}
	return ParsePrivate(text)
}

// makeWay removes what a file cannot replace: a folder in its place, or in that
// of its temporary file.
func (d KeyDir) makeWay(name string) error {
	for _, path := range []string{filepath.Join(d.Path, name), atomicfile.TempName(filepath.Join(d.Path, name))} {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() {
			continue // the write itself tells
		}
		if _, remains := atomicfile.Erase(d.Path, filepath.Base(path)); len(remains) > 0 {
			return errors.Join(remains...)
		}
	}
	return nil
}

// writePublicOf writes the public half beside a private one unless it is right
// already. Nothing of ours reads it back: it is for people, and for ssh, which
// offers what it finds there before it reads the private half.
func (d KeyDir) writePublicOf(private string, k cluster.SSHKey, node cluster.NodeID) error {
	return d.writePublic(private+".pub", k, node, 0o644)
}

func (d KeyDir) writePublic(name string, k cluster.SSHKey, node cluster.NodeID, mode os.FileMode) error {
	path, want := filepath.Join(d.Path, name), []byte(keyText(k, node)+"\n")
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want) {
			return nil
		}
	}
	if err := d.makeWay(name); err != nil {
		return err
	}
	return atomicfile.Write(path, want, atomicfile.Durable(mode))
}
