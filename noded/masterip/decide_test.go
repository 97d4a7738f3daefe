package masterip

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rolekey/cluster"
)

var (
	ours4 = cluster.MasterAddress{Address: netip.MustParsePrefix("192.0.2.9/24"), Netdev: "eth0"}
	ours6 = cluster.MasterAddress{Address: netip.MustParsePrefix("2001:db8::9/64"), Netdev: "eth0"}
)

func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		w    Want
		act  Act
		life time.Duration
	}{
		"no address":                {Want{Master: true, Left: time.Minute, Heard: true}, Drop, 0},
		"not the master":            {Want{Address: &ours4, Left: time.Minute, Heard: true}, Drop, 0},
		"not the master, starting":  {Want{Address: &ours4}, Drop, 0},
		"master, fresh":             {Want{Address: &ours4, Master: true, Left: time.Minute, Heard: true}, Hold, 58 * time.Second},
		"master, default lease":     {Want{Address: &ours4, Master: true, Left: 119900 * time.Millisecond, Heard: true}, Hold, 117 * time.Second},
		"master, lease for tests":   {Want{Address: &ours4, Master: true, Left: 2900 * time.Millisecond, Heard: true}, Hold, 2 * time.Second},
		"master, lease about to go": {Want{Address: &ours4, Master: true, Left: time.Millisecond, Heard: true}, Hold, time.Second},
		"master, stale":             {Want{Address: &ours4, Master: true, Heard: true}, Drop, 0},
		"master, starting":          {Want{Address: &ours4, Master: true}, Keep, 0},
	} {
		if act, life := Decide(c.w); act != c.act || life != c.life {
			t.Errorf("%s: act %d for %s, want %d for %s", name, act, life, c.act, c.life)
		}
	}
}

// The kernel's clock is late by less than 1.5 s. Leases of 10 s and more leave
// room for that; no lifetime is longer than what is left, but for the last
// second of a lease, which is the least that the kernel counts.
func TestLifetimeEndsWithTheLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		left := time.Duration(rapid.Int64Range(1, int64(25*time.Hour)).Draw(t, "left"))
		_, life := Decide(Want{Address: &ours6, Master: true, Left: left, Heard: true})
		if life%time.Second != 0 || life < time.Second || life > max(left, time.Second) {
			t.Fatalf("%s of a lease of %s", life, left)
		}
		if left >= 10*time.Second && life+1500*time.Millisecond > left {
			t.Fatalf("%s of a lease of %s leaves no room", life, left)
		}
	})
}

func place(dev, prefix string, forever bool) Place {
	return Place{dev, netip.MustParsePrefix(prefix), forever}
}

func TestPrefix(t *testing.T) {
	for name, c := range map[string]struct {
		m      cluster.MasterAddress
		places []Place
		want   string
	}{
		"device without address": {ours4, nil, "192.0.2.9/24"},
		"its network is there":   {ours4, []Place{place("eth0", "192.0.2.1/24", true)}, "192.0.2.9/32"},
		"a wider one is there":   {ours4, []Place{place("eth0", "192.0.2.1/16", true)}, "192.0.2.9/32"},
		"another network":        {ours4, []Place{place("eth0", "198.51.100.1/24", true), place("eth0", "2001:db8::1/64", true)}, "192.0.2.9/24"},
		"on another device":      {ours4, []Place{place("eth1", "192.0.2.1/24", true)}, "192.0.2.9/24"},
		"only itself":            {ours4, []Place{place("eth0", "192.0.2.9/24", false)}, "192.0.2.9/24"},
		"IPv6":                   {ours6, []Place{place("eth0", "2001:db8::1/64", true)}, "2001:db8::9/128"},
		"IPv6 without":           {ours6, []Place{place("eth0", "fe80::1/64", true)}, "2001:db8::9/64"},
	} {
		if got := prefixFor(c.places, c.m); got.String() != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
