package masterd

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// TestLevelIsThatOfTheOldestDaemon: it rises when the last daemon that counts is
// upgraded, and not before; a node that does not answer holds it back, one that
// is offline does not.
func TestLevelIsThatOfTheOldestDaemon(t *testing.T) {
	for _, c := range []struct {
		name    string
		levels  map[string]int // of a daemon; the others know the newest
		offline bool           // node 3
		want    int
	}{
		{"all upgraded", nil, false, cluster.FeatureLevel},
		{"a noded of the first release", map[string]int{"3 noded": 1}, false, 1},
		{"a masterd of the first release", map[string]int{"2 masterd": 1}, false, 1},
		{"a masterd that does not answer", map[string]int{"2 masterd": 0}, false, 1},
		{"a node that does not answer", map[string]int{"3 noded": 0}, false, 1},
		{"an offline node of the first release", map[string]int{"3 noded": 1}, true, cluster.FeatureLevel},
		{"masterd of a node that is no candidate", map[string]int{"3 masterd": 1}, false, cluster.FeatureLevel},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lab := labOf(t, 2, 120)
				lab.Promote(2) // and node 3 is no candidate
				if c.offline {
					lab.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(3), Flags: &state.FlagPatch{Offline: new(true)}})
				}
				r := newReign(t, lab)
				r.l.levelOf = func(_ context.Context, node cluster.NodeID, d rpc.Daemon) int {
					if level, ok := c.levels[fmt.Sprintf("%d %s", node[7], d)]; ok {
						return level
					}
					return cluster.FeatureLevel
				}
				r.world.up(members(1, 3)...)
				r.lead()
				time.Sleep(3 * levelPause)
				if got := r.l.node.State().FeatureLevel; got != c.want {
					t.Errorf("level %d, want %d", got, c.want)
				}
			})
		})
	}
}
