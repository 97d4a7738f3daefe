package cluster_test

import (
	"net/netip"
	"testing"

	"rolekey/cluster"
)

func TestMasterAddressCheck(t *testing.T) {
	for _, c := range []struct {
		address, netdev string
		ok              bool
	}{
		{"192.0.2.9/24", "eth0", true},
		{"2001:db8::9/64", "br-lan.100", true},
		{"192.0.2.9/32", "eth0", true},
		{"192.0.2.9/0", "eth0", false},
		{"224.0.0.1/24", "eth0", false},
		{"0.0.0.0/24", "eth0", false},
		{"::ffff:192.0.2.9/120", "eth0", false},
		{"192.0.2.9/24", "", false},
		{"192.0.2.9/24", "..", false},
		{"192.0.2.9/24", "-eth0", false},
		{"192.0.2.9/24", "eth0 up", false},
		{"192.0.2.9/24", "eth0/../x", false},
		{"192.0.2.9/24", "a123456789012345", false},
	} {
		m := cluster.MasterAddress{Address: netip.MustParsePrefix(c.address), Netdev: c.netdev}
		if err := m.Check(); (err == nil) != c.ok {
			t.Errorf("%s on %q: %v", c.address, c.netdev, err)
		}
	}
	if (cluster.MasterAddress{Netdev: "eth0"}).Check() == nil {
		t.Error("no address is accepted")
	}
}
