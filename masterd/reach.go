package masterd

import (
	"fmt"
	"slices"
	"strings"
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
	// What a node that does not answer this master may still have heard from
	// others: the newest map before the one that is being published, and the
	// end of the lease that its newest beacon gives.
	told  cluster.Version
	until time.Time
}

type contact struct {
	ack      rpc.MapAck
	at       time.Time // of the last answer; zero: none
	asked    time.Time // of the last attempt
	failures int       // attempts since the last answer
	slow     int       // slow answers since the last quick one
	err      string
}

// A node that answers, but slowly, must not delay others time after time.
const (
	slowAnswer    = time.Second
	givenUpAsSlow = 3
)

// givenUp reports whether nobody should wait for the node any more.
func (c contact) givenUp() bool { return c.failures >= givenUpAfter || c.slow >= givenUpAsSlow }

// enforces reports whether all of the node follows the map that it holds. One
// that could not write its authorized_keys refuses calls, and not yet logins.
func (c contact) enforces() bool { return enforces(c.ack) }

func enforces(ack rpc.MapAck) bool {
	return !slices.ContainsFunc(ack.Problems, func(p string) bool { return strings.HasPrefix(p, "apply") })
}

func newReach() *reach { return &reach{nodes: map[cluster.NodeID]contact{}} }

// answered notes an acknowledgement and how long it took. A node's times are
// its own claims, and believed only as far as any map could give them.
func (r *reach) answered(id cluster.NodeID, ack rpc.MapAck, now time.Time, took time.Duration) {
	ack.LeaseUntil = earlier(ack.LeaseUntil, now.Add(candmap.MaxLease))
	ack.SSHUntil = earlier(ack.SSHUntil, now.Add(candmap.MaxLease+candmap.MaxSSHLease))
	r.mu.Lock()
	defer r.mu.Unlock()
	c := contact{ack: ack, at: now, asked: now}
	if took > slowAnswer {
		c.slow = r.nodes[id].slow + 1
	}
	r.nodes[id] = c
}

func earlier(a, b time.Time) time.Time {
	if a.After(b) {
		return b
	}
	return a
}

func (r *reach) failed(id cluster.NodeID, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.nodes[id]
	c.failures++
	c.asked = now
	c.err = fmt.Sprintf("%.300s", strings.ReplaceAll(err.Error(), "\n", "; ")) // it may be the node's own words
	r.nodes[id] = c
}

// back notes that a node answers again, so that others wait for it.
func (r *reach) back(id cluster.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.nodes[id]
	c.failures, c.slow, c.err = 0, 0, ""
	r.nodes[id] = c
}

// strange notes that a node answers and does not know the voters: it needs the
// map at once, however long it was silent.
func (r *reach) strange(id cluster.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.nodes[id]
	c.failures, c.slow, c.err, c.asked, c.ack.Version = 0, 0, "", time.Time{}, cluster.Version{}
	r.nodes[id] = c
}

// asking notes that an attempt begins.
func (r *reach) asking(id cluster.NodeID, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.nodes[id]
	c.asked = now
	r.nodes[id] = c
}

// rest is how long the next attempt waits; an attempt takes no longer.
func (c contact) rest() time.Duration {
	switch {
	case c.givenUp():
		return pushTimeout
	case c.failures > 0:
		return reconcilePause
	default:
		return 0
	}
}

func (r *reach) of(id cluster.NodeID) contact {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[id]
}

// tell notes that a map is about to be known to all, or a beacon for it, and
// that its lease runs until then.
func (r *reach) tell(v cluster.Version, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.Newer(r.told) {
		r.told = v
	}
	if until.After(r.until) {
		r.until = until
	}
}

// ends returns when a node's trust in what it was told ends at the latest.
func (r *reach) ends(id cluster.NodeID, lease, sshLease time.Duration, now time.Time) (rpcUntil, sshUntil time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.nodes[id]
	if c.at.IsZero() {
		return now.Add(lease), now.Add(lease).Add(sshLease)
	}
	rpcUntil = c.at // a lease that had ended then, or never began
	for _, t := range []time.Time{c.ack.LeaseUntil, r.until} {
		if t.After(rpcUntil) {
			rpcUntil = t
		}
	}
	if c.ack.SSHCommand {
		return rpcUntil, rpcUntil // its sshd asks a noded that then refuses
	}
	sshUntil = c.ack.SSHUntil
	// A fresh node sets the expiry anew at half-life, and when keys change.
	if !sshUntil.IsZero() && (rpcUntil.After(sshUntil.Add(-sshLease/2)) || r.told.Newer(c.ack.Version)) {
		sshUntil = rpcUntil.Add(sshLease)
	}
	return rpcUntil, sshUntil
}

// bounds tells until when at most a node that cannot be reached goes on
// trusting an older map, and its sshd an older key.
func (r *reach) bounds(n *state.Node, p state.Params, now time.Time) state.Unreachable {
	rpcUntil, sshUntil := r.ends(n.UUID, time.Duration(p.LeaseSeconds)*time.Second, time.Duration(p.SSHLeaseSeconds)*time.Second, now)
	u := state.Unreachable{Node: string(n.Name), RPCUntil: stamp(rpcUntil), SSHUntil: stamp(sshUntil)}
	if p.Policy == cluster.PolicyBestEffort {
		u.RPCUntil = nil // it serves on without news
	}
	if r.of(n.UUID).ack.SSHCommand {
		u.SSHUntil = u.RPCUntil
		if p.SSH().Authorize != cluster.AuthorizeCommand { // it may have heard so
			u.SSHUntil = stamp(rpcUntil.Add(time.Duration(p.SSHLeaseSeconds) * time.Second))
		}
	}
	if !p.SSHSetup || sshUntil.IsZero() {
		u.SSHUntil = nil // Rolekey wrote no key there, or none with an expiry
	}
	return u
}

func stamp(t time.Time) *time.Time {
	t = candmap.Stamp(t)
	return &t
}
