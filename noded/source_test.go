package noded

import (
	"net/netip"
	"testing"
)

func TestSourceOfLogins(t *testing.T) {
	addrs := func(list ...string) (out []netip.Addr) {
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	both := addrs("10.1.0.5", "10.2.0.5", "2001:db8:1::5")
	for _, c := range []struct {
		what                  string
		own                   []netip.Addr
		target, kernel, wants string
	}{
		{"one of the family", both, "2001:db8::1", "2001:db8:1::dead", "2001:db8:1::5"},
		{"the kernel's choice is known to others", both, "10.3.0.1", "10.2.0.5", "10.2.0.5"},
		{"it is not", both, "10.2.0.9", "10.2.0.77", "10.2.0.5"},
		{"it is not, and all are alike", both, "192.0.2.1", "10.1.0.77", "10.1.0.5"},
		{"no route", both, "10.2.0.9", "", "10.2.0.5"},
		{"none of the family", both[:2], "2001:db8::1", "2001:db8:1::dead", ""},
		{"none at all", nil, "10.1.0.1", "10.1.0.5", ""},
	} {
		p := sourcePicker{own: c.own, route: func(netip.Addr) netip.Addr {
			a, _ := netip.ParseAddr(c.kernel)
			return a
		}}
		want, _ := netip.ParseAddr(c.wants)
		if got := p.to(netip.MustParseAddr(c.target)); got != want {
			t.Errorf("%s: from %v, want %v", c.what, got, want)
		}
	}
	if a := routeFrom(netip.MustParseAddr("127.0.0.1")); a != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the kernel reaches 127.0.0.1 from %v", a)
	}
}
