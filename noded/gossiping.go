package noded

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"rolekey/candmap"
	"rolekey/candmap/gossip"
	"rolekey/cluster"
)

// openGossip prepares the safety net under the master's pushes. What arrives by
// it is a beacon that proves itself; a beacon of a newer map leads to a pull.
func (m *member) openGossip(dir string) error {
	key, err := readSmall(filepath.Join(dir, gossipFile))
	if err == nil && len(key) != gossip.KeySize {
		err = errors.New("it is damaged or missing")
	}
	if err != nil {
		return fmt.Errorf("read gossip key: %w", err)
	}
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
		Key: cluster.NewSecret(key), Holder: m.keeper, OnNews: func(candmap.Envelope) { m.changed() }, Log: m.log.Named("gossip"),
	})
	return err
}
