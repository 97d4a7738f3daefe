package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
)

// KeySize is the size of a gossip key: AES-256.
const KeySize = 32

// maxKeys is how many keys may be accepted at once: a rotation needs two, and
// a third if the next one begins before every node has finished the last.
const maxKeys = 3

// Holder holds what is believed. *candmap.Keeper is one.
type Holder interface {
	View() *candmap.View
	Beacon() (candmap.Envelope, bool)
	DeliverBeacon(env candmap.Envelope) (news bool, err error)
}

// Network opens sockets. *memnet.Host is one, for tests.
type Network interface {
	Listen(network string, addr netip.AddrPort) (net.Listener, error)
	ListenPacket(addr netip.AddrPort) (net.PacketConn, error)
	Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// Config says who this node is and what it works with.
type Config struct {
	Self     cluster.NodeID // required
	BindAddr netip.Addr     // required; may be unspecified
	Port     uint16         // required; the roster's gossip port, both TCP and UDP

	// AdvertiseAddr is where others reach this node. It must be one of its
	// addresses in the roster, or they do not let it in. The default is
	// BindAddr; required if that is unspecified.
	AdvertiseAddr netip.Addr

	Key    cluster.Secret // required, KeySize bytes; Rekey changes it
	Holder Holder         // required

	// OnNews is told of each beacon that was verified and is newer than any
	// before, one at a time. If its version is newer than the map held, that
	// map is worth a pull. While it runs nothing else is judged, so it should
	// hand over and return. Nil: nobody is told.
	OnNews func(env candmap.Envelope)

	Log     *zap.Logger // nil: none
	Network Network     // nil: the system's sockets
}

func (c *Config) check() error {
	switch {
	case c.Self.IsZero():
		return errors.New("self is required")
	case c.Holder == nil:
		return errors.New("a holder is required")
	case !c.BindAddr.IsValid() || c.Port == 0:
		return errors.New("an address and a port to bind are required")
	case !c.AdvertiseAddr.IsValid() || c.AdvertiseAddr.IsUnspecified():
		return errors.New("an address to advertise is required when none is bound")
	}
	return nil
}

// fill sets the defaults.
func (c *Config) fill() {
	if !c.AdvertiseAddr.IsValid() {
		c.AdvertiseAddr = c.BindAddr
	}
	c.AdvertiseAddr = c.AdvertiseAddr.Unmap().WithZone("")
	if c.OnNews == nil {
		c.OnNews = func(candmap.Envelope) {}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Network == nil {
		c.Network = system{c.BindAddr}
	}
}

// checkKeys copies the bytes out of the secrets, the one to send with first.
func checkKeys(secrets []cluster.Secret) ([][]byte, error) {
	if len(secrets) > maxKeys {
		return nil, fmt.Errorf("%d keys, at most %d are accepted at once", len(secrets), maxKeys)
	}
	keys := make([][]byte, 0, len(secrets))
	for i, s := range secrets {
		if n := len(s.Reveal()); n != KeySize {
			return nil, fmt.Errorf("key %d has %d bytes, want %d", i, n, KeySize)
		}
		keys = append(keys, append([]byte(nil), s.Reveal()...))
	}
	return keys, nil
}
