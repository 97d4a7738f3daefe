package gossip

import (
	"bytes"
	"context"
	"errors"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"rolekey/candmap"
	"rolekey/cluster"
)

// receive takes a message from memberlist, whose buffer it is. It must not
// block.
func (g *Gossip) receive(msg []byte) {
	g.count.received.Add(1)
	if len(msg) > MaxMessage {
		g.count.tooLarge.Add(1)
		return
	}
	switch g.in.put(msg) {
	case putEvicted:
		g.count.dropped.Add(1)
	case putAgain:
		g.count.duplicates.Add(1)
	}
}

// judgeAll judges messages, the newest first. It holds a permit to check
// signatures before it picks a message, so that whatever arrives while it
// waits for one comes first; a message that needs none leaves it for the next.
func (g *Gossip) judgeAll(ctx context.Context) error {
	permits := rate.NewLimiter(checksPerSec, checksAtOnce)
	permit := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.in.ready:
		}
		for {
			if !permit && permits.Wait(ctx) != nil {
				return nil
			}
			permit = true
			msg := g.in.pop()
			if msg == nil {
				break
			}
			permit = !g.judge(msg)
		}
	}
}

// judge decides on one message, and reports whether that took signature
// checks. What proves nothing triggers nothing.
func (g *Gossip) judge(msg []byte) (checked bool) {
	env, err := candmap.ParseEnvelope(msg)
	if err != nil || env.PayloadType != candmap.BeaconType {
		g.count.malformed.Add(1)
		return false
	}
	held, ok := g.cfg.Holder.Beacon()
	m := g.cfg.Holder.View().Map
	switch {
	case ok && bytes.Equal(held.Payload, env.Payload):
		g.count.duplicates.Add(1)
	case m == nil:
		g.count.noMap.Add(1)
	case !couldProve(env, m):
		g.count.unproven.Add(1)
	default:
		g.deliver(env)
		return true
	}
	return false
}

// deliver has the holder verify a beacon, and passes on what is news.
func (g *Gossip) deliver(env candmap.Envelope) {
	news, err := g.cfg.Holder.DeliverBeacon(env)
	switch {
	case err != nil:
		g.refused(err)
	case !news:
		g.count.old.Add(1)
	default:
		g.count.news.Add(1)
		g.Announce(env) // receivers do not pass messages on by themselves
		g.cfg.OnNews(env)
	}
}

func (g *Gossip) refused(err error) {
	var fork *candmap.ForkError
	switch code := cluster.CodeOf(err); {
	case errors.As(err, &fork):
		g.count.forked.Add(1)
	case code == cluster.CodeMapOlder:
		g.count.old.Add(1)
	case code == cluster.CodeNoMap:
		g.count.noMap.Add(1)
	case code == cluster.CodeBadSignature:
		g.count.unproven.Add(1)
	default:
		g.count.malformed.Add(1)
	}
	g.log.Debug("announcement not believed", zap.Error(err))
}
