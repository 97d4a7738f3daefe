package masterd

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// ensureRound is how often a candidate that had everything is asked again.
const ensureRound = time.Minute

// nodeKeys asks a node's noded to have, or to destroy, candidate keys.
type nodeKeys interface {
	KeyCreate(ctx context.Context, node cluster.NodeID, r rpc.KeyCreateRequest) (rpc.CandidateKeys, error)
	KeyDestroy(ctx context.Context, node cluster.NodeID) (rpc.KeyDestroyReply, error)
	KeyDestroyAt(ctx context.Context, to rpc.Target) (rpc.KeyDestroyReply, error) // of a node that is no member any more
}

// ensured notes that a candidate confirmed its certificate.
type ensured struct {
	cert cluster.Digest
	at   time.Time
}

// ensureKeys installs certificates on candidates that lack them: those that
// were promoted by a master that died, and those that lost their disk's newest
// writes. Asking a node that has everything changes nothing. One that has lost
// its keys gets new ones, by a job.
func (l *leader) ensureKeys(ctx context.Context) {
	st := l.node.State()
	for _, n := range st.Candidates() {
		want := cluster.DigestOf(n.Certs.Candidate)
		c := l.push.reach.of(n.UUID)
		if e := l.ensured[n.UUID]; c.failures > 0 || c.at.IsZero() || e.cert == want && l.now().Sub(e.at) < ensureRound {
			continue
		}
		keys, err := l.nodes.KeyCreate(ctx, n.UUID, rpc.KeyCreateRequest{
			Incarnation: n.Incarnation, Certificate: n.Certs.Candidate, SSHSetup: new(st.Params.SSHSetup),
		})
		switch {
		case cluster.CodeOf(err) == cluster.CodeKeysLost:
			l.rekey(ctx, n)
		case err != nil:
			l.log.Debug("candidate keys are not confirmed", zap.String("node", string(n.Name)), zap.Error(err))
		case keys.Installed == want:
			l.ensured[n.UUID] = ensured{want, l.now()}
		}
	}
}

// rekey queues the job that gives a candidate new keys, unless one is queued.
func (l *leader) rekey(ctx context.Context, n *state.Node) {
	summary := []string{"NODE_REKEY(" + string(n.Name) + ")"}
	for j := range l.node.State().ActiveJobs() {
		if slices.Equal(j.Summary, summary) {
			return
		}
	}
	if n.UUID == l.self {
		l.log.Error("this master has lost its own candidate keys; hand leadership to another candidate and promote this node again")
		return
	}
	l.log.Warn("candidate has lost its keys", zap.String("node", string(n.Name)))
	op, err := json.Marshal(map[string]string{"OP_ID": jobs.OpNodeRekey, "node_name": string(n.Name)})
	if err == nil {
		body := state.JobSubmit{Ops: []json.RawMessage{op}, Summary: summary}
		_, _, err = l.change(ctx, state.KindJobSubmit, body, l.meta(selfActor, rpc.NewRequestID()), nil)
	}
	if err != nil && ctx.Err() == nil {
		l.log.Warn("the job that gives it new keys is not queued yet", zap.String("node", string(n.Name)), zap.Error(err))
	}
}
