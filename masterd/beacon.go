package masterd

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/rpc"
)

// beacons tells all nodes, three times in a lease, that the newest map is
// still the current one.
func (l *leader) beacons(ctx context.Context) error {
	for {
		began := time.Now()
		every := l.held().Lease() / 3
		if err := l.beacon(ctx, every); err != nil && ctx.Err() == nil {
			l.log.Warn("beacon was not signed by a majority", zap.Error(err))
			every = min(every, time.Second)
		}
		if err := pause(ctx, every-time.Since(began)); err != nil {
			return err
		}
	}
}

// beacon makes one beacon and delivers it; neither takes longer than limit.
func (l *leader) beacon(ctx context.Context, limit time.Duration) error {
	env, err := l.makeBeacon(ctx, limit)
	if err != nil {
		return err
	}
	l.deliverBeacon(ctx, env, limit)
	return nil
}

// makeBeacon has a majority sign that the newest map is the current one, which
// also confirms this node's clock. When the wall clock disagrees with what they
// confirmed before, that goes on to count. With errClockOnly the clock is
// confirmed, and there is no beacon.
func (l *leader) makeBeacon(ctx context.Context, limit time.Duration) (candmap.Envelope, error) {
	held := l.held()
	now := l.clock.now()
	b := candmap.Beacon{Cluster: held.Cluster, Epoch: held.Epoch, Version: held.Version, Map: held.Hash, Time: candmap.Stamp(now)}
	payload, err := b.Encode()
	if err != nil {
		return candmap.Envelope{}, err
	}
	l.push.reach.tell(held.At(), b.Time.Add(held.Lease()))
	env := candmap.Envelope{PayloadType: candmap.BeaconType, Payload: payload}
	req := rpc.SignRequest{PayloadType: candmap.BeaconType, Version: held.At(), Hash: held.Hash, Payload: payload, Term: l.node.Term()}
	asking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	env, err = collect(asking, l.sign, votersOf(held.Map), []candmap.Authority{held.Authority()}, env, req)
	if errors.Is(err, errClockOnly) {
		if err := l.confirmClock(ctx, held, limit, b, req); err != nil {
			return candmap.Envelope{}, err
		}
		return candmap.Envelope{}, errClockOnly
	}
	if err != nil {
		return candmap.Envelope{}, err
	}
	l.clock.confirm(b.Time)
	return env, nil
}

func (l *leader) deliverBeacon(ctx context.Context, env candmap.Envelope, limit time.Duration) {
	nodes, _, _ := l.targets(nil)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l.push.beacon(ctx, nodes, env)
	l.poke()
}
