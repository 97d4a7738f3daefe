package monitor

import (
	"net"
	"sync"
)

// bounded hangs up on connections over a number.
type bounded struct {
	net.Listener
	room chan struct{}
}

func newBounded(l net.Listener, n int) *bounded { return &bounded{l, make(chan struct{}, n)} }

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.room <- struct{}{}:
			return &boundedConn{Conn: c, room: b.room}, nil
		default:
			_ = c.Close()
		}
	}
}

type boundedConn struct {
	net.Conn
	once sync.Once
	room chan struct{}
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.once.Do(func() { <-c.room })
	return c.Conn.Close()
}
