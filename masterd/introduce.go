package masterd

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// Bounds of an introduction.
const (
	introduceLimit  = 3 * time.Second
	introducePause  = 2 * time.Second // between two to one node
	introduceRounds = 16              // deliveries of one
	introduceBytes  = 2 << 20         // of roster documents in one delivery
	introduceQueue  = 16
)

// introducer tells nodes that refuse this candidate as a stranger of the map by
// which they recognise it. The master delivers maps; but a voter that was away
// while certificates were renewed recognises nobody when it is back, and where
// its vote is needed to elect a master, there is none to deliver anything.
//
// It has no power of its own: anybody may deliver a map, which proves itself,
// and the receiver is known by its pinned key. One node is told at a time.
type introducer struct {
	client *rpc.Client
	keeper *candmap.Keeper
	evicts func(cluster.NodeID) bool
	log    *zap.Logger
	queue  chan cluster.NodeID
}

func newIntroducer(c *rpc.Client, k *candmap.Keeper, evicts func(cluster.NodeID) bool, log *zap.Logger) *introducer {
	return &introducer{client: c, keeper: k, evicts: evicts, log: log, queue: make(chan cluster.NodeID, introduceQueue)}
}

// refused takes note of an error of a call to a node's masterd. It never blocks.
func (i *introducer) refused(node cluster.NodeID, err error) {
	switch cluster.CodeOf(err) {
	case cluster.CodeNoCertificate, cluster.CodeNotInMap, cluster.CodeNotMaster:
	default:
		return
	}
	select {
	case i.queue <- node:
	default: // the call is made again, and refused again
	}
}

// run introduces this candidate until ctx ends.
func (i *introducer) run(ctx context.Context) error {
	last := map[cluster.NodeID]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case node := <-i.queue:
			if time.Since(last[node]) < introducePause || i.evicts(node) {
				continue
			}
			if err := i.introduce(ctx, node); err != nil && ctx.Err() == nil {
				i.log.Info("a node that refuses this one does not take its map", zap.Stringer("node", node), zap.Error(err))
			}
			last[node] = time.Now()
		}
	}
}

// introduce delivers what this candidate holds, if the node holds less. A node
// with a newer map has its reasons to refuse.
func (i *introducer) introduce(ctx context.Context, node cluster.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, introduceLimit)
	defer cancel()
	to := rpc.Target{Node: node, Daemon: rpc.Noded}
	var held rpc.HealthReply
	if err := i.client.Call(ctx, to, rpc.MethodHealth, "", nil, &held); err != nil {
		return err
	}
	view, at := i.keeper.View(), held.Version
	if !held.OK || !view.Complete() || !view.At().Newer(at) {
		return nil
	}
	docs := docsOf(view.Roster)
	for range introduceRounds {
		var ack rpc.MapAck
		if err := i.client.Call(ctx, to, rpc.MethodMapPut, "", rpc.MapDelivery{Maps: i.keeper.Since(at), Docs: upTo(docs, introduceBytes)}, &ack); err != nil {
			return err
		}
		at, docs = ack.Version, wanted(view.Roster, ack.Missing)
		if !view.At().Newer(at) && len(ack.Missing) == 0 {
			i.log.Info("a node that did not recognise this one holds its map now", zap.Stringer("node", node), zap.Stringer("version", at))
			return nil
		}
	}
	return errors.New("it does not hold all of it after many deliveries")
}

// wanted lists the documents of a roster that a node lacks.
func wanted(r *candmap.Roster, missing []cluster.Digest) (docs [][]byte) {
	for _, d := range missing {
		if doc := r.Docs()[d]; doc != nil {
			docs = append(docs, doc)
		}
	}
	return docs
}

// upTo lists the first documents, one at least, that are no longer in all than
// limit.
func upTo(docs [][]byte, limit int) [][]byte {
	size := 0
	n := slices.IndexFunc(docs, func(d []byte) bool {
		size += len(d)
		return size > limit
	})
	if n < 0 {
		return docs
	}
	return docs[:max(n, 1)]
}
