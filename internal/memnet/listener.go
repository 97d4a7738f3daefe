package memnet

import (
	"net"
	"net/netip"
	"sync"
)

// listener is a net.Listener whose backlog is a channel.
type listener struct {
	host    *Host
	addr    netip.AddrPort
	backlog chan *Conn
	once    sync.Once
	done    chan struct{}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, l.closed("accept")
	default:
	}
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.done:
		return nil, l.closed("accept")
	}
}

// Close implements net.Listener. Streams that nobody accepted are reset.
func (l *listener) Close() error {
	err := l.closed("close")
	l.once.Do(func() {
		err = nil
		l.host.mu.Lock()
		delete(l.host.listeners, l.addr.Port())
		l.host.mu.Unlock()
		close(l.done)
		l.drain() // nothing is added any more
	})
	return err
}

func (l *listener) drain() {
	for {
		select {
		case c := <-l.backlog:
			c.kill()
		default:
			return
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return tcpAddr(l.addr) }

func (l *listener) closed(op string) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}
