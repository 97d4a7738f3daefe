package noded

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/pki"
)

// installation is what makes this machine a node, whether it founded the
// cluster or was admitted. It is put together in a temporary folder; the
// folder's rename is the commit.
type installation struct {
	id       identity
	cas      [][]byte // DER, of the authorities that are trusted
	server   []byte   // DER
	identity []byte   // DER
	gossip   []byte
	first    candmap.Envelope // the map that is pinned
	chain    []candmap.Envelope
	docs     [][]byte
	older    []candmap.Envelope // maps before first, which others may need
	contact  bool               // the keyserver is to be told of the first contact
}

// prepare returns the certificate requests of the keys in a temporary folder,
// and makes the keys on the first call.
func prepare(dir string) (server, identity csr, err error) {
	if server, err = newCSR(dir, serverPair); err != nil {
		return server, identity, err
	}
	identity, err = newCSR(dir, identityPair)
	return server, identity, err
}

// csr is a certificate request and the pin of its key.
type csr struct {
	der []byte
	pin cluster.Digest
}

// newCSR asks again with the key of a certificate that an interrupted run
// installed: to the cluster, the key is this machine.
func newCSR(dir, name string) (csr, error) {
	files := pki.Files{Dir: dir, Name: name}
	if p, err := files.Load(); err == nil {
		return csrOf(p.Key())
	}
	key, err := files.Prepare()
	if err != nil {
		return csr{}, err
	}
	return csrOf(key)
}

func csrOf(key crypto.Signer) (csr, error) {
	der, err := pki.NewCSR(key)
	if err != nil {
		return csr{}, err
	}
	pin, err := pki.PinOfKey(key.Public())
	return csr{der, pin}, err
}

// install verifies everything once more, writes it to the temporary folder and
// the map folder, and commits.
func (d *Daemon) install(ctx context.Context, tmp string, in installation) error {
	roots, err := in.verify(d)
	if err != nil {
		return err
	}
	if err := d.step("write"); err != nil {
		return err
	}
	if err := in.write(tmp, roots); err != nil {
		return err
	}
	if err := d.step("map"); err != nil {
		return err
	}
	if err := d.installMap(ctx, in); err != nil {
		return err
	}
	if err := d.step("commit"); err != nil {
		return err
	}
	return d.commit(tmp)
}

// verify checks the CA and the certificates against each other and the node.
func (in *installation) verify(d *Daemon) (*pki.Roots, error) {
	roots, err := rootsOf(in.cas)
	if err != nil {
		return nil, cluster.Errorf(cluster.CodeIdentityMismatch, "the CA certificate is not one: %v", err)
	}
	if roots.Cluster() != in.id.Cluster {
		return nil, cluster.Errorf(cluster.CodeIdentityMismatch, "the CA certificate is that of cluster %s, not of %s", roots.Cluster(), in.id.Cluster).
			WithHint("somebody else answered, or the cluster is misconfigured; do not go on before you know")
	}
	for _, c := range []struct {
		der  []byte
		kind pki.Kind
	}{{in.server, pki.KindServer}, {in.identity, pki.KindIdentity}} {
		cert, err := pki.ParseCertDER(c.der)
		if err != nil {
			return nil, err
		}
		got, err := pki.VerifyChain(roots, []*x509.Certificate{cert}, c.kind, d.cfg.now())
		if err != nil {
			return nil, err
		}
		if got.Node != in.id.Node {
			return nil, cluster.Errorf(cluster.CodeIdentityMismatch, "the %s certificate is that of node %s, not of %s", c.kind, got.Node, in.id.Node)
		}
	}
	return roots, nil
}

// write puts everything but the map into the temporary folder. Install refuses
// certificates that do not fit the prepared keys.
func (in *installation) write(tmp string, roots *pki.Roots) error {
	for name, der := range map[string][]byte{serverPair: in.server, identityPair: in.identity} {
		cert, err := pki.ParseCertDER(der)
		if err != nil {
			return err
		}
		if err := (pki.Files{Dir: tmp, Name: name}).Install(cert); err != nil {
			return err
		}
	}
	if in.contact {
		if err := atomicfile.Write(filepath.Join(tmp, contactFile), nil, atomicfile.Durable(0o600)); err != nil {
			return err
		}
	}
	if err := atomicfile.Write(filepath.Join(tmp, gossipFile), in.gossip, atomicfile.Durable(0o600)); err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(tmp, "ca.pem"), roots.Encode(), atomicfile.Durable(0o644)); err != nil {
		return err
	}
	return in.id.write(tmp)
}

