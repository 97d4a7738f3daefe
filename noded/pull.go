package noded

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/rpc"
)

// Pauses between pulls while something is wanted.
const (
	pullFirst = 200 * time.Millisecond
	pullMost  = 15 * time.Second
	pullIdle  = time.Minute
)

// pull fetches from candidates what this node lacks: beacons while it is
// stale, maps that a beacon proved to exist, documents of the roster, and the
// chain of a node that became a candidate. A starting node is stale, and so
// pulls at once.
func (m *member) pull(ctx context.Context) error {
	wait, filled := pullFirst, false
	for {
		m.warnRemoved()
		if !m.wants() && (filled || !m.candidate(m.keeper.View())) {
			wait = pullFirst
			if err := pause(ctx, pullIdle, m.pullNow); err != nil {
				return err
			}
			continue
		}
		for _, c := range m.sources() {
			if filled = m.pullFrom(ctx, c, filled); !m.wants() {
				break
			}
		}
		if m.wants() || !filled && m.candidate(m.keeper.View()) {
			if err := pause(ctx, wait/2+rand.N(wait), nil); err != nil {
				return err
			}
			wait = min(2*wait, pullMost)
		}
	}
}

// wants reports whether there is something to pull.
func (m *member) wants() bool {
	_, behind := m.keeper.Behind()
	v := m.keeper.View()
	return v.Map != nil && (behind || !m.keeper.Fresh() || !v.Complete())
}

// sources are the other candidates, the master first, the rest in any order.
func (m *member) sources() []cluster.NodeID {
	v := m.keeper.View()
	if v.Map == nil {
		return nil
	}
	var list []cluster.NodeID
	for _, i := range rand.Perm(len(v.Map.Candidates)) {
		switch id := v.Map.Candidates[i].UUID; id {
		case m.id.Node:
		case v.Map.Master:
			list = append([]cluster.NodeID{id}, list...)
		default:
			list = append(list, id)
		}
	}
	return list
}

// pullFrom takes from one candidate whatever it has. It reports whether the
// chain is complete as far as that candidate knows.
func (m *member) pullFrom(ctx context.Context, from cluster.NodeID, filled bool) bool {
	fill := !filled && m.candidate(m.keeper.View())
	since := m.keeper.View().At()
	if fill {
		since = cluster.Version{}
	}
	var got rpc.MapPull
	if err := m.client.Call(ctx, nodedOf(from), rpc.MethodMapGet, since.String(), nil, &got); err != nil {
		m.noteRefusal(from, err)
		return filled
	}
	m.refused.Store(false)
	ctx = audit.WithCaller(ctx, audit.Caller{PeerNode: from})
	ack, err := m.keeper.Deliver(ctx, got.Maps, nil)
	m.logRefusal(from, "map", err)
	if fill && len(got.Maps) > 0 {
		err := m.keeper.Fill(ctx, got.Maps)
		m.logRefusal(from, "chain", err)
		filled = err == nil
	}
	if got.Beacon != nil {
		news, err := m.keeper.DeliverBeacon(*got.Beacon)
		m.logRefusal(from, "beacon", err)
		if news {
			m.gossip.Announce(*got.Beacon)
			m.changed()
		}
	}
	m.pullDocs(ctx, from, ack)
	return filled
}

// pullDocs fetches roster documents. The index names the rest, so what is
// missing is asked again after each delivery.
func (m *member) pullDocs(ctx context.Context, from cluster.NodeID, ack candmap.Ack) {
	for missing := ack.Missing; len(missing) > 0; {
		var docs [][]byte
		for _, d := range missing {
			var doc []byte
			if err := m.client.Call(ctx, nodedOf(from), rpc.MethodRosterGet, d.String(), nil, &doc); err != nil {
				m.log.Debug("roster document is not to be had", zap.Stringer("from", from), zap.Error(err))
				break
			}
			docs = append(docs, doc)
		}
		left, err := m.keeper.DeliverDocs(ctx, docs)
		m.logRefusal(from, "roster", err)
		if err != nil || len(docs) < len(missing) {
			return
		}
		missing = left
	}
}

// noteRefusal remembers that candidates do not know this node any more: nobody
// else tells a node that was removed while it was away.
func (m *member) noteRefusal(from cluster.NodeID, err error) {
	if cluster.CodeOf(err) == cluster.CodeNotInRoster && !m.refused.Swap(true) {
		m.news.ring()
	}
	m.log.Debug("candidate gives no map", zap.Stringer("from", from), zap.Error(err))
}
