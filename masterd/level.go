package masterd

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// levelPause is how long the master waits before it asks again whether all
// nodes are upgraded.
const levelPause = 5 * time.Second

// raiseLevel raises the cluster's feature level to the lowest that any daemon
// reports: noded of every node that is not offline, and masterd of every
// candidate. One that does not answer holds it back; one that is offline does
// not, and must be upgraded before it comes back.
func (l *leader) raiseLevel(ctx context.Context) {
	st := l.node.State()
	if st.FeatureLevel >= cluster.FeatureLevel || l.now().Sub(l.levelAsked) < levelPause {
		return
	}
	l.levelAsked = l.now()
	lowest, holder := l.lowestLevel(ctx, st)
	if lowest <= st.FeatureLevel {
		l.log.Info("the feature level stays", zap.Int("level", st.FeatureLevel), zap.String("held_back_by", holder))
		return
	}
	if _, _, err := l.change(ctx, state.KindFeatureLevel, state.FeatureLevel{Level: lowest}, l.meta("masterd", ""), nil); err != nil && ctx.Err() == nil {
		l.log.Warn("the feature level is not raised yet", zap.Int("level", lowest), zap.Error(err))
		return
	}
	l.log.Info("all nodes are upgraded: the feature level is raised", zap.Int("level", lowest))
}

// lowestLevel asks all daemons that matter, at once. The holder is one that
// reports the lowest; 0 is that of one that does not answer.
func (l *leader) lowestLevel(ctx context.Context, st *state.State) (lowest int, holder string) {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	lowest = cluster.FeatureLevel
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, n := range st.SortedNodes() {
		if n.Flags.Offline {
			continue
		}
		daemons := []rpc.Daemon{rpc.Noded}
		if n.Flags.MasterCandidate && n.UUID != l.self {
			daemons = append(daemons, rpc.Masterd)
		}
		for _, d := range daemons {
			all.Go(func() {
				level := l.levelOf(ctx, n.UUID, d)
				mu.Lock()
				defer mu.Unlock()
				if level < lowest {
					lowest, holder = level, string(n.Name)
				}
			})
		}
	}
	all.Wait()
	return lowest, holder
}

// levelOf asks a daemon; 0 is no answer. The first release's masterd does not
// know the question.
func (c calls) levelOf(ctx context.Context, node cluster.NodeID, d rpc.Daemon) int {
	var v rpc.VersionReply
	err := c.client.Call(ctx, rpc.Target{Node: node, Daemon: d}, rpc.MethodVersion, "", nil, &v)
	switch {
	case cluster.CodeOf(err) == cluster.CodeNotFound:
		return 1
	case err != nil:
		return 0
	}
	return v.Features
}
