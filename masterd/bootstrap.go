package masterd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/seal"
)

// gossipKeySize is memberlist's for AES-256.
const gossipKeySize = 32

// bootstrap founds a cluster with this node alone. The commit is the rename of
// raft's first snapshot, which holds the whole first state: before it, another
// request starts anew; after it, the same request gets the same answer.
func (d *Daemon) bootstrap(_ context.Context, r *rpc.BootstrapRequest) (any, error) {
	if d.standing() != nil {
		return nil, cluster.Errorf(cluster.CodeConflict, "this node already belongs to a cluster").
			WithHint("noded leave --yes takes it out")
	}
	at := seal.Context{Cluster: r.Cluster, Node: r.Node, Incarnation: 1}
	err := d.vault.open(at)
	if errors.Is(err, seal.ErrKeyringForeign) || errors.Is(err, seal.ErrKeyringMissing) {
		return nil, cluster.Errorf(cluster.CodeConflict, "masterd already holds keys or state of another cluster in %s", d.cfg.Paths.MasterdDir()).
			WithHint("if nothing of it is needed, remove that folder and run gnt-cluster init again")
	}
	if err != nil {
		return nil, err
	}
	first, err := d.founded(at)
	if err == nil && first == nil {
		first, err = d.found(r, at)
	}
	if err != nil {
		return nil, fmt.Errorf("found cluster: %w", err)
	}
	return d.bootstrapReply(first)
}

// founded returns the state of an earlier, committed bootstrap, or nil.
func (d *Daemon) founded(at seal.Context) (*state.State, error) {
	ring := d.vault.keyring()
	if ring == nil {
		return nil, nil
	}
	snaps, err := consensus.OpenSnapshots(consensus.SnapshotsConfig{Dir: d.cfg.Paths.SnapshotDir(), Keyring: ring})
	if err != nil {
		return nil, err
	}
	list, err := snaps.List()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	_, r, err := snaps.Open(list[0].ID)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	s, err := state.DecodeSnapshot(b)
	if err == nil && s.Cluster.UUID != at.Cluster {
		err = cluster.Errorf(cluster.CodeConflict, "masterd holds the state of cluster %s", s.Cluster.UUID)
	}
	return s, err
}

// found makes the cluster's keys and first state and commits them.
func (d *Daemon) found(r *rpc.BootstrapRequest, at seal.Context) (*state.State, error) {
	ca, err := pki.NewCA(r.Cluster, r.Init.Cluster, r.Now)
	if err != nil {
		return nil, err
	}
	local := rpc.LocalKeysRequest{Cluster: r.Cluster, Node: r.Node, Incarnation: at.Incarnation, Name: r.Init.Node}
	keys, err := d.vault.ensure(local)
	if err != nil {
		return nil, err
	}
	node, err := firstNode(ca, r, keys)
	if err != nil {
		return nil, err
	}
	local.Certificate = node.Certs.Candidate
	if _, err := d.vault.ensure(local); err != nil {
		return nil, err
	}
	first, err := firstState(ca, r, node)
	if err != nil {
		return nil, err
	}
	return first, d.commitFirst(first, consensus.ServerID(r.Node, at.Incarnation))
}

func firstNode(ca *pki.CA, r *rpc.BootstrapRequest, keys rpc.CandidateKeys) (state.Node, error) {
	n := state.Node{
		UUID: r.Node, Incarnation: 1, Name: r.Init.Node, Addresses: r.Init.Addresses, Ports: r.Ports, HostKeys: r.HostKeys,
		Flags: cluster.Flags{MasterCandidate: true, MasterCapable: true, VMCapable: true},
		Keys:  &state.CandidateKeys{Signing: keys.Signing, SSH: r.SSH},
	}
	issue := func(kind pki.Kind, csr []byte) ([]byte, cluster.Digest, error) {
		c, err := pki.ParseCSR(csr)
		if err != nil {
			return nil, cluster.Digest{}, err
		}
		der, err := ca.Issue(pki.Request{Kind: kind, Node: n.UUID, Name: n.Name, Addresses: n.Addresses, PublicKey: c.PublicKey}, r.Now)
		return der, c.Pin, err
	}
	var pin cluster.Digest
	var err error
	if n.Certs.Server, pin, err = issue(pki.KindServer, r.Server); err != nil {
		return n, err
	}
	n.Server = []cluster.Digest{pin}
	if n.Certs.Identity, pin, err = issue(pki.KindIdentity, r.Identity); err != nil {
		return n, err
	}
	n.Identity = []cluster.Digest{pin}
	if n.Certs.Candidate, _, err = issue(pki.KindCandidate, keys.CSR); err != nil {
		return n, err
	}
	n.Keys.Client = []cluster.Digest{cluster.DigestOf(n.Certs.Candidate)}
	return n, nil
}

