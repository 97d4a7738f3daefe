package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// OpClusterRedist is Ganeti's opcode that distributes the configuration anew.
const OpClusterRedist = "OP_CLUSTER_REDIST_CONF"

// PassesDrain reports whether even a drained queue takes a job: it changes
// nothing, and its maker says so.
func PassesDrain(ops []json.RawMessage) bool {
	for _, raw := range ops {
		var op struct {
			ID            string `json:"OP_ID"`
			EvenIfDrained bool   `json:"even_if_drained"`
		}
		if json.Unmarshal(raw, &op) != nil || op.ID != OpClusterRedist || !op.EvenIfDrained {
			return false
		}
	}
	return true
}

// clusterRedist delivers map and roster to all nodes, whatever they hold, and
// has them rewrite the files that follow from these. It changes no intent, so
// the next master just does it again.
func clusterRedist(ctx context.Context, r *run, _ json.RawMessage) (json.RawMessage, error) {
	if r.dry {
		r.wouldDo(fmt.Sprintf("deliver map and roster to %d nodes", len(r.c.State().Nodes)))
		return json.RawMessage("null"), nil
	}
	spread, err := r.c.Redistribute(ctx)
	if err != nil {
		return nil, err
	}
	r.report(spread)
	if len(spread.Problems) > 0 {
		return nil, fmt.Errorf("not all files follow the cluster's documents:\n%s", strings.Join(spread.Problems, "\n"))
	}
	return json.RawMessage("null"), nil
}
