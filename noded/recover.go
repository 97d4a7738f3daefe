package noded

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/rpc"
)

// serveRecover makes the cluster go on with this node alone, in two calls. The
// first one finds the newest map, and has masterd say which map would follow.
// The second one brings the signatures of the recovery keys on that map: then
// masterd commits it, and it is put in force. The commit is masterd's.
func (d *Daemon) serveRecover(ctx context.Context, r *rpc.RecoverRequest) (any, error) {
	end, err := d.begin("")
	if err != nil {
		return nil, err
	}
	defer end()
	m, err := d.serving()
	if err != nil {
		return nil, err
	}
	if err := d.masterd.running(ctx); err != nil {
		return nil, err
	}
	before := m.keeper.View()
	if before.Map == nil {
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node holds no candidate map").WithHint(howToTrust)
	}
	reply := rpc.RecoverReply{Cluster: m.id.Cluster, Node: m.name(), Problems: []string{}}
	reply.Nodes = m.survey(ctx)
	held := m.keeper.View()
	if err := m.mayRecover(before, held, reply.Nodes); err != nil {
		return nil, err
	}
	reply.From, reply.FromHash, reply.Recovery = held.At(), held.Map.Hash, held.Map.Recovery
	made, err := d.masterd.revive(ctx, rpc.ReviveRequest{View: m.localView(held, nil), RecoverRequest: *r})
	if err != nil {
		return nil, err
	}
	reply.Payload, reply.Hash, reply.Revived = made.Payload, cluster.DigestOf(made.Payload), made.Revived
	next, err := candmap.DecodeMap(made.Payload)
	if err != nil {
		return nil, err
	}
	reply.Version = next.At()
	if made.Committed == nil || r.DryRun {
		return reply, nil
	}
	err = m.enforceRecovered(ctx, *made.Committed, &reply)
	d.audit.Write(audit.Event{Act: audit.Recover, Caller: audit.CallerOf(ctx), Target: reply.Version.String()}.Of(err))
	return reply, err
}

// mayRecover refuses where another node has the better claim, or where the
// newest map may not be known.
func (m *member) mayRecover(before, held *candmap.View, nodes []rpc.RecoverNode) error {
	switch {
	case held.Map.Epoch != before.Map.Epoch:
		return cluster.Errorf(cluster.CodeConflict, "the cluster was recovered on another node: map %s is in force", held.At()).
			WithHint("this node follows it now; nothing is left to do here")
	case !held.Complete():
		return cluster.Errorf(cluster.CodeUnavailable, "the roster of map %s, the newest that was found, is not to be had", held.At()).
			WithHint("run the command again; if nobody has it, recover the cluster on another candidate")
	case held.Map.Recovery.Threshold == 0:
		return cluster.Errorf(cluster.CodeConflict, "this cluster has no recovery key: the loss of a majority of its voters is final").
			WithHint("found a new cluster, or restore a backup and add all nodes again")
	case !m.candidate(held):
		return cluster.Errorf(cluster.CodeNotInMap, "this node is no master candidate by map %s, the newest that was found", held.At()).
			WithHint("recover the cluster on one of its candidates")
	case m.keeper.Lease().TrustExpired(m.cfg.clocks()()):
		for _, n := range nodes {
			if n.Version.Newer(held.At()) {
				return cluster.Errorf(cluster.CodeTrustExpired, "%s holds map %s, which this node cannot verify after so long a silence", n.Name, n.Version).
					WithHint("compare its hash on several nodes, run noded trust HASH here, and then this command again")
			}
		}
	}
	return nil
}

// enforceRecovered puts the committed map in force. Local root asked for it, and
// the recovery keys signed it: so it does not matter how long this node slept.
func (m *member) enforceRecovered(ctx context.Context, d rpc.MapDelivery, reply *rpc.RecoverReply) error {
	ctx = context.WithoutCancel(ctx)
	env := d.Maps[0]
	ack, err := m.keeper.Deliver(ctx, d.Maps, d.Docs)
	if cluster.CodeOf(err) == cluster.CodeTrustExpired {
		ack, err = m.keeper.Trust(ctx, env, env.Hash(), d.Docs)
	}
	if err != nil {
		return fmt.Errorf("the recovery is committed, and its map is not in force yet: %w", err)
	}
	m.refused.Store(false)
	m.changed()
	reply.Durable = ack.Durable
	reply.Problems = append(reply.Problems, ack.Problems...)
	return nil
}

// takeOffered takes the map of a recovery that was interrupted after its commit.
func (m *member) takeOffered(ctx context.Context) {
	d := m.masterd.offered.Swap(nil)
	if d == nil {
		return
	}
	_, err := m.keeper.Deliver(ctx, d.Maps, d.Docs)
	if err == nil {
		m.log.Warn("the map of an interrupted recovery is in force", zap.Stringer("version", m.keeper.View().At()))
		m.changed()
		return
	}
	m.logRefusal(m.id.Node, "recovered map", err)
}

// newEpoch reports whether a recovery came between two maps: the gossip key is
// another since.
func newEpoch(old, next *candmap.Verified) bool {
	return old != nil && next != nil && next.Epoch > old.Epoch
}
