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

// The dates of all certificates are looked at so often: they are many.
const certRound = time.Minute

// certWatch is what the leader remembers of its own jobs that renew certificates.
type certWatch struct {
	looked time.Time // at dates
	asked  time.Time
	wait   time.Duration
}

// ensureCertificates queues the job that renews certificates which are due, and
// those of nodes that are back after a renewal. At two thirds of the authority's
// life it queues the one that changes it.
func (l *leader) ensureCertificates(ctx context.Context) {
	st, w := l.node.State(), &l.certs
	if st.FeatureLevel < state.LevelRenew || len(slices.Collect(st.ActiveJobs())) > 0 {
		return
	}
	now := l.now()
	deep := now.Sub(w.looked).Abs() >= certRound
	if deep {
		w.looked = now
	}
	op, summary := "", ""
	switch {
	case deep && jobs.CADue(st, now):
		op, summary = `{"OP_ID":"`+jobs.OpClusterRenew+`","new_cluster_certificate":true}`, "CLUSTER_RENEW_CRYPTO"
	case jobs.CertsDue(st, now, l.upToDate, deep):
		op, summary = `{"OP_ID":"`+jobs.OpClusterRenewDue+`"}`, "CLUSTER_RENEW_DUE"
	default:
		if deep {
			w.wait = 0
		}
		return
	}
	if now.Sub(w.asked).Abs() < w.wait {
		return
	}
	w.asked, w.wait = now, min(max(2*w.wait, rollPause), rollPauseMax)
	body := state.JobSubmit{Ops: []json.RawMessage{json.RawMessage(op)}, Summary: []string{summary}}
	_, _, err := l.change(ctx, state.KindJobSubmit, body, l.meta(selfActor, rpc.NewRequestID()), nil)
	if err != nil && ctx.Err() == nil {
		l.log.Warn("the job that renews certificates is not queued yet", zap.Error(err))
	}
}

// upToDate reports whether a node answers and holds the newest map.
func (l *leader) upToDate(id cluster.NodeID) bool {
	c := l.push.reach.of(id)
	return c.failures == 0 && !c.at.IsZero() && c.ack.Version == l.held().At()
}
