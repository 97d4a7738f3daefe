package gossip

import (
	"context"
	"net"
	"net/netip"
)

// receiveBuffer absorbs bursts, such as the joining of many nodes at once.
const receiveBuffer = 1 << 20

// system is the network of this machine. It dials from the address that it
// listens on, so that peers see one address of this node.
type system struct{ from netip.Addr }

// Listen implements Network.
func (system) Listen(network string, addr netip.AddrPort) (net.Listener, error) {
	return net.Listen(network, addr.String())
}

// ListenPacket implements Network.
func (system) ListenPacket(addr netip.AddrPort) (net.PacketConn, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(receiveBuffer) // the system's limit may be lower
	return conn, nil
}

// Dial implements Network.
func (s system) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if s.from.IsValid() && !s.from.IsUnspecified() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.from, 0))
	}
	return d.DialContext(ctx, "tcp", addr.String())
}
