package noded

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// serveTrust takes the map that local root vouches for by its hash, and so
// helps a node over what no signature can: voters that changed while it slept
// for longer than the trust period, or a map that was damaged on disk. The hash
// proves the map, and the map its roster; so it does not matter who gives them.
func (d *Daemon) serveTrust(ctx context.Context, r *rpc.TrustRequest) (any, error) {
	end, err := d.begin("")
	if err != nil {
		return nil, err
	}
	defer end()
	m, err := d.serving()
	if err != nil {
		return nil, err
	}
	return m.trustMap(ctx, r.Hash)
}

// serving is the member that runs; the error tells why there is none.
func (d *Daemon) serving() (*member, error) {
	id, err := readIdentity(d.cfg.Paths.NodeDir())
	if err != nil {
		return nil, err
	}
	if id == nil {
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node is in no cluster")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.member == nil {
		return nil, cluster.Errorf(cluster.CodeUnavailable, "this node does not take part in its cluster: %v", d.problem)
	}
	return d.member.member, nil
}

func (m *member) trustMap(ctx context.Context, hash cluster.Digest) (reply rpc.TrustReply, err error) {
	reply.Previous = m.keeper.View().At()
	delivery, end := m.await(hash)
	defer end()
	var ack candmap.Ack
	switch got, ferr := m.findMap(ctx, hash); {
	case ferr != nil && !unheardOf(ferr):
		return reply, ferr
	case ferr != nil:
		var ok bool
		if ack, ok = delivery.wait(ctx); !ok {
			return reply, ferr
		}
	case got == nil:
		ack, err = m.keeper.Deliver(ctx, nil, nil) // tells what is held
	default:
		end()
		ack, err = m.takeTrusted(ctx, hash, got)
		reply.From = got.from
	}
	reply.Version, reply.Fresh, reply.Durable, reply.Problems = ack.Version, m.keeper.Fresh(), ack.Durable, ack.Problems
	return reply, err
}

// takeTrusted puts the map in force. The pulls that wait for it go on from there.
func (m *member) takeTrusted(ctx context.Context, hash cluster.Digest, got *find) (candmap.Ack, error) {
	ack, err := m.keeper.Trust(ctx, got.env, hash, got.docs)
	if err != nil {
		return ack, err
	}
	m.refused.Store(false)
	if got.beacon != nil {
		if _, err := m.keeper.DeliverBeacon(*got.beacon); err != nil {
			m.log.Info("the beacon that came with the trusted map is refused", zap.Error(err))
		}
	}
	m.changed()
	return ack, nil
}

// findMap asks for the map with this hash; nil if it is held already.
func (m *member) findMap(ctx context.Context, hash cluster.Digest) (*find, error) {
	held := m.keeper.View()
	if held.Map != nil && held.Map.Hash == hash {
		return nil, nil
	}
	saved, err := m.store.Load()
	if err != nil {
		return nil, err
	}
	newest := held.At()
	for _, l := range saved.Links {
		if l.At.Newer(newest) {
			newest = l.At
		}
	}
	for _, l := range saved.Links {
		if l.Hash == hash && newest.Newer(l.At) {
			return nil, tooOld(l.At, newest)
		}
	}
	known := held
	if held.Map == nil {
		known = m.remains(saved)
	}
	if known.Map == nil || known.Roster == nil {
		return nil, cluster.Errorf(cluster.CodeUnavailable, "the map or the roster on this disk is lost, so this node knows nobody to ask").WithHint(comeBack)
	}
	q, err := m.newQuest(hash, known, newest)
	if err != nil {
		return nil, err
	}
	defer q.client.Close()
	return q.run(ctx)
}

// remains is what can still be read when the current map is damaged. It tells
// whom to ask, and authorizes nobody.
func (m *member) remains(saved candmap.Saved) *candmap.View {
	v := &candmap.View{}
	r, err := candmap.AssembleRoster(saved.Roster, func(d cluster.Digest) []byte {
		b, err := m.store.Doc(d)
		if err != nil {
			return nil
		}
		return b
	})
	if err != nil {
		return v
	}
	v.Roster = r
	slices.SortFunc(saved.Links, func(a, b candmap.Link) int { return b.At.Compare(a.At) })
	for _, l := range saved.Links {
		env, err := m.store.Link(l)
		if err != nil {
			continue
		}
		if got, err := candmap.Genesis(env, l.Hash); err == nil && got.Cluster == m.id.Cluster {
			v.Map = got
			break
		}
	}
	return v
}

func tooOld(at, newest cluster.Version) error {
	return cluster.Errorf(cluster.CodeMapOlder, "the map with that hash is version %s, which is older than %s that this node held last", at, newest).
		WithHint("take the hash of the newest map: gnt-cluster map on the master shows it")
}

// comeBack is what always helps.
const comeBack = "take this node out and back in: gnt-node remove on the master, noded leave --yes here, and noded join with a new admission string"

// newQuest prepares to ask by the given view: the one in force, or what
// remains of it.
func (m *member) newQuest(hash cluster.Digest, known *candmap.View, newest cluster.Version) (*quest, error) {
	client, err := rpc.NewClient(rpc.ClientConfig{
		Certificate: m.certs[identityPair].tls, Roots: m.caRoots, View: func() *candmap.View { return known }, Hints: m.hints.of,
		LocalAddr: m.cfg.bindAddress(), Dial: m.cfg.Dial, Log: m.log, Now: m.cfg.now,
	})
	if err != nil {
		return nil, fmt.Errorf("ask for map: %w", err)
	}
	return &quest{hash: hash, known: known, newest: newest, self: m.id.Node, client: client, turn: make(chan struct{}, 1)}, nil
}
