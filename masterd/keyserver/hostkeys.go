package keyserver

import (
	"context"
	"sync"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// maxClaimSkew is how far the time of a statement may be from ours: what a
// clock that is ahead says shuts out what the node says next for that long.
const maxClaimSkew = 5 * time.Minute

// Each change of host keys is a version of the map, which every node fetches: a
// member may have so many made in such a time.
const (
	claimsAtOnce = 5
	claimsPeriod = 10 * time.Minute
)

// HostKeys takes a member's statement about its own sshd, signed by its
// identity key: in force at once for a normal node, and to be confirmed by the
// administrator for a candidate.
func (s *Server) HostKeys(ctx context.Context, call Call, req pki.SignedHosts) (rpc.HostKeysReply, error) {
	if err := s.master.Ready(); err != nil {
		return rpc.HostKeysReply{}, err
	}
	st := s.master.State()
	n := st.Node(call.Node)
	if n == nil {
		return rpc.HostKeysReply{}, cluster.Errorf(cluster.CodeNotInRoster, "node %s is not in the cluster", call.Node)
	}
	claim, err := s.openClaim(st, n, req)
	if err != nil {
		return rpc.HostKeysReply{}, err
	}
	verdict, err := st.JudgeHostKeys(&claim)
	if err != nil || !verdict.Commits() {
		return rpc.HostKeysReply{Verdict: string(verdict)}, err
	}
	if st.FeatureLevel < state.LevelSSH {
		return rpc.HostKeysReply{}, cluster.Errorf(cluster.CodeConflict, "host keys cannot be changed while the cluster is at feature level %d", st.FeatureLevel).
			WithHint("upgrade rolekey on all nodes; gnt-cluster info shows the level")
	}
	if !s.claims.take(n.UUID, s.now()) {
		return rpc.HostKeysReply{}, cluster.Errorf(cluster.CodeBusy, "node %s has changed its host keys %d times in %s", n.Name, claimsAtOnce, claimsPeriod).
			WithHint("the node tells its host keys again by itself")
	}
	_, err = s.master.Change(ctx, state.KindHostKeysClaim, claim, "node "+string(n.Name), call.Request)
	return rpc.HostKeysReply{Verdict: string(verdict)}, err
}

// openClaim checks whose word it is, and of what time.
func (s *Server) openClaim(st *state.State, n *state.Node, req pki.SignedHosts) (state.HostKeysClaim, error) {
	h, err := req.Open(n.Identity)
	if err != nil {
		return state.HostKeysClaim{}, err
	}
	if h.Cluster != st.Cluster.UUID || h.Node != n.UUID {
		return state.HostKeysClaim{}, cluster.Errorf(cluster.CodeIdentityMismatch, "the statement is about node %s of cluster %s", h.Node, h.Cluster)
	}
	if skew := h.Issued.Sub(s.now()); skew.Abs() > maxClaimSkew {
		return state.HostKeysClaim{}, cluster.Errorf(cluster.CodeConflict, "the statement of node %s is dated %s, which is %s from the master's clock", n.Name, h.Issued.Format(time.RFC3339), skew.Abs().Round(time.Second)).
			WithHint("set the clocks right: gnt-cluster verify compares them")
	}
	for _, k := range h.Keys {
		if _, err := sshkeys.ParseKey(k); err != nil {
			return state.HostKeysClaim{}, cluster.Errorf(cluster.CodeBadFormat, "host key of node %s: %v", n.Name, err)
		}
	}
	return state.HostKeysClaim{Node: n.UUID, Incarnation: h.Incarnation, Issued: h.Issued, Keys: h.Keys, Port: h.Port}, nil
}

// pace counts what each node has had changed lately.
type pace struct {
	mu    sync.Mutex
	taken map[cluster.NodeID][]time.Time
}

// take notes a change, unless there were too many.
func (p *pace) take(node cluster.NodeID, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken == nil {
		p.taken = map[cluster.NodeID][]time.Time{}
	}
	for id, times := range p.taken {
		for len(times) > 0 && now.Sub(times[0]).Abs() >= claimsPeriod {
			times = times[1:]
		}
		if p.taken[id] = times; len(times) == 0 {
			delete(p.taken, id)
		}
	}
	if len(p.taken[node]) >= claimsAtOnce {
		return false
	}
	p.taken[node] = append(p.taken[node], now)
	return true
}
