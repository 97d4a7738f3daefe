package gossip

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
)

// announcer holds the newest announcement, and spreads it.
type announcer struct {
	queue memberlist.TransmitLimitedQueue

	mu     sync.Mutex
	newest announcement
}

// announcement is a beacon ready to be sent. The zero one is older than all.
type announcement struct {
	beacon candmap.Beacon
	hash   cluster.Digest // of the payload
	msg    []byte
}

func (a *announcement) newerThan(o *announcement) bool {
	if order := a.beacon.At().Compare(o.beacon.At()); order != 0 {
		return order > 0
	}
	return a.beacon.Time.After(o.beacon.Time)
}

// prepare trims a beacon to the smallest proof under the map, checks that it
// fits, and reads it.
func prepare(env candmap.Envelope, m *candmap.Verified) (announcement, error) {
	if m == nil {
		return announcement{}, errors.New("prepare announcement: no map to prove it by")
	}
	bare, err := trim(env, m)
	if err != nil {
		return announcement{}, err
	}
	msg := bare.Encode()
	if len(msg) > MaxMessage {
		return announcement{}, fmt.Errorf("prepare announcement: %d bytes, at most %d would be sent", len(msg), MaxMessage)
	}
	b, err := candmap.DecodeBeacon(bare.Payload)
	if err != nil {
		return announcement{}, fmt.Errorf("prepare announcement: %w", err)
	}
	return announcement{*b, bare.Hash(), msg}, nil
}

// Announce spreads a beacon that this node learned by other means, such as a
// push from the master. One that is not newer than the last is already on its
// way. One that proves nothing or is too large is refused, logged and counted.
func (g *Gossip) Announce(env candmap.Envelope) {
	a, err := prepare(env, g.cfg.Holder.View().Map)
	if err != nil {
		g.count.refused.Add(1)
		g.log.Warn("announcement refused", zap.Error(err))
		return
	}
	if g.out.offer(a) {
		g.count.queued.Add(1)
	}
}

// offer queues the announcement if it is newer than the newest. Having one
// name for all, it evicts the older one from the queue.
func (o *announcer) offer(a announcement) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !a.newerThan(&o.newest) {
		return false
	}
	o.newest = a
	o.queue.QueueBroadcast(broadcast(a.msg))
	return true
}

// current returns the holder's newest beacon as a message, nil without one.
func (g *Gossip) current() []byte {
	env, ok := g.cfg.Holder.Beacon()
	if !ok {
		return nil
	}
	g.out.mu.Lock()
	newest := g.out.newest
	g.out.mu.Unlock()
	if newest.msg != nil && newest.hash == env.Hash() {
		return newest.msg
	}
	// Learned by other means and not announced, or no longer the newest.
	a, err := prepare(env, g.cfg.Holder.View().Map)
	if err != nil {
		g.log.Debug("no announcement to exchange", zap.Error(err))
		return nil
	}
	return a.msg
}

// broadcast is a message in memberlist's queue.
type broadcast []byte

var _ memberlist.NamedBroadcast = broadcast(nil)

// Name implements memberlist.NamedBroadcast: a newer beacon replaces the older.
func (broadcast) Name() string { return "beacon" }

// Invalidates implements memberlist.Broadcast.
func (b broadcast) Invalidates(o memberlist.Broadcast) bool {
	named, ok := o.(memberlist.NamedBroadcast)
	return ok && named.Name() == b.Name()
}

// Message implements memberlist.Broadcast.
func (b broadcast) Message() []byte { return b }

// Finished implements memberlist.Broadcast.
func (broadcast) Finished() {}
