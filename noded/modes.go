package noded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"rolekey/rpc"
)

// guarded is a file of ours that others may not read or write.
type guarded struct {
	path   string
	most   fs.FileMode
	owners []int // whom it may belong to; the first is given it
	keep   bool  // its folder belongs to another user, who could put anything there: its owner is only told
}

func (m *member) guarded() []guarded {
	at, own := m.cfg.Paths, os.Geteuid()
	list := []guarded{{at.NodeDir(), 0o755, []int{own}, false}, {at.SSHDir(), 0o700, []int{own}, false}}
	for _, name := range []string{"server.key", "server.key.next", "node.key", "node.key.next", gossipFile} {
		list = append(list, guarded{filepath.Join(at.NodeDir(), name), 0o600, []int{own}, false})
	}
	for _, name := range []string{"id", "id.next", "id.other"} {
		list = append(list, guarded{filepath.Join(at.SSHDir(), name), 0o600, []int{own}, false})
	}
	masterd := userOf(at.MasterdDir(), own)
	for _, path := range []string{at.CandidateKey(), at.SigningKey(), at.Keyring(), at.RaftDB()} {
		list = append(list, guarded{path, 0o600, []int{masterd, own}, true})
	}
	return list
}

// wrong says what is not as it should be; a file that is not there is no fault.
func (g guarded) wrong() []string {
	info, err := os.Lstat(g.path)
	if err != nil {
		return nil
	}
	var out []string
	if info.Mode()&fs.ModeSymlink != 0 {
		out = append(out, g.path+rpc.SymbolicLink)
	} else if info.Mode().Perm()&^g.most != 0 {
		out = append(out, fmt.Sprintf("%s has mode %04o, want at most %04o", g.path, info.Mode().Perm(), g.most))
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && !slices.Contains(g.owners, int(st.Uid)) {
		out = append(out, fmt.Sprintf("%s belongs to user %d", g.path, st.Uid))
	}
	return out
}

// wrongModes finds files of ours that others may read or write who must not.
func (m *member) wrongModes() []string {
	var out []string
	for _, g := range m.guarded() {
		out = append(out, g.wrong()...)
	}
	return out
}

// mend takes rights away that nobody should have, and gives the file back to its
// owner. It follows no link, and spares a file that has another name, too.
func (g guarded) mend() (err error) {
	f, err := os.OpenFile(g.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() && (st.Nlink > 1 || !info.Mode().IsRegular()) {
		return fmt.Errorf("%s is no file of one name", g.path)
	}
	if !g.keep && !slices.Contains(g.owners, int(st.Uid)) {
		err = f.Chown(g.owners[0], -1)
	}
	return errors.Join(err, f.Chmod(info.Mode().Perm()&g.most))
}
