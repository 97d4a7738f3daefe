package noded

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

// identityFormat is the number of the format of identity.json.
const identityFormat = 1

// The files of the node folder that package paths does not name.
const (
	identityFile = "identity.json"
	gossipFile   = "gossip.key"
	termFile     = "term"
	evictedFile  = "evicted.json"
	sweepFile    = "sweep.json"    // exists while SSH sessions are to be ended
	hostsFile    = "sshd.json"     // what sshd was like when the roster agreed
	addressNote  = "address.json"  // exists while the cluster address is held
	contactFile  = "first-contact" // exists until the keyserver has heard from the new node
)

// The names of the pairs of certificate and key.
const (
	serverPair   = "server"
	identityPair = "node"
)

// identity says which node of which cluster this machine is. Whoever has one is
// a member; its file appears with the folder's rename, whole.
type identity struct {
	Format      int            `json:"format"`
	Cluster     cluster.UUID   `json:"cluster"`
	Node        cluster.NodeID `json:"node"`
	Incarnation uint64         `json:"incarnation"`
	Name        cluster.Name   `json:"name"`
	Addresses   []netip.Addr   `json:"addresses"`
	Ports       cluster.Ports  `json:"ports"`
	Record      cluster.UUID   `json:"record"` // admission record; zero: founded the cluster
}

// readIdentity returns nil if the folder holds none.
func readIdentity(dir string) (*identity, error) {
	var id identity
	ok, err := readStrict(filepath.Join(dir, identityFile), &id)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if !ok {
		return nil, nil
	}
	if err := id.check(); err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	return &id, nil
}

func (id *identity) check() error {
	switch {
	case id.Format != identityFormat:
		return cluster.Errorf(cluster.CodeUnsupportedFormat, "format %d, this noded knows %d", id.Format, identityFormat)
	case id.Cluster.IsZero() || id.Node.IsZero() || id.Incarnation == 0:
		return errors.New("it names no cluster, node or incarnation")
	case len(id.Addresses) == 0 || !id.Ports.Valid():
		return errors.New("it has no address or no ports")
	}
	_, err := cluster.ParseName(string(id.Name))
	return err
}

func (id *identity) write(dir string) error {
	id.Format = identityFormat
	return writeJSON(filepath.Join(dir, identityFile), id)
}

// maxSmallFile bounds the files that noded writes for itself.
const maxSmallFile = 1 << 20

// readSmall reads a file of noded's own; nil if there is none.
func readSmall(path string) (_ []byte, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxSmallFile))
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// readStrict reads one JSON document; ok is false if there is no file.
func readStrict(path string, into any) (ok bool, err error) {
	b, err := readSmall(path)
	if err != nil || b == nil {
		return false, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return false, fmt.Errorf("%s: something follows the document", path)
	}
	return true, nil
}

// writeJSON writes a document that must survive power loss.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	return atomicfile.Write(path, append(b, '\n'), atomicfile.Durable(0o600))
}
