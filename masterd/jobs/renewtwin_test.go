package jobs

import (
	"context"
	"errors"
	"slices"

	"rolekey/cluster"
	"rolekey/rpc"
)

// gossipSide is what a machine knows of the gossip keys. It follows the roster
// only after it was asked once, as a node that has to fetch a key does.
type gossipSide struct {
	ring  []cluster.Digest
	asked []cluster.Digest // what the roster listed when it was asked last
}

func (w *world) gossipKeys() (out []cluster.Digest) {
	for _, k := range w.lab.S.GossipKeys() {
		out = append(out, cluster.DigestOf(k.Reveal()))
	}
	return out
}

// Inspect implements Cluster.
func (w *world) Inspect(ctx context.Context, node cluster.NodeID) (s rpc.NodeState, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return s, err
	}
	m, now := w.machines[node], w.gossipKeys()
	if !m.up {
		return s, errors.New("no route to host")
	}
	w.gossips()
	if slices.Equal(m.gossip.asked, now) {
		m.gossip.ring = now
	}
	m.gossip.asked = now
	w.gossips()
	s.GossipKeys = m.gossip.ring
	return s, nil
}

// gossips checks that all machines that are up understand one another.
func (w *world) gossips() {
	w.t.Helper()
	for from, a := range w.machines {
		if a.gossip.ring == nil {
			a.gossip.ring = w.gossipKeys()
		}
		for to, b := range w.machines {
			if b.gossip.ring == nil {
				b.gossip.ring = w.gossipKeys()
			}
			if a.up && b.up && w.lab.S.Node(from) != nil && w.lab.S.Node(to) != nil && !slices.Contains(b.gossip.ring, a.gossip.ring[0]) {
				w.t.Errorf("%s does not understand what %s gossips", w.lab.S.Node(to).Name, w.lab.S.Node(from).Name)
			}
		}
	}
}
