package gossip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// stream is a connection that counts what it reads and that the transport can
// close.
type stream struct {
	net.Conn
	t    *transport
	peer netip.Addr // who opened it; zero if we did
	left int        // bytes that may still be read; memberlist has one reader
	gone sync.Once
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	if s.left <= 0 {
		return 0, fmt.Errorf("read from %s: more than %d bytes", s.RemoteAddr(), maxStream)
	}
	if len(p) > s.left {
		p = p[:s.left]
	}
	n, err := s.Conn.Read(p)
	s.left -= n
	return n, err
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.gone.Do(func() { s.t.forget(s) })
	return s.Conn.Close()
}

// track takes a connection in, or closes it if there are too many or the
// transport is shut down.
func (t *transport) track(conn net.Conn, peer netip.Addr) (*stream, error) {
	s := &stream{Conn: conn, t: t, peer: peer, left: maxStream}
	if err := t.take(s); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	// Whatever memberlist forgets to bound: it sets shorter ones itself.
	_ = conn.SetDeadline(time.Now().Add(2 * streamTimeout))
	return s, nil
}

func (t *transport) take(s *stream) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return net.ErrClosed
	}
	if s.peer.IsValid() {
		if t.sum >= maxStreams || t.from[s.peer] >= maxPerPeer {
			return errors.New("too many streams")
		}
		t.sum++
		t.from[s.peer]++
	}
	t.open[s] = struct{}{}
	return nil
}

func (t *transport) forget(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, s)
	if !s.peer.IsValid() {
		return
	}
	t.sum--
	if t.from[s.peer]--; t.from[s.peer] == 0 {
		delete(t.from, s.peer)
	}
}

func peerOf(conn net.Conn) netip.Addr {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.IPv6Unspecified() // still bounded, together with its like
	}
	return at.Addr().Unmap()
}