// installMap makes the map folder anew. Without an identity nothing in it
// counts: it is what an interrupted attempt left.
func (d *Daemon) installMap(ctx context.Context, in installation) error {
	if err := os.RemoveAll(d.cfg.Paths.MapDir()); err != nil {
		return fmt.Errorf("clear map folder: %w", err)
	}
	store, err := candmap.NewFileStore(d.cfg.Paths.MapDir())
	if err != nil {
		return err
	}
	k, err := candmap.NewKeeper(candmap.KeeperConfig{Cluster: in.id.Cluster, Store: store, Clocks: d.cfg.clocks(), Log: d.log.Named("map")})
	if err != nil {
		return err
	}
	ack, err := k.Join(ctx, in.first, in.first.Hash(), in.chain, in.docs)
	if err != nil {
		return err
	}
	if !ack.Durable || len(ack.Missing) > 0 {
		return fmt.Errorf("store the map: %d roster documents missing, problems: %q", len(ack.Missing), ack.Problems)
	}
	if len(in.older) > 0 {
		if err := k.Fill(ctx, in.older); err != nil {
			d.log.Warn("older maps are not kept here", zap.Error(err))
		}
	}
	return atomicfile.SyncDir(d.cfg.Paths.StateDir())
}

// commit makes the temporary folder the node folder. An empty one may be
// there: packages make it.
func (d *Daemon) commit(tmp string) error {
	if err := atomicfile.SyncDir(tmp); err != nil {
		return err
	}
	if err := unix.Rename(tmp, d.cfg.Paths.NodeDir()); err != nil {
		return fmt.Errorf("install node folder %s: %w", d.cfg.Paths.NodeDir(), err)
	}
	if err := atomicfile.SyncDir(d.cfg.Paths.StateDir()); err != nil {
		return err
	}
	for _, name := range []string{requestFile, recoveryNote} {
		if err := atomicfile.Remove(filepath.Join(d.cfg.Paths.NodeDir(), name)); err != nil {
			d.log.Warn("a file of the installation is left behind", zap.Error(err)) // it means nothing there
		}
	}
	return nil
}

// Files of a temporary folder: what is under way, and the public half of the
// recovery key that is stored.
const (
	requestFile  = "request.json"
	recoveryNote = "recovery.json"
)

func (d *Daemon) initDir() string { return filepath.Join(d.cfg.Paths.StateDir(), "init.tmp") }
func (d *Daemon) joinDir() string { return filepath.Join(d.cfg.Paths.StateDir(), "join.tmp") }
func (d *Daemon) restoreDir() string {
	return filepath.Join(d.cfg.Paths.StateDir(), "restore.tmp")
}

// underWay refuses where something else was interrupted that makes this machine
// a node.
func (d *Daemon) underWay(mine string) error {
	for dir, what := range map[string]string{d.initDir(): "gnt-cluster init", d.joinDir(): "noded join", d.restoreDir(): "gnt-cluster restore"} {
		if dir != mine && exists(filepath.Join(dir, requestFile)) {
			return cluster.Errorf(cluster.CodeConflict, "an interrupted %s is under way on this node", what).
				WithHint("run it again to complete it, or give it up with noded leave --yes")
		}
	}
	return nil
}

// vacant fails if this node belongs to a cluster already.
func (d *Daemon) vacant() error {
	id, err := readIdentity(d.cfg.Paths.NodeDir())
	if err != nil {
		return err
	}
	if id != nil {
		return cluster.Errorf(cluster.CodeConflict, "this node is already in a cluster: it is %s of cluster %s", id.Name, id.Cluster).
			WithHint("noded leave --yes takes it out")
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
