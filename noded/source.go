package noded

import (
	"net"
	"net/netip"
	"slices"

	"rolekey/candmap"
	"rolekey/cluster"
)

// sourcePicker knows the addresses from which this machine should open SSH
// connections. Other nodes let its key in from those that the roster lists; the
// kernel may prefer another one: a second address of the network, a temporary
// IPv6 address, the cluster address.
type sourcePicker struct {
	own   []netip.Addr                // at this machine, and in the roster
	route func(netip.Addr) netip.Addr // what the kernel would take; zero: unknown
}

// sources picks from the roster's addresses of this node those that it has:
// which noded.toml lists, or else those of its devices.
func (c *Config) sources(r *candmap.Roster, self cluster.NodeID) sourcePicker {
	p := sourcePicker{route: routeFrom}
	here := c.Addresses
	if len(here) == 0 {
		here = deviceAddresses()
	}
	if r == nil || r.Node(self) == nil {
		p.own = c.Addresses
		return p
	}
	for _, a := range r.Node(self).Addresses {
		if slices.Contains(here, a) {
			p.own = append(p.own, a)
		}
	}
	if len(p.own) == 0 {
		p.own = c.Addresses
	}
	return p
}

// to is the address to connect to target from: of several the kernel's choice,
// or else the one most like the target. It is zero if none is of target's family.
func (p sourcePicker) to(target netip.Addr) netip.Addr {
	var list []netip.Addr
	for _, a := range p.own {
		if a.Is4() == target.Is4() {
			list = append(list, a)
		}
	}
	switch len(list) {
	case 0:
		return netip.Addr{}
	case 1:
		return list[0]
	}
	if a := p.route(target); slices.Contains(list, a) {
		return a
	}
	return slices.MaxFunc(list, func(a, b netip.Addr) int { return likeness(a, target) - likeness(b, target) })
}

// likeness counts the leading bits that two addresses of one family share.
func likeness(a, b netip.Addr) int {
	n := 0
	for n < a.BitLen() {
		p, err := a.Prefix(n + 1)
		if err != nil || !p.Contains(b) {
			break
		}
		n++
	}
	return n
}

// deviceAddresses are those of this machine's devices.
func deviceAddresses() (list []netip.Addr) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil // then the kernel chooses
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, p.Addr())
		}
	}
	return list
}

// routeFrom asks the kernel, and sends nothing.
func routeFrom(target netip.Addr) netip.Addr {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, 9)))
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	from, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return from.AddrPort().Addr().Unmap()
}
