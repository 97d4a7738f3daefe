package masterd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// publishPause is the pause before a majority is asked again. Only a lost
// majority makes it matter, and then raft soon ends the leadership.
const publishPause = 200 * time.Millisecond

// change commits one command and, when it yields a map, publishes that. What
// is committed stays committed: a later error means that this master could
// not publish it in time, and it or the next one will. The caller's context
// bounds how long the caller waits, and not the publication.
func (l *leader) change(ctx context.Context, kind string, body any, meta state.Meta, tell func(done, all int)) (state.Result, outcome, error) {
	if err := l.clock.confirmed(l.held().Lease()); err != nil {
		return state.Result{}, outcome{}, err
	}
	result, err := l.commit(ctx, kind, body, meta)
	if err != nil {
		return result, outcome{}, err
	}
	if result.Version.IsZero() {
		return result, outcome{}, nil
	}
	l.node.Kick()
	o, err := l.publishFor(ctx, result.Version, meta.RequestID, tell)
	return result, o, err
}

// publishFor publishes on behalf of a caller who may leave before it is done.
// The deliveries carry the id of the request.
func (l *leader) publishFor(ctx context.Context, v cluster.Version, request string, tell func(done, all int)) (outcome, error) {
	type end struct {
		o   outcome
		err error
	}
	ended := make(chan end, 1)
	if !l.push.start(func() {
		o, err := l.publish(rpc.WithRequestID(l.term, request), v, tell)
		ended <- end{o, err}
	}) {
		return outcome{}, errClosing
	}
	select {
	case e := <-ended:
		return e.o, e.err
	case <-ctx.Done():
		return outcome{}, context.Cause(ctx)
	}
}

// publish collects signatures for every committed version up to v that this
// node cannot prove yet, and delivers the newest to all nodes. It returns when
// every node that answers holds it.
func (l *leader) publish(ctx context.Context, v cluster.Version, tell func(done, all int)) (outcome, error) {
	d, err := l.prove(ctx, v)
	if err != nil {
		return outcome{}, err
	}
	return l.push.toAll(ctx, d, tell), nil
}

// prove collects the signatures. Only this is done one at a time: a node that
// is slow to take a map must not delay the next one.
func (l *leader) prove(ctx context.Context, v cluster.Version) (delivery, error) {
	select {
	case l.publishing <- struct{}{}:
	case <-ctx.Done():
		return delivery{}, context.Cause(ctx)
	}
	defer func() { <-l.publishing }()
	before := l.keeper.View().Roster
	for _, e := range l.node.State().After(l.held().At()) {
		if e.Version.Newer(v) {
			break
		}
		if err := l.complete(ctx, e); err != nil {
			return delivery{}, err
		}
	}
	held := l.held()
	d := delivery{env: held.Envelope, at: held.At()}
	d.nodes, d.offline, d.docs = l.targets(before)
	return d, nil
}

// complete collects signatures for one committed version until it has enough,
// and takes it over as this node's own.
func (l *leader) complete(ctx context.Context, e state.ChainEntry) error {
	m, err := candmap.DecodeMap(e.Payload)
	if err != nil {
		return err
	}
	held := l.held()
	l.push.reach.tell(held.At(), later(held.Issued, l.keeper.Lease().Last()).Add(held.Lease()))
	env := candmap.Envelope{PayloadType: candmap.MapType, Payload: e.Payload}
	req := rpc.SignRequest{PayloadType: candmap.MapType, Version: e.Version, Hash: e.Hash, Term: l.node.Term()}
	authorities := []candmap.Authority{held.Authority(), m.Authority()}
	for {
		if !e.Version.Newer(l.held().At()) {
			return nil // it came from another node: an earlier master did publish it
		}
		env, err = collect(ctx, l.sign, votersOf(held.Map, m), authorities, env, req)
		if err == nil {
			break
		}
		l.log.Warn("no majority has signed the map yet", zap.Stringer("version", e.Version), zap.Error(err))
		if err := pause(ctx, publishPause); err != nil {
			return fmt.Errorf("publish map %s: %w", e.Version, err)
		}
	}
	_, err = l.keeper.Deliver(ctx, []candmap.Envelope{env}, docsOf(l.node.State().Roster()))
	if errors.Is(err, candmap.ErrKnown) {
		return nil
	}
	return err
}

// targets lists the nodes to deliver to, those that are offline apart, and the
// roster documents that are new since the roster before.
func (l *leader) targets(before *candmap.Roster) (ids, offline []cluster.NodeID, docs [][]byte) {
	st := l.node.State()
	for _, n := range st.SortedNodes() {
		if n.Flags.Offline {
			offline = append(offline, n.UUID)
		} else {
			ids = append(ids, n.UUID)
		}
	}
	for digest, doc := range st.Roster().Docs() {
		if before == nil || before.Docs()[digest] == nil {
			docs = append(docs, doc)
		}
	}
	return ids, offline, docs
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// docsOf lists the documents of a roster, always in the same order.
func docsOf(r *candmap.Roster) [][]byte {
	var docs [][]byte
	for _, d := range r.Docs() {
		docs = append(docs, d)
	}
	slices.SortFunc(docs, bytes.Compare)
	return docs
}

// unreachable names the nodes that have not confirmed, with their two bounds.
func (l *leader) unreachable(o outcome) []state.Unreachable {
	st := l.node.State()
	var out []state.Unreachable
	for _, id := range o.missed {
		if n := st.Node(id); n != nil {
			out = append(out, l.push.reach.bounds(n, st.Params, l.now()))
			c := l.push.reach.of(id)
			l.log.Warn("a node has not confirmed the map", zap.String("of", string(n.Name)), zap.Stringer("confirmed", c.ack.Version),
				zap.String("error", c.err), zap.Strings("problems", c.ack.Problems))
		}
	}
	return out
}

// pause waits, or returns early with the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
