package rpc

import (
	"net/netip"
	"sync"
	"time"

	"rolekey/cluster"
)

// Limits bound what peers, and above all strangers, can make a server hold. A
// zero field means its default.
type Limits struct {
	Conns          int           // open connections
	ConnsPerPeer   int           // of them with one certificate
	Strangers      int           // of them without a proven certificate, handshakes included
	StrangersPerIP int           // of those from one address
	Streams        int           // calls in flight on one connection
	HeaderBytes    int           // of one call
	Handshake      time.Duration // TLS handshake, and the headers of an HTTP/1.1 request
	Body           time.Duration // reading a body; a candidate has its method's time if that is longer
	Idle           time.Duration // a connection without calls
	Drain          time.Duration // how long Revoke waits for calls in flight
	LargeBody      int64         // largest body of a caller below the candidate tier
	LargeCalls     int           // calls that hold memory: of all strangers, and as many of all members
	LargeCallsEach int           // same, of one stranger's network or of one member; of a candidate, eight times as many
}

// DefaultLimits are what zero fields mean. A master has one connection to each
// daemon, and raft one more.
var DefaultLimits = Limits{
	Conns: 2048, ConnsPerPeer: 64, Strangers: 1024, StrangersPerIP: 64, Streams: 128,
	HeaderBytes: 16 << 10, Handshake: 5 * time.Second, Body: 30 * time.Second, Idle: 3 * time.Minute, Drain: 5 * time.Second,
	LargeBody: 4 << 20, LargeCalls: 32, LargeCallsEach: 8,
}

func (l Limits) withDefaults() Limits {
	d := &DefaultLimits
	orInt(&l.Conns, d.Conns)
	orInt(&l.ConnsPerPeer, d.ConnsPerPeer)
	orInt(&l.Strangers, d.Strangers)
	orInt(&l.StrangersPerIP, d.StrangersPerIP)
	orInt(&l.Streams, d.Streams)
	orInt(&l.HeaderBytes, d.HeaderBytes)
	orInt(&l.Handshake, d.Handshake)
	orInt(&l.Body, d.Body)
	orInt(&l.Idle, d.Idle)
	orInt(&l.Drain, d.Drain)
	orInt(&l.LargeBody, d.LargeBody)
	orInt(&l.LargeCalls, d.LargeCalls)
	orInt(&l.LargeCallsEach, d.LargeCallsEach)
	return l
}

func orInt[T int | int64 | time.Duration](field *T, def T) {
	if *field == 0 {
		*field = def
	}
}

// registry holds every open connection, from before its handshake until its
// socket is closed.
type registry struct {
	limits *Limits

	mu        sync.Mutex
	ended     bool // takes in no more
	conns     map[*conn]struct{}
	strangers map[netip.Addr]int
	nStranger int
	peers     map[cluster.Digest]int
	empty     sync.Cond // conns is empty
}

func newRegistry(l *Limits) *registry {
	r := &registry{
		limits: l, conns: map[*conn]struct{}{},
		strangers: map[netip.Addr]int{}, peers: map[cluster.Digest]int{},
	}
	r.empty.L = &r.mu
	return r
}

// add takes in an accepted connection as a stranger, if there is room.
func (r *registry) add(c *conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.limits
	if r.ended || len(r.conns) >= l.Conns || r.nStranger >= l.Strangers || r.strangers[c.ip] >= l.StrangersPerIP {
		return false
	}
	r.conns[c] = struct{}{}
	r.strangers[c.ip]++
	r.nStranger++
	c.stranger = true
	return true
}

// know counts the connection under its certificate from now on.
func (r *registry) know(c *conn, d cluster.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peers[d] >= r.limits.ConnsPerPeer || !c.stranger {
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
	if c.stranger {
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
	c.stranger = false
	r.nStranger--
	if r.strangers[c.ip]--; r.strangers[c.ip] == 0 {
		delete(r.strangers, c.ip)
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
