package masterd

import (
	"context"
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
	held := l.held()
	b := candmap.Beacon{Cluster: held.Cluster, Epoch: held.Epoch, Version: held.Version, Map: held.Hash, Time: candmap.Stamp(l.now())}
	payload, err := b.Encode()
	if err != nil {
		return err
	}
	l.push.reach.tell(held.At(), b.Time.Add(held.Lease()))
	env := candmap.Envelope{PayloadType: candmap.BeaconType, Payload: payload}
	req := rpc.SignRequest{PayloadType: candmap.BeaconType, Version: held.At(), Hash: held.Hash, Payload: payload, Term: l.node.Term()}
	asking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	env, err = collect(asking, l.sign, votersOf(held.Map), []candmap.Authority{held.Authority()}, env, req)
	if err != nil {
		return err
	}
	nodes, _ := l.targets(nil)
	delivering, stop := context.WithTimeout(ctx, limit)
	defer stop()
	l.push.beacon(delivering, nodes, env)
	l.poke()
	return nil
}
