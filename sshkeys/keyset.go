package sshkeys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

// Held is a private key in the folder.
type Held struct {
	Path    string
	Key     cluster.SSHKey
	Signer  ssh.Signer
	Changed time.Time // of the file
}

func sameKey(a, b cluster.SSHKey) bool { return a.Type == b.Type && string(a.Blob) == string(b.Blob) }

// Held returns the usable keys in the folder, the older one first. What lies in
// the place of a key and is none is left out, and replaced by the next Add.
func (d KeyDir) Held() ([]Held, error) {
	var list []Held
	var errs []error
	for _, name := range []string{privateName, nextName, otherName} {
		signer, err := d.signerOf(name)
		if errors.Is(err, ErrNoKey) || errors.Is(err, errUnusable) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		h := Held{Path: filepath.Join(d.Path, name), Key: KeyOf(signer.PublicKey()), Signer: signer}
		if len(list) > 0 && sameKey(list[0].Key, h.Key) {
			continue // it was promoted
		}
		if info, err := os.Lstat(h.Path); err == nil {
			h.Changed = info.ModTime()
		}
		list = append(list, h)
	}
	return list, errors.Join(errs...)
}

// Add stores a private key, durably: as id where there is no usable key, else
// as id.next or id.other, whichever is not a second name of id. A key that is
// there already stays as it is.
func (d KeyDir) Add(private cluster.Secret, node cluster.NodeID) error {
	signer, err := ParsePrivate(private)
	if err != nil {
		return err
	}
	if err := d.ensureFolder(); err != nil {
		return err
	}
	list, err := d.Held()
	if err != nil {
		return err
	}
	key, name := KeyOf(signer.PublicKey()), privateName
	for _, h := range list {
		if sameKey(h.Key, key) {
			return nil
		}
		if filepath.Base(h.Path) == privateName {
			name = nextName
			if d.holds(nextName, h.Key) {
				name = otherName
			}
		}
	}
	return d.write(name, private, key, node)
}

// write never leaves a public half beside a private one that it does not fit: ssh
// would offer that, and could not prove it.
func (d KeyDir) write(name string, private cluster.Secret, key cluster.SSHKey, node cluster.NodeID) error {
	if err := errors.Join(d.erase(name+".pub"), d.makeWay(name)); err != nil {
		return err
	}
	if err := d.step("ssh key is written"); err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(d.Path, name), private.Reveal(), atomicfile.Durable(0o600)); err != nil {
		return err
	}
	if err := d.step("its public half is written"); err != nil {
		return err
	}
	return d.writePublicOf(name, key, node)
}

func (d KeyDir) erase(names ...string) error {
	_, remains := atomicfile.Erase(d.Path, names...)
	return errors.Join(remains...)
}

func (d KeyDir) step(name string) error {
	if d.Step == nil {
		return nil
	}
	return d.Step(name)
}

// holds reports whether a file holds a private key.
func (d KeyDir) holds(name string, k cluster.SSHKey) bool {
	signer, err := d.signerOf(name)
	return err == nil && sameKey(KeyOf(signer.PublicKey()), k)
}

// secondNames are the files that hold a key beside its own, with their public
// halves.
func (d KeyDir) secondNames(h Held) (names []string) {
	for _, name := range []string{nextName, otherName} {
		if name != filepath.Base(h.Path) && d.holds(name, h.Key) {
			names = append(names, name, name+".pub")
		}
	}
	return names
}

// Keep destroys all keys in the folder but those; the next one becomes id when id
// goes. It returns what it removed, and one error for each that remains.
func (d KeyDir) Keep(keep []cluster.SSHKey, node cluster.NodeID) (removed []string, remains []error) {
	list, err := d.Held()
	if err != nil {
		return nil, []error{err}
	}
	wanted := func(h Held) bool {
		return slices.ContainsFunc(keep, func(k cluster.SSHKey) bool { return sameKey(k, h.Key) })
	}
	for _, h := range list {
		if wanted(h) {
			continue
		}
		names := d.secondNames(h) // first: what is left after a crash must not look like the next key
		if filepath.Base(h.Path) != privateName || len(list) < 2 || !wanted(list[1]) {
			names = append(names, filepath.Base(h.Path), filepath.Base(h.Path)+".pub")
		} // else the rename below replaces it
		if err := d.step("ssh key is removed"); err != nil {
			return removed, append(remains, err)
		}
		gone, left := atomicfile.Erase(d.Path, names...)
		removed, remains = append(removed, gone...), append(remains, left...)
	}
	last := len(list) - 1
	if last < 0 || filepath.Base(list[last].Path) == privateName || !wanted(list[last]) || last == 1 && wanted(list[0]) {
		return removed, remains
	}
	if err := d.promote(list[last], node); err != nil {
		return removed, append(remains, err)
	}
	if last == 1 {
		removed = append(removed, list[0].Path)
	}
	return removed, remains
}

