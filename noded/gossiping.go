package noded

import (
	"net/netip"
	"path/filepath"
	"slices"

	"rolekey/candmap"
	"rolekey/candmap/gossip"
)

// openGossip prepares the safety net under the master's pushes. What arrives by
// it is a beacon that proves itself; a beacon of a newer map leads to a pull.
func (m *member) openGossip(dir string) error {
	ring, err := readRing(filepath.Join(dir, gossipFile))
	if err != nil {
		return err
	}
	m.ring.Store(&ring)
	advertise := m.id.Addresses[0]
	if n := m.self(); n != nil {
		advertise = n.Addresses[0]
	}
	bind := m.cfg.bindAddress()
	switch {
	case bind.IsValid():
	case advertise.Is4():
		bind = netip.IPv4Unspecified()
	default:
		bind = netip.IPv6Unspecified()
	}
	m.gossip, err = gossip.New(gossip.Config{
		Self: m.id.Node, BindAddr: bind, Port: m.id.Ports.Gossip, AdvertiseAddr: advertise,
		Key: ring[0], Holder: m.keeper, OnNews: func(candmap.Envelope) { m.changed() }, Log: m.log.Named("gossip"),
		Network: m.cfg.Gossip,
	})
	if err == nil && len(ring) > 1 {
		err = m.gossip.Rekey(ring[0], ring[1:]...)
	}
	return err
}

// lostNode reports whether a node of the old roster is not in the new one.
func lostNode(old, next *candmap.Roster) bool {
	if old == nil || next == nil || old == next {
		return false
	}
	return slices.ContainsFunc(old.Nodes(), func(n candmap.RosterNode) bool { return next.Node(n.UUID) == nil })
}