func firstState(ca *pki.CA, r *rpc.BootstrapRequest, node state.Node) (*state.State, error) {
	caKey, err := ca.MarshalKey()
	if err != nil {
		return nil, err
	}
	gossip := make([]byte, gossipKeySize)
	_, _ = rand.Read(gossip) // never fails since Go 1.24
	p := state.DefaultParams
	p.CandidatePoolSize, p.LeaseSeconds, p.SSHLeaseSeconds = r.Init.CandidatePoolSize, r.Init.LeaseSeconds, r.Init.SSHLeaseSeconds
	p.Policy, p.SSHReach, p.SSHSetup = r.Init.Policy, r.Init.SSHReach, r.Init.SSHSetup
	ssh := r.Init.SSHSettings()
	p.SSHKeyMode, p.SSHKeyType, p.SSHKeyBits, p.SSHKeyStorage = ssh.KeyMode, ssh.KeyType, ssh.KeyBits, ssh.Storage
	if a := r.Init.SSHAuthorize; a != cluster.DefaultSSHSettings.Authorize {
		p.SSHAuthorize = a // empty: the default
	}
	p.MasterAddress = r.Init.MasterAddress
	body := state.Genesis{
		Cluster: state.Cluster{UUID: r.Cluster, Name: r.Init.Cluster}, Params: p,
		CA: state.CA{Cert: ca.Cert.Raw, Key: caKey}, Gossip: cluster.NewSecret(gossip), Recovery: r.Recovery, Node: node,
		FeatureLevel: cluster.FeatureLevel,
	}
	cmd, err := state.Propose(state.New(), state.KindGenesis, body, state.Meta{Time: candmap.Stamp(r.Now), Actor: "gnt-cluster init"})
	if err != nil {
		return nil, err
	}
	first, result := state.New().Apply(cmd, 1, 1)
	if result.Err != nil {
		return nil, result.Err
	}
	return first, nil
}

func (d *Daemon) commitFirst(first *state.State, id raft.ServerID) error {
	ring := d.vault.keyring()
	store, err := consensus.OpenStore(consensus.StoreConfig{Path: d.cfg.Paths.RaftDB(), Sealer: ring})
	if err != nil {
		return err
	}
	snaps, err := consensus.OpenSnapshots(consensus.SnapshotsConfig{Dir: d.cfg.Paths.SnapshotDir(), Keyring: ring})
	if err == nil {
		head := first.Head()
		err = writeSigned(store, signed{head.Version, head.Hash}) // bootstrapReply signs it
	}
	if err == nil {
		err = consensus.Found(id, store, snaps, first)
	}
	return errors.Join(err, store.Close())
}

// bootstrapReply signs version 1, of which this node is the only voter. Two
// signatures of Ed25519 on the same bytes are the same.
func (d *Daemon) bootstrapReply(first *state.State) (rpc.BootstrapReply, error) {
	e := first.Chain[0]
	sig, err := candmap.Sign(d.vault.signer(), candmap.MapType, e.Payload)
	if err != nil {
		return rpc.BootstrapReply{}, err
	}
	m, err := candmap.DecodeMap(e.Payload)
	if err != nil {
		return rpc.BootstrapReply{}, err
	}
	n := first.Node(m.Master)
	return rpc.BootstrapReply{
		CA: first.CA.Cert, Server: n.Certs.Server, Identity: n.Certs.Identity, Gossip: first.Gossip.Reveal(),
		Map:  candmap.Merge(candmap.Envelope{PayloadType: candmap.MapType, Payload: e.Payload}, sig),
		Docs: docsOf(first.Roster()),
	}, nil
}
