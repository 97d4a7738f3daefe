package masterip

import (
	"net/netip"
	"time"

	"rolekey/cluster"
)

// Want is what the documents in force ask of this node at one moment.
type Want struct {
	Address *cluster.MasterAddress // nil: the cluster has none
	Master  bool                   // the map names this node
	Left    time.Duration          // of the lease; 0: the map is stale
	Heard   bool                   // the map has been fresh in this run of the program
}

// Act is what to do about the address.
type Act int

// The acts. Keep is for a program that has just started, and does not know yet:
// whatever its last run put there ends when that run's lease does.
const (
	Drop Act = iota
	Keep
	Hold
)

// Decide returns what to do; with Hold, for how long the address may stand
// without this node's word.
func Decide(w Want) (Act, time.Duration) {
	switch {
	case w.Address == nil || !w.Master:
		return Drop, 0
	case w.Left > 0:
		return Hold, lifetime(w.Left)
	case !w.Heard:
		return Keep, 0
	}
	return Drop, 0
}

// The kernel counts whole seconds and may be late by a bit more than one.
const (
	second    = time.Second
	slack     = 2 * second
	slackFrom = 10 * second // shorter leases, which are for tests, cannot spare it
)

func lifetime(left time.Duration) time.Duration {
	if left >= slackFrom {
		left -= slack
	}
	return max(left.Truncate(second), second)
}

// Place is an address on a device of this machine.
type Place struct {
	Netdev  string
	Prefix  netip.Prefix // not masked
	Forever bool         // it has no lifetime, so it is none of ours
}

// find returns where the address stands: on our device with a lifetime, and
// anywhere else.
func find(places []Place, m cluster.MasterAddress) (here *Place, elsewhere *Place) {
	for i := range places {
		p := &places[i]
		switch {
		case p.Prefix.Addr() != m.Address.Addr():
		case p.Netdev == m.Netdev && !p.Forever:
			here = p
		default:
			elsewhere = p
		}
	}
	return here, elsewhere
}

// prefixFor returns with which length the address goes onto its device. Where
// the device has an address of that network, a length of one host is enough,
// and right: with the network's, the kernel could make that address depend on
// ours, and remove both.
func prefixFor(places []Place, m cluster.MasterAddress) netip.Prefix {
	network := m.Address.Masked()
	for _, p := range places {
		if p.Netdev == m.Netdev && p.Prefix.Addr() != m.Address.Addr() && network.Contains(p.Prefix.Addr()) {
			return netip.PrefixFrom(m.Address.Addr(), m.Address.Addr().BitLen())
		}
	}
	return m.Address
}
