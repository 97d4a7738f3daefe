package masterd

import (
	"context"
	"errors"
	"slices"
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
	// docs returns those documents of the newest roster; nil: none.
	docs func(missing []cluster.Digest) [][]byte

	mu      sync.Mutex
	closed  bool           // nothing more is started
	pending sync.WaitGroup // deliveries that nobody waited for
}

// errClosing is why a delivery is not made: the term is over.
var errClosing = errors.New("this node no longer leads")

// start runs f unless the term is over, and reports whether it does.
func (p *pusher) start(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.pending.Go(f)
	return true
}

// outcome is what became of one publication.
type outcome struct {
	effective []cluster.NodeID // enforce this version or a newer one
	missed    []cluster.NodeID
	acks      map[cluster.NodeID]rpc.MapAck
}

// delivery is one map on its way to all nodes.
type delivery struct {
	nodes   []cluster.NodeID
	offline []cluster.NodeID // told as well, and neither waited for nor counted
	env     candmap.Envelope
	at      cluster.Version
	docs    [][]byte
}

// toAll delivers the map to every node and returns when each has answered, has
// failed, or had been given up before. A node counts when all of it follows the
// map. tell, which may be nil, is called after each answer with the number of
// nodes that do.
func (p *pusher) toAll(ctx context.Context, d delivery, tell func(done, all int)) outcome {
	o := outcome{acks: map[cluster.NodeID]rpc.MapAck{}}
	answers := make(chan answer, len(d.nodes)+len(d.offline))
	waits := map[cluster.NodeID]bool{}
	what := rpc.MapDelivery{Maps: []candmap.Envelope{d.env}, Docs: d.docs}.Shared()
	for _, n := range d.nodes {
		if p.begin(ctx, n, d.at, what, answers) && !p.reach.of(n).givenUp() {
			waits[n] = true
		}
	}
	for _, n := range d.offline {
		p.begin(ctx, n, d.at, what, answers)
	}
	for len(waits) > 0 {
		a := <-answers
		delete(waits, a.node)
		if a.ok && slices.Contains(d.nodes, a.node) {
			o.effective = append(o.effective, a.node)
			o.acks[a.node] = a.ack
		}
		if tell != nil {
			tell(len(o.effective), len(d.nodes))
		}
	}
	for _, n := range d.nodes {
		if _, ok := o.acks[n]; !ok {
			o.missed = append(o.missed, n)
		}
	}
	return o
}

type answer struct {
	node cluster.NodeID
	ack  rpc.MapAck
	ok   bool
}

// begin delivers to one node in the background; false: the term is over.
func (p *pusher) begin(ctx context.Context, n cluster.NodeID, at cluster.Version, what rpc.MapDelivery, answers chan<- answer) bool {
	return p.start(func() {
		ack, err := p.toOne(ctx, n, what)
		answers <- answer{n, ack, err == nil && !at.Newer(ack.Version) && enforces(ack)}
	})
}

// toOne delivers one map. A node that cannot verify it lacks changes of
// authority, and gets the chain.
func (p *pusher) toOne(parent context.Context, node cluster.NodeID, what rpc.MapDelivery) (rpc.MapAck, error) {
	ctx, cancel := context.WithTimeout(parent, pushTimeout)
	defer cancel()
	began := time.Now()
	ack, err := p.call.PutMap(ctx, node, what)
	if c := cluster.CodeOf(err); c == cluster.CodeBadSignature || c == cluster.CodeConflict {
		// It ends with this map or a newer one, unless it is too long for one
		// delivery; then the next one goes on from what the node acknowledged.
		if maps := p.chain(p.reach.of(node).ack.Version); len(maps) > 0 {
			ack, err = p.call.PutMap(ctx, node, rpc.MapDelivery{Maps: maps, Docs: what.Docs})
		}
	}
	if err == nil {
		ack, err = p.complete(ctx, node, ack)
	}
	p.note(parent, node, ack, err, time.Since(began))
	return ack, err
}

// complete delivers what a node says that it lacks of the roster. A map brings
// what is new in its own; where versions follow each other at once, and overtake
// each other, a node lacks some, and until it has them it knows no new key: it
// would refuse those who have just renewed. The index names the rest.
func (p *pusher) complete(ctx context.Context, node cluster.NodeID, ack rpc.MapAck) (rpc.MapAck, error) {
	for range 2 {
		if len(ack.Missing) == 0 || p.docs == nil {
			break
		}
		docs := p.docs(ack.Missing)
		if len(docs) == 0 {
			break // it is the roster of an older map, and a newer one is on its way
		}
		more, err := p.call.PutMap(ctx, node, rpc.MapDelivery{Docs: docs})
		if err != nil {
			return ack, err
		}
		ack = more
	}
	return ack, nil
}

// beacon delivers a beacon to every node and returns when all have answered or
// failed.
func (p *pusher) beacon(parent context.Context, nodes []cluster.NodeID, env candmap.Envelope) {
	ctx, cancel := context.WithTimeout(parent, beaconTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			began := time.Now()
			ack, err := p.call.PutBeacon(ctx, n, env)
			if cluster.CodeOf(err) == cluster.CodeBadSignature {
				// It holds a map of other voters, as before a recovery: it is there,
				// and hears of this map from nobody else.
				p.reach.strange(n)
				return
			}
			p.note(parent, n, ack, err, time.Since(began))
		})
	}
	all.Wait()
}

// note keeps count. That the caller gave up says nothing about the node.
func (p *pusher) note(parent context.Context, node cluster.NodeID, ack rpc.MapAck, err error, took time.Duration) {
	switch {
	case err == nil:
		p.reach.answered(node, ack, p.now(), took)
	case parent.Err() == nil:
		p.reach.failed(node, err, p.now())
	}
}

// wait returns when no delivery is under way; none is begun after it.
func (p *pusher) wait() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.pending.Wait()
}
