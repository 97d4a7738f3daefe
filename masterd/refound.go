package masterd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/backup"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/seal"
)

// refound makes the cluster of a backup go on with this machine alone, which is
// in no cluster. It is revive with a state from elsewhere, and with keys that
// this machine makes for the node that it will be.
func (d *Daemon) refound(ctx context.Context, r *rpc.RefoundRequest) (any, error) {
	if d.standing() != nil {
		return nil, cluster.Errorf(cluster.CodeConflict, "this node already belongs to a cluster").WithHint("noded leave --yes takes it out")
	}
	if err := d.use(ctx); err != nil {
		return nil, err
	}
	defer d.unuse()
	at := seal.Context{Cluster: r.Cluster, Node: r.Node, Incarnation: r.Incarnation}
	err := d.vault.open(at)
	if errors.Is(err, seal.ErrKeyringForeign) || errors.Is(err, seal.ErrKeyringMissing) {
		return nil, cluster.Errorf(cluster.CodeConflict, "masterd already holds keys or state of another cluster or node in %s", d.cfg.Paths.MasterdDir()).
			WithHint("if nothing of it is needed, run noded leave --yes, and this command again")
	}
	if err != nil {
		return nil, err
	}
	b, err := openArchive(r)
	if err != nil {
		return nil, err
	}
	b.vault = d.vault
	if p := d.pending.Load(); p != nil { // committed, and interrupted before noded had it
		next, err := d.founded(at)
		if err != nil || next == nil {
			return nil, errors.Join(errors.New("the committed state is not to be had"), err)
		}
		return b.reply(next, &p.delivery), nil
	}
	if err := d.reborn(b, r); err != nil {
		return nil, err
	}
	b.nodes = d.askVersions(ctx, b)
	if err := b.newerElsewhere(r.IgnoreNewer); err != nil {
		return nil, err
	}
	if len(r.Payload) == 0 {
		next, err := d.offer(b.recover, false)
		if err != nil {
			return nil, err
		}
		return b.reply(next, nil), nil
	}
	return d.commitRefound(b, r)
}

// archive is a backup with newer maps, if there are any, and this machine's node.
type archive struct {
	*backup.Backup
	newest *candmap.Verified
	maps   []candmap.Envelope
	roster *candmap.Roster // of newest; nil: the state has it
	node   state.Node
	nodes  []rpc.RecoverNode
	vault  *vault
}

func openArchive(r *rpc.RefoundRequest) (*archive, error) {
	got, err := backup.Read(bytes.NewReader(r.Backup))
	if err != nil {
		return nil, err
	}
	if got.Header.Cluster != r.Cluster {
		return nil, cluster.Errorf(cluster.CodeConflict, "the backup is of cluster %s", got.Header.Cluster)
	}
	b := &archive{Backup: got, maps: got.Maps}
	if b.newest, err = got.Newest(); err != nil {
		return nil, err
	}
	newest, taken, err := candmap.FollowChain(b.newest, r.Maps)
	if len(taken) == 0 {
		if err != nil && !errors.Is(err, candmap.ErrKnown) && cluster.CodeOf(err) != cluster.CodeMapOlder {
			return nil, fmt.Errorf("the maps that were given do not follow from the backup's: %w", err)
		}
		return b, nil
	}
	docs := map[cluster.Digest][]byte{}
	for _, doc := range r.Docs {
		docs[cluster.DigestOf(doc)] = doc
	}
	b.newest, b.maps = newest, append(slices.Clone(b.maps), taken...)
	b.roster, err = candmap.AssembleRoster(newest.Roster, func(h cluster.Digest) []byte { return docs[h] })
	return b, err
}

// reborn makes this machine's candidate keys, and its entry.
func (d *Daemon) reborn(b *archive, r *rpc.RefoundRequest) error {
	ca, err := pki.ParseCA(b.State.CA.Cert, b.State.CA.Key)
	if err != nil {
		return err
	}
	local := rpc.LocalKeysRequest{Cluster: r.Cluster, Node: r.Node, Incarnation: r.Incarnation, Name: r.Name}
	keys, err := d.vault.ensure(local)
	if err != nil {
		return err
	}
	b.node, err = firstNode(ca, &rpc.BootstrapRequest{
		Node: r.Node, Init: rpc.InitRequest{Node: r.Name, Addresses: r.Addresses}, Ports: r.Ports,
		Server: r.ServerCSR, Identity: r.NodeCSR, HostKeys: r.HostKeys, SSH: r.SSH, Now: r.Now,
	}, keys)
	if err != nil {
		return err
	}
	b.node.Incarnation = r.Incarnation
	if installed := d.vault.certificate(); installed != nil { // of an earlier call: the map that was offered names it
		b.node.Certs.Candidate = installed.Certificate[0]
		b.node.Keys.Client = []cluster.Digest{cluster.DigestOf(b.node.Certs.Candidate)}
		return nil
	}
	local.Certificate = b.node.Certs.Candidate
	_, err = d.vault.ensure(local)
	return err
}

