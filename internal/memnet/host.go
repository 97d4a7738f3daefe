package memnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// synTimeout is how long a dial without a deadline tries, as on Linux.
const synTimeout = 127 * time.Second

// firstEphemeral is the lowest port that the network itself hands out.
const firstEphemeral = 49152

// Host is one machine with one address.
type Host struct {
	net  *Network
	addr netip.Addr

	mu        sync.Mutex
	down      bool
	nextPort  uint16
	streams   map[*Conn]struct{}
	listeners map[uint16]*listener
	packets   map[uint16]*packetConn
}

// Addr returns the host's address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Listen accepts streams. The address is the host's own or unspecified; port 0
// picks a free one.
func (h *Host) Listen(network string, addr netip.AddrPort) (net.Listener, error) {
	fail := func(err error) error {
		return &net.OpError{Op: "listen", Net: network, Addr: tcpAddr(addr), Err: err}
	}
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, fail(net.UnknownNetworkError(network))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	port, err := h.bind(addr, func(p uint16) bool { return h.listeners[p] != nil })
	if err != nil {
		return nil, fail(err)
	}
	l := &listener{host: h, addr: netip.AddrPortFrom(h.addr, port), backlog: make(chan *Conn, 1024), done: make(chan struct{})}
	h.listeners[port] = l
	return l, nil
}

// ListenPacket opens a packet connection, by the same rules as Listen.
func (h *Host) ListenPacket(addr netip.AddrPort) (net.PacketConn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	port, err := h.bind(addr, func(p uint16) bool { return h.packets[p] != nil })
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: udpAddr(addr), Err: err}
	}
	p := newPacketConn(h, netip.AddrPortFrom(h.addr, port))
	h.packets[port] = p
	return p, nil
}

// bind picks the port to listen on; the caller holds mu.
func (h *Host) bind(addr netip.AddrPort, used func(uint16) bool) (uint16, error) {
	switch {
	case h.down:
		return 0, syscall.ENETDOWN
	case addr.Addr().IsValid() && addr.Addr() != h.addr && !addr.Addr().IsUnspecified():
		return 0, syscall.EADDRNOTAVAIL
	case addr.Port() == 0:
		return h.ephemeral(used), nil
	case used(addr.Port()):
		return 0, syscall.EADDRINUSE
	}
	return addr.Port(), nil
}

// ephemeral returns a free port of the dynamic range; the caller holds mu. A
// test that has all 16384 of them listening would loop.
func (h *Host) ephemeral(used func(uint16) bool) uint16 {
	for {
		h.nextPort++
		if h.nextPort < firstEphemeral {
			h.nextPort = firstEphemeral
		}
		if !used(h.nextPort) {
			return h.nextPort
		}
	}
}

// DialContext has the form that net/http and others want; the network must be
// TCP and the address an IP and a port.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s %s: %w", network, address, err)
	}
	return h.Dial(ctx, addr)
}

// Dial connects to a listener. While the link is blocked it waits, until ctx
// ends.
func (h *Host) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	conn, err := h.dial(ctx, addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Source: nil, Addr: tcpAddr(addr), Err: err}
	}
	return conn, nil
}

func (h *Host) dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	if h.isDown() {
		return nil, syscall.ENETDOWN
	}
	limit, cancel := context.WithTimeoutCause(ctx, synTimeout, syscall.ETIMEDOUT)
	defer cancel()
	if err := h.handshake(limit, addr.Addr()); err != nil {
		if ctx.Err() == nil && errors.Is(context.Cause(limit), syscall.ETIMEDOUT) {
			return nil, syscall.ETIMEDOUT
		}
		return nil, err
	}
	target := h.net.lookup(addr.Addr())
	if target == nil {
		return nil, syscall.EHOSTUNREACH
	}
	return h.connect(target, addr)
}

// handshake waits until a packet has gone there and back.
func (h *Host) handshake(ctx context.Context, to netip.Addr) error {
	for {
		links := h.net.links.Load()
		var arrived <-chan time.Time
		if !links.blocks(h.addr, to) && !links.blocks(to, h.addr) {
			trip := links.oneWay(h.addr, to) + links.oneWay(to, h.addr)
			if trip == 0 {
				return ctx.Err()
			}
			timer := time.NewTimer(trip)
			defer timer.Stop()
			arrived = timer.C
		}
		select {
		case <-arrived:
			return nil
		case <-links.changed: // try again, as a retransmission does
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connect hands one end of a new stream to the listener.
func (h *Host) connect(target *Host, addr netip.AddrPort) (*Conn, error) {
	h.mu.Lock()
	local := netip.AddrPortFrom(h.addr, h.ephemeral(func(p uint16) bool { return h.listeners[p] != nil }))
	h.mu.Unlock()
	near, far := newPair(h, target, local, addr)
	if !h.remember(near) {
		return nil, syscall.ENETDOWN
	}
	if !target.accept(addr.Port(), far) {
		near.kill()
		return nil, syscall.ECONNREFUSED
	}
	return near, nil
}

// accept queues a stream for the listener on port, if there is one.
func (h *Host) accept(port uint16, c *Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.listeners[port]
	if l == nil || h.down {
		return false
	}
	select {
	case l.backlog <- c:
		h.streams[c] = struct{}{}
		return true
	default:
		return false
	}
}

func (h *Host) remember(c *Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.down {
		h.streams[c] = struct{}{}
	}
	return !h.down
}

func (h *Host) forget(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, c)
}

func (h *Host) conns() []*Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*Conn, 0, len(h.streams))
	for c := range h.streams {
		all = append(all, c)
	}
	return all
}

func (h *Host) isDown() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// Stop is what kill -9 of every process on the host does: listeners and packet
// connections close, streams are reset. Nothing can be opened before Start.
// For a machine that loses power, Partition it first: then nobody hears the
// resets until it heals.
func (h *Host) Stop() {
	h.mu.Lock()
	h.down = true
	var open []interface{ Close() error }
	for _, l := range h.listeners {
		open = append(open, l)
	}
	for _, p := range h.packets {
		open = append(open, p)
	}
	h.mu.Unlock()
	for _, o := range open {
		_ = o.Close() // fails only if it is closed already
	}
	for _, c := range h.conns() {
		c.kill()
	}
}

// Start lets a stopped host open connections again.
func (h *Host) Start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = false
}
