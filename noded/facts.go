package noded

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"

	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/noded/ssconf"
	"rolekey/rpc"
)

// Bounds of the search for private keys.
const (
	searchFiles = 4000
	searchSize  = 64 << 10
	searchDepth = 3
	maxCopies   = 64
)

// serveFacts tells what verify wants to know beyond the node's state.
func (m *member) serveFacts(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.FactsRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	f := rpc.NodeFacts{Files: m.derivedFiles(), Modes: m.wrongModes(), Gossip: []cluster.NodeID{}, Unsaved: m.keeper.Unsaved()}
	f.Copies, f.Unsearched = m.copies(req.Keys)
	f.Derived = m.ssh.differs(ctx, m.keeper.View())
	for _, o := range m.gossip.Members() {
		if o.State == gossip.StateAlive {
			f.Gossip = append(f.Gossip, o.Node)
		}
	}
	return f, nil
}

// derivedFiles hashes the files that are the same on all nodes.
func (m *member) derivedFiles() map[string]cluster.Digest {
	out := map[string]cluster.Digest{}
	for _, name := range ssconf.Names {
		text, err := readSmall(m.cfg.Paths.SSConf(name))
		if err == nil && text != nil {
			out["ssconf_"+name] = cluster.DigestOf(text)
		}
	}
	return out
}

// userOf is the user that a folder belongs to.
func userOf(dir string, otherwise int) int {
	if info, err := os.Lstat(dir); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			return int(st.Uid)
		}
	}
	return otherwise
}

// copies searches for private halves of the keys where root keeps such files.
// Where this node itself keeps its own is no copy. It also tells which folders
// have more files than are looked at.
func (m *member) copies(keys []cluster.SSHKey) (out []rpc.KeyCopy, cut []string) {
	out = []rpc.KeyCopy{}
	if len(keys) == 0 {
		return out, nil
	}
	account, err := m.ssh.finder.account()
	if err != nil {
		return out, []string{"all: " + err.Error()}
	}
	seen := map[string]bool{}
	ours := m.cfg.Paths.SSHDir()
	// Each folder has its own bound: what fills one, /tmp above all, hides nothing
	// in another. /home is left out: it may be another machine's, which hangs.
	dirs := []string{filepath.Join(account.Home, ".ssh"), m.cfg.Paths.In("/etc/ssh"), m.cfg.Paths.StateDir(), account.Home}
	for _, dir := range []string{"/tmp", "/var/tmp", "/var/backups"} {
		dirs = append(dirs, m.cfg.Paths.In(dir))
	}
	for _, dir := range dirs {
		left := searchFiles
		walk(dir, searchDepth, &left, func(path string) {
			if seen[path] || filepath.Dir(path) == ours && m.candidate(m.keeper.View()) || len(out) == maxCopies {
				return
			}
			seen[path] = true
			if k, ok := privateKeyIn(path); ok && hasKey(keys, k) {
				out = append(out, rpc.KeyCopy{Path: path, Key: k})
			}
		})
		if left < 0 {
			cut = append(cut, dir)
		}
	}
	return out, cut
}

// walk calls f for regular files, follows no links, and stops after so many.
func walk(dir string, depth int, left *int, f func(path string)) {
	entries, err := os.ReadDir(dir)
	if err != nil || depth == 0 {
		return
	}
	for _, e := range entries {
		if *left--; *left < 0 {
			return
		}
		path := filepath.Join(dir, e.Name())
		switch {
		case e.Type().IsRegular():
			f(path)
		case e.IsDir():
			walk(path, depth-1, left, f)
		}
	}
}

// privateKeyIn returns the public half of the private key in a file. An
// encrypted key in OpenSSH's format tells it too.
func privateKeyIn(path string) (cluster.SSHKey, bool) {
	text, err := readKeyFile(path)
	if err != nil || !bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return cluster.SSHKey{}, false
	}
	defer clear(text)
	if signer, err := ssh.ParsePrivateKey(text); err == nil {
		return cluster.SSHKey{Type: signer.PublicKey().Type(), Blob: signer.PublicKey().Marshal()}, true
	}
	var locked *ssh.PassphraseMissingError
	if _, err := ssh.ParseRawPrivateKey(text); errors.As(err, &locked) && locked.PublicKey != nil {
		return cluster.SSHKey{Type: locked.PublicKey.Type(), Blob: locked.PublicKey.Marshal()}, true
	}
	return publicInside(text)
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, searchSize))
}

// publicInside reads the public half that stands in clear in a file of
// OpenSSH's format (PROTOCOL.key), whatever became of the rest.
func publicInside(text []byte) (cluster.SSHKey, bool) {
	const magic = "openssh-key-v1\x00"
	body := text
	if block, _ := pem.Decode(text); block != nil {
		body = block.Bytes
	} else if raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text))); err == nil {
		body = raw
	}
	rest, ok := bytes.CutPrefix(body, []byte(magic))
	if !ok {
		return cluster.SSHKey{}, false
	}
	var field []byte
	for i := range 5 { // cipher, kdf, its options, the number of keys, the public key
		if i == 3 {
			if len(rest) < 4 {
				return cluster.SSHKey{}, false
			}
			rest = rest[4:]
			continue
		}
		if field, rest, ok = cutString(rest); !ok {
			return cluster.SSHKey{}, false
		}
	}
	kind, _, ok := cutString(field)
	return cluster.SSHKey{Type: string(kind), Blob: bytes.Clone(field)}, ok
}

func cutString(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}