func (b *archive) recover(issued time.Time, version uint64) (*state.State, error) {
	node := b.node
	r := state.Revival{
		Self: node.UUID, Roster: b.roster, Issued: issued, Version: version,
		Term: b.Header.Term + 1, Replace: &node, Old: true,
	}
	for _, env := range b.maps {
		r.Maps = append(r.Maps, env.Payload)
	}
	r.Gossip = b.vault.gossipAfter(r.Maps)
	return state.Recover(b.State, r)
}

func (d *Daemon) commitRefound(b *archive, r *rpc.RefoundRequest) (any, error) {
	next, err := d.offered(b.recover, r.Payload)
	if err != nil {
		return nil, err
	}
	own, err := candmap.Sign(d.vault.signer(), candmap.MapType, r.Payload)
	if err != nil {
		return nil, err
	}
	env := candmap.Merge(candmap.Envelope{PayloadType: candmap.MapType, Payload: r.Payload}, append(r.Signatures, own)...)
	if err := b.authorized(env, r.NoRecovery); err != nil {
		return nil, err
	}
	done := rpc.MapDelivery{Maps: []candmap.Envelope{env}, Docs: docsOf(next.Roster())}
	if err := d.commitState(next, consensus.ServerID(r.Node, r.Incarnation), done, b.Header.Index+1, b.Header.Term+1); err != nil {
		return nil, fmt.Errorf("commit restored state: %w", err)
	}
	d.log.Warn("the cluster of a backup goes on with this node alone", zap.Stringer("version", next.Head().Version))
	return b.reply(next, &done), nil
}

// authorized wants the signatures of the recovery keys. In a cluster that has
// none, nobody follows by himself.
func (b *archive) authorized(env candmap.Envelope, without bool) error {
	if b.newest.Recovery.Threshold == 0 && without {
		_, err := candmap.Genesis(env, env.Hash())
		return err
	}
	if _, err := candmap.Follow(b.newest, env); err != nil {
		return cluster.Errorf(cluster.CodeBadSignature, "the recovery keys of map %s did not sign it: %v", b.newest.At(), err)
	}
	return nil
}

func (b *archive) reply(next *state.State, done *rpc.MapDelivery) rpc.RefoundReply {
	r := rpc.RefoundReply{
		ReviveReply: rpc.ReviveReply{Payload: next.Head().Payload, Revived: revived(b.State, b.newest, next), Committed: done},
		From:        b.newest.At(), FromHash: b.newest.Hash, Recovery: b.newest.Recovery, Nodes: b.nodes,
	}
	if done == nil {
		return r
	}
	r.Payload = done.Maps[0].Payload
	n := next.Node(next.Master)
	r.CA, r.Server, r.Identity, r.Gossip = next.CA.Cert, n.Certs.Server, n.Certs.Identity, next.Gossip.Reveal()
	r.Chain = b.maps[max(0, len(b.maps)-candmap.MaxChain):]
	return r
}

// versionLimit bounds the question to one node.
const versionLimit = 5 * time.Second

// askVersions asks the nodes of the backup, and of newer maps, what map they
// hold. Nobody knows this machine yet, so no more than that is to be had.
func (d *Daemon) askVersions(ctx context.Context, b *archive) []rpc.RecoverNode {
	nodes := b.known()
	client, err := rpc.NewClient(rpc.ClientConfig{LocalAddr: d.cfg.bindAddress(), Dial: d.cfg.Dial, Log: d.log})
	if err != nil {
		return nil
	}
	defer client.Close()
	answers := make([]rpc.RecoverNode, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			a := rpc.RecoverNode{Name: n.Name, UUID: n.UUID, Role: n.Flags.Role(b.newest.Master == n.UUID).String()}
			if c := b.newest.Candidate(n.UUID); c != nil {
				a.Voter = c.Voter
			}
			var err error
			if a.Version, err = askVersion(ctx, client, n); err != nil {
				a.Problem = err.Error()
			}
			answers[i] = a
		})
	}
	all.Wait()
	return answers
}

// known are the nodes by the newest roster that is at hand.
func (b *archive) known() []candmap.RosterNode {
	r := b.roster
	if r == nil {
		r = b.State.Roster()
	}
	return r.Nodes()
}

func askVersion(ctx context.Context, client *rpc.Client, n candmap.RosterNode) (cluster.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	to := rpc.Target{Addr: netip.AddrPortFrom(n.Addresses[0], n.Ports.Noded), Expect: func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) != 1 || !slices.Contains(n.Server, pki.PinOf(cs.PeerCertificates[0])) {
			return errors.New("another machine answers at its address")
		}
		return nil
	}}
	var h rpc.HealthReply
	err := client.Call(ctx, to, rpc.MethodHealth, "", nil, &h)
	return h.Version, err
}

// newerElsewhere refuses where a node holds a map that is newer than all that is
// at hand: what was removed since would come back.
func (b *archive) newerElsewhere(ignore bool) error {
	for _, n := range b.nodes {
		if !ignore && n.Version.Newer(b.newest.At()) {
			return cluster.Errorf(cluster.CodeMapOlder, "%s holds map %s, and the newest at hand is %s: nodes that were removed since would come back", n.Name, n.Version, b.newest.At()).
				WithHint("copy /var/lib/rolekey/map from that node and give it with --maps; or, if that node lies, --ignore-newer")
		}
	}
	return nil
}
