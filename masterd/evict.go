package masterd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// Who is evicted, local root has told noded, which keeps it. Here it means: no
// call of that candidate is served, none of its raft messages is heard and none
// is sent to it, nothing is signed for it, nothing it says of others is asked
// for, and it is not counted on for any decision.

// evicts reports whether local root has evicted a node.
func (d *Daemon) evicts(id cluster.NodeID) bool { return slices.Contains(d.evictedNodes(), id) }

func (d *Daemon) evictedNodes() []cluster.NodeID {
	if list := d.evicted.Load(); list != nil {
		return *list
	}
	return nil
}

// takeEvictions takes what noded says, and closes the connections of who is
// evicted now.
func (d *Daemon) takeEvictions(list []rpc.Eviction) {
	var ids []cluster.NodeID
	for _, e := range list {
		ids = append(ids, e.Node)
	}
	if slices.Equal(ids, d.evictedNodes()) {
		return
	}
	d.log.Warn("evictions have changed", zap.Stringers("evicted", ids))
	d.evicted.Store(&ids)
	d.mu.Lock()
	m := d.member
	d.mu.Unlock()
	if m == nil {
		return
	}
	v := m.keeper.View()
	if err := m.server.Revoke(v, v); err != nil {
		d.log.Error("calls of an evicted peer still run", zap.Error(err))
	}
}

// errEvicted is why nothing is sent to a node.
var errEvicted = cluster.Errorf(cluster.CodeEvicted, "root on this node has evicted it")

// errClockOnly is a voter's answer to a beacon that it would sign, did the map
// not name a master that root there has evicted.
var errClockOnly = errors.New("the voter confirms the clock only: root there has evicted the master that the map names")

// confirmClock has a majority compare its clocks with this leader's, without a
// signature: in the term after an eviction the map still names the evicted
// master, and a beacon would make the nodes trust that for longer.
func (l *leader) confirmClock(ctx context.Context, held *candmap.Verified, limit time.Duration, b candmap.Beacon, req rpc.SignRequest) error {
	voters := votersOf(held.Map)
	answers := make(chan error, len(voters))
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, v := range voters {
		go func() { // ends with the call, whose context ends with this function
			_, err := l.sign(ctx, v, req)
			answers <- err
		}()
	}
	agreed, errs := 0, []error{cluster.Errorf(cluster.CodeNoQuorum, "a majority of the voters did not confirm this master's clock")}
	for range voters {
		err := <-answers
		if err != nil && !errors.Is(err, errClockOnly) {
			errs = append(errs, err)
			continue
		}
		if agreed++; agreed >= held.Authority().Majority() {
			l.clock.confirm(b.Time)
			return nil
		}
	}
	return errors.Join(errs...)
}

// evictions asks the voters whom they have evicted.
func (d *Daemon) evictions(ctx context.Context, _ *struct{}) (any, error) {
	m, err := d.running()
	if err != nil {
		return nil, err
	}
	var reply rpc.EvictionsReply
	for _, c := range m.keeper.View().Map.Candidates {
		if c.Voter {
			reply.Voters = append(reply.Voters, rpc.VoterEvictions{Node: c.UUID, Name: c.Name, Self: c.UUID == m.self.node})
		}
	}
	slices.SortFunc(reply.Voters, func(a, b rpc.VoterEvictions) int { return state.CompareID(a.Node, b.Node) })
	var all sync.WaitGroup
	for i := range reply.Voters {
		all.Go(func() { m.askEvictions(ctx, &reply.Voters[i]) })
	}
	all.Wait()
	return reply, nil
}

func (m *member) askEvictions(ctx context.Context, v *rpc.VoterEvictions) {
	switch {
	case v.Self:
		v.Evicted = m.d.evictedNodes()
		return
	case m.d.evicts(v.Node):
		v.Problem = "it is evicted here, and not asked"
		return
	}
	seen, err := m.askSeen(ctx, v.Node)
	if err != nil {
		v.Problem = err.Error()
		return
	}
	v.Evicted = seen.Evicted
}
