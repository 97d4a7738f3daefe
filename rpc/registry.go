package rpc

import (
	"container/list"
	"net/netip"
	"sync"

	"rolekey/cluster"
)

// registry holds every open connection, from before its handshake until its
// socket is closed.
type registry struct {
	limits *Limits

	mu        sync.Mutex
	ended     bool // takes in no more
	conns     map[*conn]struct{}
	strangers list.List // of *conn, in the order in which they came
	networks  map[netip.Addr]int
	peers     map[cluster.Digest]int
	empty     sync.Cond // conns is empty
}

func newRegistry(l *Limits) *registry {
	r := &registry{
		limits: l, conns: map[*conn]struct{}{},
		networks: map[netip.Addr]int{}, peers: map[cluster.Digest]int{},
	}
	r.empty.L = &r.mu
	return r
}

// take takes in an accepted connection. Where strangers have no room left, the
// one without calls that came first makes room: whoever is to be served proves
// who it is, or calls, in less time than many others need to come.
func (r *registry) take(c *conn) bool {
	for range 3 { // another listener may be quicker, or a call begin
		victim, ok := r.add(c)
		if ok || victim == nil {
			return ok
		}
		c.srv.auditor.add(cluster.CodeBusy)
		victim.abort() // it has no calls, so this removes it
	}
	return false
}

// add takes in a connection as a stranger if there is room, and returns who
// could make some otherwise.
func (r *registry) add(c *conn) (victim *conn, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.limits
	switch {
	case r.ended:
		return nil, false
	case r.networks[c.net] >= l.StrangersPerIP:
		return r.oldestIdle(c.net), false
	case r.strangers.Len() >= l.Strangers || len(r.conns) >= l.Conns:
		return r.oldestIdle(netip.Addr{}), false
	}
	r.conns[c] = struct{}{}
	r.networks[c.net]++
	c.stranger = r.strangers.PushBack(c)
	return nil, true
}

// oldestIdle returns the first stranger, of one network or of all, that has no
// calls; nil: none.
func (r *registry) oldestIdle(of netip.Addr) *conn {
	for e := r.strangers.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); !c.busy.Load() && (c.net == of || !of.IsValid()) {
			return c
		}
	}
	return nil
}

// know counts the connection under its certificate from now on.
func (r *registry) know(c *conn, d cluster.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peers[d] >= r.limits.ConnsPerPeer || c.stranger == nil {
		return false
	}
	r.forgetStranger(c)
	c.counted = d
	r.peers[d]++
	return true
}

// remove forgets a closed connection.
func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.conns[c]; !ok {
		return
	}
	delete(r.conns, c)
	if c.stranger != nil {
		r.forgetStranger(c)
	} else if r.peers[c.counted]--; r.peers[c.counted] == 0 {
		delete(r.peers, c.counted)
	}
	if len(r.conns) == 0 {
		r.empty.Broadcast()
	}
}

// end closes every connection, takes in no more, and returns when the last
// call has ended.
func (r *registry) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	for _, c := range r.all() {
		c.abort()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.conns) > 0 {
		r.empty.Wait()
	}
}

func (r *registry) forgetStranger(c *conn) {
	r.strangers.Remove(c.stranger)
	c.stranger = nil
	if r.networks[c.net]--; r.networks[c.net] == 0 {
		delete(r.networks, c.net)
	}
}

// all returns the connections that are open now.
func (r *registry) all() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*conn, 0, len(r.conns))
	for c := range r.conns {
		list = append(list, c)
	}
	return list
}