// promote makes the next key the key id: one step, which also destroys the one
// before. The key keeps its other name until it is replaced itself: ssh reads a
// private key only when the server wants it, and a login that is under way must
// find it where it was when ssh offered it, however soon there is a next one.
// The public half of the one before goes first.
func (d KeyDir) promote(h Held, node cluster.NodeID) error {
	if err := d.step("public half of the old ssh key is removed"); err != nil {
		return err
	}
	link := atomicfile.TempName(d.PrivateFile())
	if err := errors.Join(d.erase(publicName, filepath.Base(link)), d.makeWay(privateName)); err != nil {
		return err
	}
	if err := os.Link(h.Path, link); err != nil {
		link = h.Path // a file system without links
	}
	if err := d.step("ssh key takes the place of the old one"); err != nil {
		return err
	}
	if err := os.Rename(link, d.PrivateFile()); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(d.Path); err != nil {
		return err
	}
	if err := d.step("its public half is written anew"); err != nil {
		return err
	}
	return d.writePublicOf(privateName, h.Key, node)
}

// Tidy finishes what a crash interrupted: a key without an id becomes id, and the
// public halves are those of the private ones.
func (d KeyDir) Tidy(node cluster.NodeID) error {
	err := atomicfile.RemoveTemp(d.Path)
	list, heldErr := d.Held()
	if err = errors.Join(err, heldErr); err == nil && len(list) == 1 && list[0].Path != d.PrivateFile() {
		err = d.promote(list[0], node)
	}
	for _, name := range []string{privateName, nextName, otherName} {
		switch signer, readErr := d.signerOf(name); {
		case err != nil:
		case readErr == nil:
			err = d.writePublicOf(name, KeyOf(signer.PublicKey()), node)
		case exists(filepath.Join(d.Path, name+".pub")):
			err = d.erase(name + ".pub")
		}
	}
	if err != nil {
		return fmt.Errorf("tidy ssh keys: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Publish writes the public halves of keys that are held in memory alone, at
// most two, and returns their paths in that order. A key keeps the name that it
// has: ssh reads its configuration first and these files later, and a login that
// began with a name must find the same key there. Without the agent ssh takes the
// file for a private key, and complains of a mode that others may read.
func (d KeyDir) Publish(keys []cluster.SSHKey, node cluster.NodeID) ([]string, error) {
	names := d.agentNames(keys)
	var errs []error
	for _, name := range []string{agentPublic, agentNext} {
		if slices.Contains(names, name) {
			continue
		}
		if err := os.Remove(filepath.Join(d.Path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	var paths []string
	for i, name := range names {
		if err := errors.Join(d.ensureFolder(), d.writePublic(name, keys[i], node, 0o600)); err != nil {
			errs = append(errs, err)
			continue
		}
		paths = append(paths, filepath.Join(d.Path, name))
	}
	return paths, errors.Join(errs...)
}

// agentNames chooses a name for each of the first two keys.
func (d KeyDir) agentNames(keys []cluster.SSHKey) []string {
	keys = keys[:min(len(keys), 2)]
	names := make([]string, len(keys))
	free := []string{}
	for _, name := range []string{agentPublic, agentNext} {
		i := -1
		if line, err := os.ReadFile(filepath.Join(d.Path, name)); err == nil {
			has, err := ParsePublicLine(line)
			i = slices.IndexFunc(keys, func(k cluster.SSHKey) bool { return err == nil && sameKey(k, has) })
		}
		if i < 0 || names[i] != "" {
			free = append(free, name)
		} else {
			names[i] = name
		}
	}
	for i := range names {
		if names[i] == "" {
			names[i], free = free[0], free[1:]
		}
	}
	return names
}
