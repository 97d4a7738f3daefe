package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
)

// AdmissionConn is one connection to an address, for a caller that is not a
// member yet. Its TLS state gives the exporter (RFC 8446 §7.5) that binds a
// proof to it, and the certificate that the server showed.
type AdmissionConn struct {
	state tls.ConnectionState
	cc    *http.ClientConn
	addr  netip.AddrPort
}

// DialAdmission opens a connection to an address. Expect judges the server in
// the handshake; when it is nil, anybody may be there, and the caller must
// judge by State before it says or believes anything.
func (c *Client) DialAdmission(ctx context.Context, to netip.AddrPort, expect func(tls.ConnectionState) error) (*AdmissionConn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	a, err := c.dialAdmission(ctx, to, expect)
	if err != nil {
		return nil, unavailable(to.String(), fmt.Errorf("connect to %s: %w", to, err))
	}
	return a, nil
}

func (c *Client) dialAdmission(ctx context.Context, to netip.AddrPort, expect func(tls.ConnectionState) error) (*AdmissionConn, error) {
	own, err := c.certificate()
	if err != nil {
		return nil, err
	}
	raw, err := c.dialRaw(ctx, to)
	if err != nil {
		return nil, err
	}
	conn, err := c.handshake(ctx, raw, own, expect)
	if err != nil {
		return nil, err
	}
	cc, err := c.http2(ctx, conn, to.Addr().WithZone("").String())
	if err != nil {
		raw.abort()
		return nil, err
	}
	return &AdmissionConn{state: conn.ConnectionState(), cc: cc, addr: to}, nil
}

// State returns the state of the connection's TLS.
func (a *AdmissionConn) State() tls.ConnectionState { return a.state }

// Call makes a call on this connection, as Client.Call does.
func (a *AdmissionConn) Call(ctx context.Context, m Method, arg string, req, resp any) error {
	ctx, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	out, err := newOutgoing(ctx, &m, arg, req, resp)
	if err != nil {
		return fmt.Errorf("call %s: %w", m.Name, err)
	}
	return a.send(ctx, out)
}

func (a *AdmissionConn) send(ctx context.Context, out *outgoing) error {
	answered, err := out.exchange(ctx, a.cc, a.addr.String(), a.addr.String())
	if answered || err == nil {
		return err
	}
	return unavailable(a.addr.String(), err)
}

// Close closes the connection.
func (a *AdmissionConn) Close() error {
	if err := a.cc.Close(); err != nil {
		return fmt.Errorf("close connection to %s: %w", a.addr, err)
	}
	return nil
}
