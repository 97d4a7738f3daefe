package cluster

import (
	"fmt"
	"net/netip"
)

// maxNetdev is the longest name of a network device (IFNAMSIZ, less its end).
const maxNetdev = 15

// MasterAddress is the cluster's own address, which the master holds: an
// address with the length of its network's prefix, and the device that it goes
// on.
type MasterAddress struct {
	Address netip.Prefix `json:"address"` // not masked: 192.0.2.9/24
	Netdev  string       `json:"netdev"`
}

// Check refuses what cannot be an address of a device.
func (m MasterAddress) Check() error {
	if err := CheckAddr(m.Address.Addr()); err != nil {
		return fmt.Errorf("cluster address: %w", err)
	}
	if !m.Address.IsValid() || m.Address.Bits() == 0 {
		return fmt.Errorf("cluster address %s: want the length of its network's prefix, such as /24", m.Address)
	}
	return CheckNetdev(m.Netdev)
}

// CheckNetdev accepts names of network devices that need no quoting anywhere.
func CheckNetdev(s string) error {
	if s == "" || len(s) > maxNetdev || s[0] == '.' || s[0] == '-' {
		return fmt.Errorf("network device %q: want 1 to %d characters, the first a letter or digit", clip(s), maxNetdev)
	}
	for _, c := range []byte(s) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
		if !ok {
			return fmt.Errorf("network device %q: character %q is not allowed", clip(s), c)
		}
	}
	return nil
}
