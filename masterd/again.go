package masterd

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.uber.org/zap"

	"rolekey/masterd/jobs"
	"rolekey/masterd/state"
)

// againPause is how long the next attempt to promote a node waits for the one
// before to have been of use.
const againPause = time.Minute

// promoteAgain gives jobs that make nodes candidates again which were so before
// a recovery: one at a time, when the node holds the newest map, and while the
// pool has room. They get new keys; those of before are destroyed by then.
func (l *leader) promoteAgain(ctx context.Context) {
	st := l.node.State()
	nodes := st.Again()
	if len(nodes) == 0 || len(st.Candidates()) >= st.Params.CandidatePoolSize {
		return
	}
	for range st.ActiveJobs() {
		return
	}
	for _, n := range nodes {
		c := l.push.reach.of(n.UUID)
		if c.ack.Version != l.held().At() || !c.enforces() || c.failures > 0 || l.now().Sub(l.again[n.UUID]) < againPause {
			continue
		}
		l.again[n.UUID] = l.now()
		if err := l.submitAgain(ctx, n); err != nil && ctx.Err() == nil {
			l.log.Info("a candidate of before the recovery is not promoted yet", zap.String("node", string(n.Name)), zap.Error(err))
		}
		return
	}
}

func (l *leader) submitAgain(ctx context.Context, n *state.Node) error {
	op, err := json.Marshal(struct {
		ID        string `json:"OP_ID"`
		Node      string `json:"node_name"`
		Candidate bool   `json:"master_candidate"`
	}{jobs.OpNodeSetParams, string(n.Name), true})
	if err != nil {
		return err
	}
	body := state.JobSubmit{Ops: []json.RawMessage{op}, Summary: []string{fmt.Sprintf("NODE_SET_PARAMS(%s)", n.Name)}}
	_, _, err = l.change(ctx, state.KindJobSubmit, body, l.meta("masterd", "recovery"), nil)
	return err
}
