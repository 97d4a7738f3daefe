package masterd

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/rpc"
	"rolekey/seal"
)

// revive makes the state that goes on with this node alone, when a majority of
// the voters is lost. Asked without signatures, it returns the map that the
// recovery keys must sign; with them, it commits. See docs/candidate-map.rst.
func (d *Daemon) revive(ctx context.Context, r *rpc.ReviveRequest) (any, error) {
	if p := d.pending.Load(); p != nil {
		// Committed, and interrupted before noded held it.
		return rpc.ReviveReply{Payload: p.delivery.Maps[0].Payload, Committed: &p.delivery}, nil
	}
	if err := d.needsRecovery(); err != nil {
		return nil, err
	}
	resume, err := d.suspend(ctx)
	if err != nil {
		return nil, err
	}
	defer resume()
	b, err := d.openBasis(r.View)
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	if len(r.Payload) == 0 {
		return d.planRevival(b, r.DryRun)
	}
	return d.commitRevival(b, r)
}

// needsRecovery refuses where the voters have elected somebody.
func (d *Daemon) needsRecovery() error {
	d.mu.Lock()
	m := d.member
	d.mu.Unlock()
	if m == nil {
		return nil
	}
	node, _, err := consensus.ParseServerID(m.node.Leader())
	if err != nil {
		return nil
	}
	name := node.String()
	if c := m.keeper.View().Map.Candidate(node); c != nil {
		name = string(c.Name)
	}
	return cluster.Errorf(cluster.CodeConflict, "the voters have a leader, %s: this cluster needs no recovery", name)
}

// suspend ends this node's life as a candidate until resume is called.
func (d *Daemon) suspend(ctx context.Context) (resume func(), err error) {
	d.suspended.Store(true)
	d.poke()
	if err := d.use(ctx); err != nil {
		d.suspended.Store(false)
		d.poke()
		return nil, err
	}
	return func() {
		d.suspended.Store(false)
		d.unuse()
		d.poke()
	}, nil
}

// basis is what this node has of the cluster: its own state, and the newest map
// that any node has shown to its noded, which verified it.
type basis struct {
	view   rpc.LocalViewReply
	own    *state.State
	at     consensus.Position
	newest *candmap.Verified
	roster *candmap.Roster
	maps   [][]byte
	vault  *vault
}

func (d *Daemon) openBasis(v rpc.LocalViewReply) (*basis, error) {
	b := &basis{view: v, vault: d.vault}
	if err := b.readView(); err != nil {
		return nil, err
	}
	if err := d.vault.open(seal.Context{Cluster: v.Cluster, Node: v.Node, Incarnation: v.Incarnation}); err != nil {
		return nil, err
	}
	ring := d.vault.keyring()
	if ring == nil || d.vault.certificate() == nil {
		return nil, cluster.Errorf(cluster.CodeKeysLost, "this node has lost its candidate keys, and the state with them").
			WithHint("recover the cluster on another candidate, or restore a backup")
	}
	if err := b.owns(d.vault); err != nil {
		return nil, err
	}
	store, err := consensus.OpenStore(consensus.StoreConfig{Path: d.cfg.Paths.RaftDB(), Sealer: ring})
	if err != nil {
		return nil, err
	}
	snaps, err := consensus.OpenSnapshots(consensus.SnapshotsConfig{Dir: d.cfg.Paths.SnapshotDir(), Keyring: ring})
	if err == nil {
		b.own, b.at, err = consensus.Replay(store, snaps)
	}
	if err = errors.Join(err, store.Close()); err == nil && !b.own.Founded() {
		err = cluster.Errorf(cluster.CodeUnavailable, "this candidate had not received the cluster's state yet").
			WithHint("recover the cluster on another candidate, or restore a backup")
	}
	return b, err
}

// readView takes the maps apart. Noded verified them; signatures of those that
// are older prove nothing to whoever holds a newer one.
func (b *basis) readView() (err error) {
	v := b.view
	if b.newest, err = candmap.Genesis(v.Map, v.Map.Hash()); err != nil {
		return err
	}
	docs := map[cluster.Digest][]byte{}
	for _, doc := range v.Docs {
		docs[cluster.DigestOf(doc)] = doc
	}
	if b.roster, err = candmap.AssembleRoster(b.newest.Roster, func(d cluster.Digest) []byte { return docs[d] }); err != nil {
		return err
	}
	var last cluster.Version
	for _, env := range append(v.Chain, v.Map) {
		m, err := candmap.DecodeMap(env.Payload)
		if err != nil {
			return err
		}
		if m.At().Newer(last) {
			b.maps, last = append(b.maps, env.Payload), m.At()
		}
	}
	return nil
}

// owns checks that the newest map names the keys that lie here.
func (b *basis) owns(v *vault) error {
	c := b.newest.ByClient(cluster.DigestOf(v.certificate().Certificate[0]))
	if c != nil {
		v.settle(c.Signing)
	}
	if c == nil || c.UUID != b.view.Node || c.Incarnation != b.view.Incarnation || !bytes.Equal(c.Signing, publicOf(v)) {
		return cluster.Errorf(cluster.CodeNotInMap, "map %s, the newest that is known, does not name this node with the keys that it holds", b.newest.At()).
			WithHint("recover the cluster on a candidate of that map")
	}
	return nil
}

