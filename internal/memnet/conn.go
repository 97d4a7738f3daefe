package memnet

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Conn is one end of a stream. Besides net.Conn it has those methods of
// *net.TCPConn that servers use.
type Conn struct {
	host          *Host
	local, remote netip.AddrPort
	in, out       *half

	mu     sync.Mutex
	linger int
	closed bool
}

// newPair connects two hosts.
func newPair(client, server *Host, from, to netip.AddrPort) (*Conn, *Conn) {
	there := newHalf(client.net, from.Addr(), to.Addr())
	back := newHalf(client.net, to.Addr(), from.Addr())
	return &Conn{host: client, local: from, remote: to, in: back, out: there, linger: -1},
		&Conn{host: server, local: to, remote: from, in: there, out: back, linger: -1}
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	return n, c.wrap("read", err)
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	return n, c.wrap("write", err)
}

// Close implements net.Conn. The peer reads what was written and then the end
// of the stream, or ECONNRESET if SetLinger(0) came before.
func (c *Conn) Close() error {
	c.mu.Lock()
	closed, linger := c.closed, c.linger
	c.closed = true
	c.mu.Unlock()
	if closed {
		return c.wrap("close", net.ErrClosed)
	}
	if linger == 0 {
		c.out.reset()
		c.in.leave(syscall.ECONNRESET)
	} else {
		c.out.finish(net.ErrClosed)
		c.in.leave(syscall.EPIPE)
	}
	c.host.forget(c)
	return nil
}

// kill closes the connection as the kernel does for a process that died.
func (c *Conn) kill() {
	_ = c.SetLinger(0)
	_ = c.Close() // fails only if it is closed already
}

// CloseWrite ends the stream to the peer; reading goes on.
func (c *Conn) CloseWrite() error {
	if c.isClosed() {
		return c.wrap("close", net.ErrClosed)
	}
	c.out.finish(syscall.EPIPE)
	return nil
}

// SetLinger says what Close does: 0 resets the stream, any other value ends it
// in order.
func (c *Conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.wrap("set", net.ErrClosed)
	}
	c.linger = sec
	return nil
}

// SetNoDelay does nothing: writes are never held back.
func (c *Conn) SetNoDelay(bool) error { return c.setError() }

// SetKeepAlive does nothing: idle connections live for ever.
func (c *Conn) SetKeepAlive(bool) error { return c.setError() }

// SetKeepAlivePeriod does nothing.
func (c *Conn) SetKeepAlivePeriod(time.Duration) error { return c.setError() }

func (c *Conn) setError() error {
	if c.isClosed() {
		return c.wrap("set", net.ErrClosed)
	}
	return nil
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// LocalAddr implements net.Conn; it is a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return tcpAddr(c.local) }

// RemoteAddr implements net.Conn; it is a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return tcpAddr(c.remote) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.set(func() { c.in.readEnd = t })
	return c.setError()
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.set(func() { c.out.writeEnd = t })
	return c.setError()
}

func (c *Conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
