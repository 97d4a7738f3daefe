package jobs

import (
	"context"
	"sync"
	"time"

	"rolekey/cluster"
	"rolekey/rpc"
)

// A login takes its time, and one that began when there was only the old key must
// not end when there is none but the new. So both keys are good until it is known
// that no such login is under way: first no candidate has an ssh any more that may
// have read which key to use before it was told of the new one, and has not
// connected; then every login is decided that was under way on any node. Both are
// good for overlapFloor at least, for what a node cannot see, and for overlapHold
// at most, which is also how long they are when a node cannot tell. Meanwhile the
// map is delivered again, at the pace of overlapPause, to nodes that have not
// confirmed it. The key of a role that was lost goes at once.
const (
	overlapFloor = 300 * time.Millisecond
	overlapHold  = 5 * time.Second
	overlapPause = 500 * time.Millisecond
)

// settlesAtOnce bounds the nodes that are waited for at a time.
const settlesAtOnce = 64

// hold waits until the old keys can go, or the renewal is given up.
func (g *roll) hold(ctx context.Context, spread Spread) (err error) {
	limit, stop := g.whileHeld(ctx)
	defer stop()
	s := g.c.State()
	at := s.Head().Version
	var clients, servers []cluster.NodeID // that are not known to be done
	for _, n := range s.Candidates() {
		clients = append(clients, n.UUID)
	}
	for _, n := range s.SortedNodes() {
		if !n.Flags.Offline {
			servers = append(servers, n.UUID)
		}
	}
	for {
		if spread.Done == spread.All {
			floor, stop := context.WithTimeout(limit, overlapFloor)
			if clients = g.unsettled(limit, at, clients, true); len(clients) == 0 {
				<-floor.Done()
			}
			stop()
			if len(clients) == 0 && limit.Err() == nil {
				servers = g.unsettled(limit, at, servers, false)
			}
			if len(clients)+len(servers) == 0 {
				return nil
			}
		}
		if wait(limit, time.After(overlapPause)) != nil {
			return context.Cause(ctx) // nil when the time is over
		}
		if spread.Done == spread.All {
			continue
		}
		if spread, err = g.c.Republish(limit); err != nil && limit.Err() == nil {
			return err
		}
	}
}

// whileHeld returns a context that ends when the old keys have been good for long
// enough in any case, or the renewal is given up. stop waits for what watches it.
func (g *roll) whileHeld(ctx context.Context) (limit context.Context, stop func()) {
	limit, cancel := context.WithTimeout(ctx, overlapHold)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			changed := g.c.Watch()
			if g.mayGoBack() {
				cancel()
			}
			if wait(limit, changed) != nil {
				return
			}
		}
	}()
	return limit, func() { cancel(); <-done }
}

// unsettled has nodes wait for what may need the old keys, and returns those that
// still have some of it, or cannot tell.
func (g *roll) unsettled(ctx context.Context, at cluster.Version, nodes []cluster.NodeID, clients bool) (left []cluster.NodeID) {
	end, _ := ctx.Deadline()
	req := rpc.SSHSettleRequest{Version: at, Clients: clients, WaitMS: time.Until(end).Milliseconds()}
	slots := make(chan struct{}, settlesAtOnce)
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, id := range nodes {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			reply, err := g.c.SSHSettle(ctx, id, req)
			if err == nil && reply.Settled {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			left = append(left, id)
		})
	}
	all.Wait()
	return left
}

// wait waits for a channel, and returns why it ended before.
func wait[T any](ctx context.Context, came <-chan T) error {
	select {
	case <-came:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