// revived tells how the next state differs from the one that is at hand.
func revived(own *state.State, newest *candmap.Verified, next *state.State) rpc.Revived {
	r := rpc.Revived{Removed: []cluster.Name{}, Again: []cluster.Name{}}
	e, contains := own.Entry(newest.At())
	r.Behind = !contains || e.Hash != newest.Hash
	for _, n := range own.SortedNodes() {
		if next.Node(n.UUID) == nil {
			r.Removed = append(r.Removed, n.Name)
		}
	}
	for _, n := range next.Again() {
		r.Again = append(r.Again, n.Name)
	}
	for id, j := range next.Jobs {
		if old := own.Jobs[id]; old != nil && old.Status != j.Status {
			r.Jobs++
		}
	}
	for id, a := range next.Admissions {
		if own.Admissions[id].State != a.State {
			r.Strings++
		}
	}
	return r
}

// gossipAfter is the gossip key of a cluster that goes on from a map. The roster
// names the key by its hash, so that it must be the same each time that the map
// is computed, also after a crash; and nobody else can compute it.
func (v *vault) gossipAfter(maps [][]byte) cluster.Secret {
	m := hmac.New(sha256.New, v.signer().Seed())
	m.Write([]byte("rolekey gossip key after a recovery\x00"))
	sum := sha256.Sum256(maps[len(maps)-1])
	m.Write(sum[:])
	return cluster.NewSecret(m.Sum(nil))
}

// recover computes the state. Nothing in it may be random.
func (b *basis) recover(issued time.Time, version uint64) (*state.State, error) {
	gossip := b.vault.gossipAfter(b.maps)
	return state.Recover(b.own, state.Revival{
		Self: b.view.Node, Maps: b.maps, Roster: b.roster, Gossip: gossip,
		Issued: issued, Version: version, Term: b.at.Term + 1,
	})
}

// planRevival returns the payload to be signed. It is written down first: the
// recovery keys shall never sign two payloads for one version, so a later
// request gets the same one, or another version.
func (d *Daemon) planRevival(b *basis, dry bool) (any, error) {
	next, err := d.offer(b.recover, dry)
	if err != nil {
		return nil, err
	}
	return rpc.ReviveReply{Payload: next.Head().Payload, Revived: revived(b.own, b.newest, next)}, nil
}

// revivalFunc computes the state whose map is issued then, with at least that
// version.
type revivalFunc func(issued time.Time, version uint64) (*state.State, error)

func (d *Daemon) offer(recover revivalFunc, dry bool) (*state.State, error) {
	next, err := recover(d.cfg.Now(), 0)
	if err != nil {
		return nil, err
	}
	noted, err := d.readNote()
	if err != nil {
		return nil, err
	}
	if noted != nil && noted.Epoch == next.HeadMap().Epoch && noted.Cluster == next.Cluster.UUID {
		again, err := recover(noted.Issued, noted.Version)
		if err == nil && again.Head().Hash != noted.hash {
			again, err = recover(d.cfg.Now(), noted.Version+1)
		}
		if err != nil {
			return nil, err
		}
		next = again
	}
	if dry {
		return next, nil
	}
	return next, d.writeNote(next.Head().Payload)
}

// offered computes the state of the payload that was offered, and nothing else.
func (d *Daemon) offered(recover revivalFunc, payload []byte) (*state.State, error) {
	noted, err := d.readNote()
	if err != nil {
		return nil, err
	}
	if noted == nil || noted.hash != cluster.DigestOf(payload) {
		return nil, errMoved
	}
	next, err := recover(noted.Issued, noted.Version)
	if err == nil && next.Head().Hash != noted.hash {
		err = errMoved
	}
	return next, err
}

// note is the map that was offered to the recovery keys last.
type note struct {
	*candmap.Map
	hash cluster.Digest
}

func (d *Daemon) readNote() (*note, error) {
	payload, err := readIfThere(d.cfg.Paths.RecoveryNote())
	if err != nil || payload == nil {
		return nil, err
	}
	m, err := candmap.DecodeMap(payload)
	if err != nil {
		return nil, fmt.Errorf("read the map that was to be signed last: %w", err)
	}
	return &note{m, cluster.DigestOf(payload)}, nil
}

func (d *Daemon) writeNote(payload []byte) error {
	return atomicfile.Write(d.cfg.Paths.RecoveryNote(), payload, atomicfile.Durable(0o600))
}

// errMoved asks for another signature.
var errMoved = cluster.Errorf(cluster.CodeConflict, "what was signed is not what this node would recover to now").
	WithHint("run the command again")

// commitRevival adds this node's signature, the only voter's, and commits.
func (d *Daemon) commitRevival(b *basis, r *rpc.ReviveRequest) (any, error) {
	next, err := d.offered(b.recover, r.Payload)
	if err != nil {
		return nil, err
	}
	own, err := candmap.Sign(d.vault.signer(), candmap.MapType, r.Payload)
	if err != nil {
		return nil, err
	}
	env := candmap.Merge(candmap.Envelope{PayloadType: candmap.MapType, Payload: r.Payload}, append(r.Signatures, own)...)
	if _, err := candmap.Follow(b.newest, env); err != nil {
		return nil, cluster.Errorf(cluster.CodeBadSignature, "the recovery keys of map %s did not sign it: %v", b.newest.At(), err)
	}
	done := rpc.MapDelivery{Maps: []candmap.Envelope{env}, Docs: docsOf(next.Roster())}
	id := consensus.ServerID(b.view.Node, b.view.Incarnation)
	if err := d.commitState(next, id, done, max(b.at.LastIndex, b.at.SnapshotIndex)+1, b.at.Term+1); err != nil {
		return nil, fmt.Errorf("commit recovered state: %w", err)
	}
	d.log.Warn("the cluster goes on with this node alone, by order of the recovery keys", zap.Stringer("version", next.Head().Version))
	return rpc.ReviveReply{Payload: r.Payload, Revived: revived(b.own, b.newest, next), Committed: &done}, nil
}
