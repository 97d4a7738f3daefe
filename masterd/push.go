package masterd

import (
	"context"
	"sync"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// Patience of a publication. A node that did not answer lately is tried all
// the same, but nobody waits for it.
const (
	pushTimeout   = 3 * time.Second
	givenUpAfter  = 2 // failed attempts in a row
	beaconTimeout = 2 * time.Second
)

// nodeCaller delivers documents to one node's noded.
type nodeCaller interface {
	PutMap(ctx context.Context, node cluster.NodeID, d rpc.MapDelivery) (rpc.MapAck, error)
	PutBeacon(ctx context.Context, node cluster.NodeID, env candmap.Envelope) (rpc.MapAck, error)
}

// pusher delivers maps and beacons to all nodes in parallel and keeps count of
// who acknowledged what.
type pusher struct {
	call  nodeCaller
	reach *reach
	now   func() time.Time
	// chain returns what proves the newest map to a node that holds only
	// the version given.
	chain func(from cluster.Version) []candmap.Envelope

	pending sync.WaitGroup // deliveries that nobody waited for
}

// outcome is what became of one publication.
type outcome struct {
	effective []cluster.NodeID // enforce this version or a newer one
	missed    []cluster.NodeID
	acks      map[cluster.NodeID]rpc.MapAck
}

// toAll delivers the map to every node and returns when each has answered, has
// failed, or had been given up before. tell, which may be nil, is called after
// each answer with the number of nodes that hold the version.
func (p *pusher) toAll(ctx context.Context, nodes []cluster.NodeID, env candmap.Envelope, at cluster.Version, docs [][]byte, tell func(done, all int)) outcome {
	type answer struct {
		node cluster.NodeID
		ack  rpc.MapAck
		ok   bool
	}
	o := outcome{acks: map[cluster.NodeID]rpc.MapAck{}}
	answers := make(chan answer, len(nodes))
	waits := map[cluster.NodeID]bool{}
	for _, n := range nodes {
		p.pending.Go(func() {
			ack, err := p.toOne(ctx, n, env, docs)
			answers <- answer{n, ack, err == nil && !at.Newer(ack.Version)}
		})
		if p.reach.of(n).failures < givenUpAfter {
			waits[n] = true
		}
	}
	for len(waits) > 0 {
		a := <-answers
		delete(waits, a.node)
		if a.ok {
			o.effective = append(o.effective, a.node)
			o.acks[a.node] = a.ack
		}
		if tell != nil {
			tell(len(o.effective), len(nodes))
		}
	}
	for _, n := range nodes {
		if _, ok := o.acks[n]; !ok {
			o.missed = append(o.missed, n)
		}
	}
	return o
}

// toOne delivers one map. A node that cannot verify it lacks changes of
// authority, and gets the chain.
func (p *pusher) toOne(ctx context.Context, node cluster.NodeID, env candmap.Envelope, docs [][]byte) (rpc.MapAck, error) {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	ack, err := p.call.PutMap(ctx, node, rpc.MapDelivery{Maps: []candmap.Envelope{env}, Docs: docs})
	if c := cluster.CodeOf(err); c == cluster.CodeBadSignature || c == cluster.CodeConflict {
		// It ends with this map or a newer one, unless it is too long for one
		// delivery; then the next one goes on from what the node acknowledged.
		if maps := p.chain(p.reach.of(node).ack.Version); len(maps) > 0 {
			ack, err = p.call.PutMap(ctx, node, rpc.MapDelivery{Maps: maps, Docs: docs})
		}
	}
	p.note(node, ack, err)
	return ack, err
}

// beacon delivers a beacon to every node and returns when all have answered or
// failed.
func (p *pusher) beacon(ctx context.Context, nodes []cluster.NodeID, env candmap.Envelope) {
	ctx, cancel := context.WithTimeout(ctx, beaconTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			ack, err := p.call.PutBeacon(ctx, n, env)
			p.note(n, ack, err)
		})
	}
	all.Wait()
}

func (p *pusher) note(node cluster.NodeID, ack rpc.MapAck, err error) {
	if err != nil {
		p.reach.failed(node, err, p.now())
		return
	}
	p.reach.answered(node, ack, p.now())
}

// wait returns when no delivery is under way.
func (p *pusher) wait() { p.pending.Wait() }
