package masterd

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// A masterd that is told which addresses to listen on does not listen on the
// cluster address by that. While this node is master it does, whether or not
// noded has taken the address already: who asks there asks the master.

// followAddress serves RAPI at the cluster address for as long as this node is
// master by the state, and ends what was served there when it is not.
func (m *member) followAddress(ctx context.Context, serve func(context.Context, netip.AddrPort)) error {
	var at netip.AddrPort
	end := func() {}
	defer func() { end() }()
	for {
		changed := m.node.Watch() // before State, so that no change is missed
		if now := m.sharedAddress(); now != at {
			end()
			at, end = now, func() {}
			if at.IsValid() {
				end = begin(ctx, func(ctx context.Context) { serve(ctx, at) })
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// begin runs do beside the caller, who ends it and waits for it by end.
func begin(ctx context.Context, do func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(ctx)
	}()
	return func() { cancel(); <-done }
}

// sharedAddress is where RAPI has to be beside masterd's own addresses; invalid:
// nowhere.
func (m *member) sharedAddress() netip.AddrPort {
	s, own := m.node.State(), m.d.cfg.Addresses
	a := s.Params.MasterAddress
	if len(own) == 0 || a == nil || s.Master != m.self.node || slices.Contains(own, a.Address.Addr()) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Address.Addr(), m.self.ports.RAPI)
}

// listenShared opens a listener on an address that this machine may not have yet.
func listenShared(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// Of IPv6 sockets it is the same flag.
		if e := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_IP, syscall.IP_FREEBIND, 1) }); e != nil {
			return e
		}
		return err
	}}
	return lc.Listen(ctx, "tcp", addr.String())
}
