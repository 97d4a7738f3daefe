package memnet

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	maxPacket  = 65507 // what fits into one UDP datagram over IPv4
	maxPackets = 4096  // per receiver; more are dropped
)

type packet struct {
	data  []byte
	from  netip.AddrPort
	ready time.Time
}

// packetConn is a net.PacketConn.
type packetConn struct {
	host *Host
	addr netip.AddrPort

	mu      sync.Mutex
	changed chan struct{}
	queue   []packet
	closed  bool
	readEnd time.Time
	sendEnd time.Time
}

func newPacketConn(h *Host, addr netip.AddrPort) *packetConn {
	return &packetConn{host: h, addr: addr, changed: make(chan struct{})}
}

func (p *packetConn) set(edit func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	edit()
	close(p.changed)
	p.changed = make(chan struct{})
}

// ReadFrom implements net.PacketConn. What does not fit into b is lost.
func (p *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		got, changed, next, err := p.poll()
		if err != nil {
			return 0, nil, p.wrap("read", err)
		}
		if got != nil {
			return copy(b, got.data), udpAddr(got.from), nil
		}
		waitUntil(changed, next)
	}
}

// poll returns a packet that has arrived, or what to wait for.
func (p *packetConn) poll() (*packet, <-chan struct{}, time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, nil, time.Time{}, net.ErrClosed
	case passed(p.readEnd):
		return nil, nil, time.Time{}, os.ErrDeadlineExceeded
	case len(p.queue) == 0:
		return nil, p.changed, p.readEnd, nil
	}
	first := p.queue[0]
	if !passed(first.ready) {
		return nil, p.changed, earliest([]time.Time{p.readEnd, first.ready}), nil
	}
	p.queue = p.queue[1:]
	return &first, nil, time.Time{}, nil
}

func waitUntil(changed <-chan struct{}, t time.Time) {
	var timeout <-chan time.Time
	if !t.IsZero() {
		timer := time.NewTimer(time.Until(t))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-changed:
	case <-timeout:
	}
}

// WriteTo implements net.PacketConn. It succeeds even if the packet is lost.
func (p *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	to, err := addrPort(addr)
	if err != nil {
		return 0, p.wrap("write", err)
	}
	if err := p.canSend(len(b)); err != nil {
		return 0, p.wrap("write", err)
	}
	links := p.host.net.links.Load()
	target := p.host.net.lookup(to.Addr())
	if target == nil || links.blocks(p.host.addr, to.Addr()) {
		return len(b), nil
	}
	target.mu.Lock()
	dst := target.packets[to.Port()]
	target.mu.Unlock()
	if dst != nil {
		ready := time.Now().Add(links.oneWay(p.host.addr, to.Addr()))
		dst.deliver(packet{data: append([]byte(nil), b...), from: p.addr, ready: ready})
	}
	return len(b), nil
}

func (p *packetConn) canSend(size int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return net.ErrClosed
	case passed(p.sendEnd):
		return os.ErrDeadlineExceeded
	case size > maxPacket:
		return syscall.EMSGSIZE
	}
	return nil
}

func (p *packetConn) deliver(pkt packet) {
	p.set(func() {
		if !p.closed && len(p.queue) < maxPackets {
			p.queue = append(p.queue, pkt)
		}
	})
}

func addrPort(a net.Addr) (netip.AddrPort, error) {
	if u, ok := a.(*net.UDPAddr); ok {
		ap := u.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
	}
	return netip.ParseAddrPort(a.String())
}

// Close implements net.PacketConn.
func (p *packetConn) Close() error {
	was := false
	p.set(func() { was, p.closed, p.queue = p.closed, true, nil })
	if was {
		return p.wrap("close", net.ErrClosed)
	}
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	delete(p.host.packets, p.addr.Port())
	return nil
}

// LocalAddr implements net.PacketConn; it is a *net.UDPAddr.
func (p *packetConn) LocalAddr() net.Addr { return udpAddr(p.addr) }

// SetDeadline implements net.PacketConn.
func (p *packetConn) SetDeadline(t time.Time) error {
	return errors.Join(p.SetReadDeadline(t), p.SetWriteDeadline(t))
}

// SetReadDeadline implements net.PacketConn.
func (p *packetConn) SetReadDeadline(t time.Time) error {
	p.set(func() { p.readEnd = t })
	return nil
}

// SetWriteDeadline implements net.PacketConn; sending never waits.
func (p *packetConn) SetWriteDeadline(t time.Time) error {
	p.set(func() { p.sendEnd = t })
	return nil
}

func (p *packetConn) wrap(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: p.LocalAddr(), Err: err}
}
