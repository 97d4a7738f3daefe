// Package memnet is a network in memory for tests: stream and packet
// connections between hosts, with latency, partitions and crashes.
//
// It is made for testing/synctest: everything that waits, waits on channels
// and timers, so a bubble's clock advances while connections are idle, and no
// lock is held while waiting. Make the Network inside the bubble that uses it.
// It works outside bubbles as well, in real time.
//
// Connections behave as TCP does where tests of daemons can see it: writes are
// buffered and succeed before the peer reads (net.Pipe does not, and deadlocks
// protocols in which both sides write first); data stays in order; a blocked
// link holds data and delivers it after it heals; Close ends the stream after
// what was written, SetLinger(0) and Close resets it; deadlines work and can
// be moved; errors are *net.OpError around the system's. A buffer that stays
// full blocks its writer until the reader reads, the deadline passes, or
// either end closes.
//
// Packets are dropped where the link is blocked, nobody listens, or the
// receiver does not keep up; a sender never waits.
//
// All methods may be called concurrently.
package memnet

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Network is a set of hosts and the links between all of them.
type Network struct {
	links atomic.Pointer[links]

	mu    sync.Mutex
	hosts map[netip.Addr]*Host
}

// New returns a network without latency or partitions.
func New() *Network {
	n := &Network{hosts: map[netip.Addr]*Host{}}
	n.links.Store(&links{changed: make(chan struct{})})
	return n
}

// Host returns the host with this address, and makes it if need be. A machine
// with several addresses is several hosts.
func (n *Network) Host(addr netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[addr]
	if h == nil {
		h = &Host{net: n, addr: addr, streams: map[*Conn]struct{}{}, listeners: map[uint16]*listener{}, packets: map[uint16]*packetConn{}}
		n.hosts[addr] = h
	}
	return h
}

// lookup returns an existing host or nil.
func (n *Network) lookup(addr netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[addr]
}

// links is an immutable picture of which links work. Changed is closed when a
// newer picture replaces it.
type links struct {
	latency time.Duration
	blocked map[[2]netip.Addr]bool
	group   map[netip.Addr]int // nil without a partition
	changed chan struct{}
}

// blocks reports whether nothing gets from one host to the other.
func (l *links) blocks(from, to netip.Addr) bool {
	if from == to {
		return false
	}
	return l.blocked[[2]netip.Addr{from, to}] || l.group[from] != l.group[to]
}

// change replaces the picture of the links and wakes whoever waits on the old.
func (n *Network) change(edit func(*links)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.links.Load()
	next := &links{latency: old.latency, group: old.group, blocked: map[[2]netip.Addr]bool{}, changed: make(chan struct{})}
	for pair := range old.blocked {
		next.blocked[pair] = true
	}
	edit(next)
	n.links.Store(next)
	close(old.changed)
}

// SetLatency sets how long everything sent from now on takes, one way. Within
// one host it takes no time.
func (n *Network) SetLatency(d time.Duration) { n.change(func(l *links) { l.latency = d }) }

// Partition splits the network: hosts of different groups do not reach each
// other. The hosts that no group names form one more group. It replaces an
// earlier partition and leaves Block alone.
func (n *Network) Partition(groups ...[]netip.Addr) {
	n.change(func(l *links) {
		l.group = map[netip.Addr]int{}
		for i, g := range groups {
			for _, addr := range g {
				l.group[addr] = i + 1
			}
		}
	})
}

// Block stops everything on its way from one host to another, not back.
func (n *Network) Block(from, to netip.Addr) {
	n.change(func(l *links) { l.blocked[[2]netip.Addr{from, to}] = true })
}

// Unblock undoes Block.
func (n *Network) Unblock(from, to netip.Addr) {
	n.change(func(l *links) { delete(l.blocked, [2]netip.Addr{from, to}) })
}

// Heal undoes every Partition and Block.
func (n *Network) Heal() {
	n.change(func(l *links) { l.group, l.blocked = nil, map[[2]netip.Addr]bool{} })
}

// Reset breaks every stream between two hosts at once, even over a blocked
// link, as a firewall that rejects does.
func (n *Network) Reset(a, b netip.Addr) {
	for _, pair := range [][2]netip.Addr{{a, b}, {b, a}} {
		h := n.lookup(pair[0])
		if h == nil {
			continue
		}
		for _, c := range h.conns() {
			if c.remote.Addr() == pair[1] {
				c.in.abort(syscall.ECONNRESET)
				c.out.abort(syscall.ECONNRESET)
			}
		}
	}
}

// Close stops every host and ends every stream at both ends now, whatever is
// still on its way. Call it last in a bubble: when the bubble's main goroutine
// returns its clock stops, and a reader of delayed data would wait for ever.
func (n *Network) Close() {
	n.mu.Lock()
	hosts := make([]*Host, 0, len(n.hosts))
	for _, h := range n.hosts {
		hosts = append(hosts, h)
	}
	n.mu.Unlock()
	for _, h := range hosts {
		for _, c := range h.conns() {
			c.in.abort(net.ErrClosed)
			c.out.abort(net.ErrClosed)
		}
		h.Stop()
	}
}

// oneWay returns the latency from one host to another.
func (l *links) oneWay(from, to netip.Addr) time.Duration {
	if from == to {
		return 0
	}
	return l.latency
}

func tcpAddr(ap netip.AddrPort) net.Addr { return net.TCPAddrFromAddrPort(ap) }

func udpAddr(ap netip.AddrPort) net.Addr { return net.UDPAddrFromAddrPort(ap) }
