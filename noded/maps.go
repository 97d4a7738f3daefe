package noded

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/buildinfo"
	"rolekey/rpc"
)

func (m *member) serveVersion(context.Context, *rpc.Request) (any, error) {
	return rpc.VersionReply{Software: buildinfo.Version(), Features: cluster.FeatureLevel, Daemon: "noded"}, nil
}

func (m *member) serveHealth(context.Context, *rpc.Request) (any, error) {
	v := m.keeper.View()
	return rpc.HealthReply{OK: v.Map != nil, Version: v.At(), Fresh: m.keeper.Fresh()}, nil
}

// putMap takes maps from anybody: they prove themselves. What leads on is
// enforced even if the call as a whole fails.
func (m *member) putMap(ctx context.Context, q *rpc.Request) (any, error) {
	var d rpc.MapDelivery
	if err := q.Decode(&d); err != nil {
		return nil, err
	}
	before := m.keeper.View()
	ack, err := m.keeper.Deliver(ctx, d.Maps, d.Docs)
	if trusted, ok := m.takeAwaited(ctx, &d, ack, err); ok {
		ack, err = trusted, nil
	}
	if err != nil {
		return nil, err
	}
	r := m.ack(ack)
	if v := m.keeper.View(); v == before && q.Grant.Tier == rpc.TierMaster {
		r.Problems = append(r.Problems, m.rederive(ctx, v)...)
	}
	return r, nil
}

// rederive rewrites the derived files when the master delivers what is known:
// gnt-cluster redist-conf, or a new master that goes on with a job.
func (m *member) rederive(ctx context.Context, v *candmap.View) []string {
	if err := m.derive(ctx, v); err != nil {
		return []string{"derive: " + err.Error()}
	}
	return nil
}

// putBeacon takes a beacon from anybody. One that is older than what was heard
// is no news, and acknowledged all the same.
func (m *member) putBeacon(_ context.Context, q *rpc.Request) (any, error) {
	var env candmap.Envelope
	if err := q.Decode(&env); err != nil {
		return nil, err
	}
	news, err := m.keeper.DeliverBeacon(env)
	if err != nil {
		return nil, err
	}
	if news {
		m.refused.Store(false)
		m.gossip.Announce(env)
		m.changed()
	}
	// An empty delivery changes nothing, and tells what is held.
	ack, err := m.keeper.Deliver(context.Background(), nil, nil)
	if err != nil {
		return nil, err
	}
	return m.ack(ack), nil
}

// firstNews is what a node was installed with, moments ago.
type firstNews struct {
	env    candmap.Envelope
	beacon *candmap.Envelope // nil: none
}

// hear makes a node as fresh as what it was installed with: on disk only the
// map survives, not when it was heard.
func (m *member) hear(ctx context.Context, n firstNews) {
	_, err := m.keeper.Deliver(ctx, []candmap.Envelope{n.env}, nil)
	if err == nil && n.beacon != nil {
		_, err = m.keeper.DeliverBeacon(*n.beacon)
	}
	if err != nil && cluster.CodeOf(err) != cluster.CodeMapOlder {
		m.log.Warn("the cluster's first news is refused", zap.Error(err))
	}
	m.changed()
}

// ack adds to the keeper's acknowledgement when trust ends.
func (m *member) ack(a candmap.Ack) rpc.MapAck {
	r := rpc.MapAck{
		Node: m.id.Node, Version: a.Version, Hash: a.Hash, Durable: a.Durable, Fresh: a.Fresh,
		SSHUntil: m.sshUntil(), SSHMissing: m.sshMissing(m.keeper.View()), Missing: a.Missing, Problems: a.Problems,
	}
	var problems []string
	r.SSHCommand, problems = m.asked()
	r.Problems = append(r.Problems, problems...)
	for _, w := range m.ssh.warnings() {
		r.Problems = append(r.Problems, rpc.SSHDProblem+w)
	}
	if v := m.keeper.View(); v.Map != nil {
		r.LeaseUntil = m.keeper.Lease().Until(v.Map.Lease())
	}
	return r
}

func (m *member) getMap(_ context.Context, q *rpc.Request) (any, error) {
	from, err := cluster.ParseVersion(q.Arg())
	if err != nil {
		return nil, cluster.Errorf(cluster.CodeBadFormat, "%v", err)
	}
	pull := rpc.MapPull{Maps: m.keeper.Since(from)}
	if b, ok := m.keeper.Beacon(); ok {
		pull.Beacon = &b
	}
	return pull, nil
}

func (m *member) getRoster(_ context.Context, q *rpc.Request) (any, error) {
	want, err := cluster.ParseDigest(q.Arg())
	if err != nil {
		return nil, cluster.Errorf(cluster.CodeBadFormat, "%v", err)
	}
	if r := m.keeper.View().Roster; r != nil {
		if doc := r.Docs()[want]; doc != nil {
			return doc, nil
		}
	}
	return nil, cluster.Errorf(cluster.CodeNotFound, "this node has no roster document %s", want.Short())
}

// logRefusal reports documents from a candidate that did not verify.
func (m *member) logRefusal(from cluster.NodeID, what string, err error) {
	if err == nil || errors.Is(err, candmap.ErrKnown) || cluster.CodeOf(err) == cluster.CodeMapOlder {
		return
	}
	m.log.Warn("pulled document is refused", zap.Stringer("from", from), zap.String("what", what), zap.Error(err))
}
