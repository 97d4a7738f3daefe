package verify

import (
	"context"
	"sync"

	"rolekey/cluster"
	"rolekey/rpc"
)

// attempts are what a run tries: logins that must succeed, and what must be
// refused. They take the longest, and mostly for sshd, so they are under way
// while the rest is checked; the report tells of one after the other.
type attempts struct {
	logins    []*login
	strangers []*strange
	own       offers
	done      chan struct{} // closed when those of nodes have ended
}

// begin has nodes make their attempts. End must follow; until it returns these
// attempts belong to it, and what it reads of c does not change.
func (c *check) begin(ctx context.Context) *attempts {
	a := &attempts{strangers: c.strangers(), done: make(chan struct{})}
	if c.s.Params.SSHSetup {
		a.logins = c.plan()
	}
	list := append(c.loginAttempts(ctx, a.logins), c.strangeAttempts(rpc.WithRequestID(ctx, c.id), a.strangers)...)
	go func() { // end waits for it
		defer close(a.done)
		schedule(list)
	}()
	return a
}

// end makes the attempts of this node itself, and waits for those of others.
func (c *check) end(ctx context.Context, a *attempts) {
	a.own = c.fromHere(rpc.WithRequestID(ctx, c.id))
	<-a.done
}

// muted are nodes whose sshd does not answer, known while attempts are under way.
type muted struct{ nodes sync.Map }

func (m *muted) add(id cluster.NodeID) { m.nodes.Store(id, true) }

func (m *muted) has(id cluster.NodeID) bool {
	_, ok := m.nodes.Load(id)
	return ok
}
