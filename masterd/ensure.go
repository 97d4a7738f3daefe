package masterd

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// A candidate that had everything is asked again so often, and one that says it
// has no SSH key so soon. An answer takes at most so long.
const (
	ensureRound = time.Minute
	ensureSSH   = 5 * time.Second
	ensureLimit = 10 * time.Second
)

// The job that replaces SSH keys is given again, if it was of no use, after
// pauses that grow between these.
const (
	rollPause    = 5 * time.Second
	rollPauseMax = 5 * time.Minute
)

// nodeKeys asks a node's noded to have, or to destroy, candidate keys.
type nodeKeys interface {
	KeyCreate(ctx context.Context, node cluster.NodeID, r rpc.KeyCreateRequest) (rpc.CandidateKeys, error)
	KeyDestroy(ctx context.Context, node cluster.NodeID) (rpc.KeyDestroyReply, error)
	CertPrepare(ctx context.Context, node cluster.NodeID, r rpc.CertPrepareRequest) (rpc.CertPrepareReply, error)
	CertInstall(ctx context.Context, node cluster.NodeID, r rpc.CertInstallRequest) (rpc.CertInstallReply, error)
	KeyDestroyAt(ctx context.Context, to rpc.Target) (rpc.KeyDestroyReply, error) // of a node that is no member any more
}

// ensured notes that a candidate confirmed its certificate, and what it said of
// its SSH keys.
type ensured struct {
	cert  cluster.Digest
	at    time.Time
	entry []cluster.SSHKey // that the map listed then
	ssh   []cluster.SSHKey // that it answered
}

// of reports whether it is about what the map lists now.
func (e ensured) of(n *state.Node) bool {
	return e.cert == cluster.DigestOf(n.Certs.Candidate) && slices.EqualFunc(e.entry, n.Keys.SSH, roles.SameSSHKey)
}

// settled reports whether the candidate need not be asked at present.
func (e ensured) settled(n *state.Node, missing bool, now time.Time) bool {
	round := ensureRound
	if missing {
		round = ensureSSH
	}
	return e.of(n) && now.Sub(e.at) < round
}

// unlisted reports whether the node is to have another SSH key than the map
// lists.
func (e ensured) unlisted(n *state.Node) bool {
	return e.of(n) && len(roles.WithoutSSHKeys(e.ssh, n.Keys.SSH)) > 0
}

// ensureKeys installs certificates on candidates that lack them: those that
// were promoted by a master that died, and those that lost their disk's newest
// writes. Asking a node that has everything changes nothing. One that has lost
// its keys gets new ones, by a job; the SSH key that all share it gets at once.
func (l *leader) ensureKeys(ctx context.Context) {
	st := l.node.State()
	for _, n := range st.Candidates() {
		want := cluster.DigestOf(n.Certs.Candidate)
		c := l.push.reach.of(n.UUID)
		if c.failures > 0 || c.at.IsZero() || l.ensured[n.UUID].settled(n, c.ack.SSHMissing, l.now()) {
			continue
		}
		keys, err := l.askKeys(ctx, st, n)
		switch {
		case cluster.CodeOf(err) == cluster.CodeKeysLost:
			l.rekey(ctx, n)
		case err != nil:
			l.log.Debug("candidate keys are not confirmed", zap.String("node", string(n.Name)), zap.Error(err))
		case keys.Installed == want:
			l.ensured[n.UUID] = ensured{want, l.now(), n.Keys.SSH, keys.SSH}
		}
	}
}

func (l *leader) askKeys(ctx context.Context, st *state.State, n *state.Node) (rpc.CandidateKeys, error) {
	ctx, cancel := context.WithTimeout(ctx, ensureLimit)
	defer cancel()
	return jobs.AskKeys(ctx, l.nodes, st, n, jobs.KeyRequest(st, n, n.Certs.Candidate))
}

// ensureSSHKeys queues the job that replaces SSH keys where they are not what
// the parameters want, or a node does not hold what the map lists: it was away
// when they were replaced, or has lost them, or the cluster was recovered.
func (l *leader) ensureSSHKeys(ctx context.Context) {
	st := l.node.State()
	if len(slices.Collect(st.ActiveJobs())) > 0 {
		return
	}
	if !l.needsRoll(st) {
		l.rollWait = 0
		return
	}
	if l.now().Sub(l.rolled) < l.rollWait {
		return
	}
	l.rolled, l.rollWait = l.now(), min(max(2*l.rollWait, rollPause), rollPauseMax)
	l.log.Info("the SSH keys of some candidates are to be replaced")
	op, err := json.Marshal(map[string]string{"OP_ID": jobs.OpClusterKeys})
	if err == nil {
		body := state.JobSubmit{Ops: []json.RawMessage{op}, Summary: []string{"CLUSTER_SSH_KEYS"}}
		_, _, err = l.change(ctx, state.KindJobSubmit, body, l.meta(selfActor, rpc.NewRequestID()), nil)
	}
	if err != nil && ctx.Err() == nil {
		l.log.Warn("the job that replaces SSH keys is not queued yet", zap.Error(err))
	}
}

// needsRoll reports whether there is something that a job could do now: a node
// that does not answer would get nothing from it.
func (l *leader) needsRoll(st *state.State) bool {
	behind, any := roles.SSHBehind(st)
	if any && len(behind) == 0 {
		return true
	}
	for _, n := range st.Candidates() {
		c := l.push.reach.of(n.UUID)
		if c.failures > 0 || c.at.IsZero() {
			continue
		}
		if slices.Contains(behind, n.UUID) || st.FeatureLevel >= state.LevelSSH && l.ensured[n.UUID].unlisted(n) {
			return true
		}
	}
	return false
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
