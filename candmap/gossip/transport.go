package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport carries memberlist's packets and streams, with bounds that its own
// lacks, all of which hold before anything is decrypted: the size of packets,
// the number of streams in all and per peer, and the bytes read from each. It
// resolves no names and, when shut down, ends dials that are under way.
type transport struct {
	g       *Gossip
	at      netip.AddrPort // where others find us
	streams net.Listener
	packets net.PacketConn

	packetCh chan *memberlist.Packet
	streamCh chan net.Conn
	lost     chan struct{} // closed if the packet socket fails for good

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex
	open map[*stream]struct{}
	from map[netip.Addr]int // streams that peers opened
	sum  int
}

var _ memberlist.Transport = (*transport)(nil)

// listen opens the sockets. Others are told to find us at at.
func listen(g *Gossip, at netip.AddrPort) (*transport, error) {
	bind := netip.AddrPortFrom(g.cfg.BindAddr, g.cfg.Port)
	streams, err := g.cfg.Network.Listen("tcp", bind)
	if err != nil {
		return nil, err
	}
	packets, err := g.cfg.Network.ListenPacket(bind)
	if err != nil {
		return nil, errors.Join(err, streams.Close())
	}
	t := &transport{
		g: g, at: at, streams: streams, packets: packets,
		packetCh: make(chan *memberlist.Packet), streamCh: make(chan net.Conn), lost: make(chan struct{}),
		open: map[*stream]struct{}{}, from: map[netip.Addr]int{},
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.wg.Go(t.acceptStreams)
	t.wg.Go(t.readPackets)
	return t, nil
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.at.Addr().AsSlice(), int(t.at.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send packet: %w", err)
	}
	_, err = t.packets.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streamCh }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial peer: %w", err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	conn, err := t.g.cfg.Network.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	return t.track(conn, netip.Addr{})
}

// Shutdown implements memberlist.Transport. Nothing runs when it returns.
func (t *transport) Shutdown() error {
	t.stop()
	_ = t.streams.Close() // on errors there is nothing left to close
	_ = t.packets.Close()
	t.mu.Lock()
	var open []*stream
	for s := range t.open {
		open = append(open, s)
	}
	t.mu.Unlock()
	for _, s := range open {
		_ = s.Close()
	}
	t.wg.Wait()
	return nil
}

// retryAfter bounds how fast a socket that fails is tried again.
const retryAfter = 100 * time.Millisecond

func (t *transport) acceptStreams() {
	for t.ctx.Err() == nil {
		conn, err := t.streams.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !sleep(t.ctx, retryAfter) {
				return
			}
			continue
		}
		s, err := t.track(conn, peerOf(conn))
		if err != nil {
			t.g.count.streams.Add(1)
			continue
		}
		select {
		case t.streamCh <- s:
		case <-t.ctx.Done():
			_ = s.Close()
		}
	}
}

func (t *transport) readPackets() {
	for t.ctx.Err() == nil {
		buf := make([]byte, maxPacket+1)
		n, from, err := t.packets.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			if t.ctx.Err() == nil {
				close(t.lost)
			}
			return
		}
		if err != nil {
			if !sleep(t.ctx, retryAfter) {
				return
			}
			continue
		}
		if n == 0 || n > maxPacket {
			t.g.count.packets.Add(1)
			continue
		}
		select {
		case t.packetCh <- &memberlist.Packet{Buf: buf[:n], From: from, Timestamp: time.Now()}:
		case <-t.ctx.Done():
		}
	}
}
