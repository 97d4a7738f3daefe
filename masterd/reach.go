package masterd

import (
	"sync"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// reach remembers what each node last acknowledged to this master. It starts
// empty after a change of master; until a node answers, its bounds are the
// widest that the parameters allow.
type reach struct {
	mu    sync.Mutex
	nodes map[cluster.NodeID]contact
}

type contact struct {
	ack      rpc.MapAck
	at       time.Time // of the last answer; zero: none
	asked    time.Time // of the last attempt
	failures int       // attempts since the last answer
	err      string
}

func newReach() *reach { return &reach{nodes: map[cluster.NodeID]contact{}} }

func (r *reach) answered(id cluster.NodeID, ack rpc.MapAck, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes[id] = contact{ack: ack, at: now, asked: now}
}

func (r *reach) failed(id cluster.NodeID, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.nodes[id]
	c.failures++
	c.asked = now
	c.err = err.Error()
	r.nodes[id] = c
}

func (r *reach) of(id cluster.NodeID) contact {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[id]
}

// bounds tells until when at most a node that cannot be reached goes on
// trusting an older map, and its sshd an older key.
func (r *reach) bounds(n *state.Node, p state.Params, now time.Time) state.Unreachable {
	rpcUntil := now.Add(time.Duration(p.LeaseSeconds) * time.Second)
	sshUntil := now.Add(time.Duration(p.SSHLeaseSeconds) * time.Second)
	if c := r.of(n.UUID); !c.at.IsZero() {
		rpcUntil, sshUntil = c.ack.LeaseUntil, c.ack.SSHUntil
	}
	u := state.Unreachable{Node: string(n.Name), RPCUntil: stamp(rpcUntil), SSHUntil: stamp(sshUntil)}
	if p.Policy == cluster.PolicyBestEffort {
		u.RPCUntil = nil // it serves on without news
	}
	if !p.SSHSetup {
		u.SSHUntil = nil // Rolekey wrote no key there
	}
	return u
}

func stamp(t time.Time) *time.Time {
	t = candmap.Stamp(t)
	return &t
}
