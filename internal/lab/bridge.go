package lab

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// The network of isolation netns: a bridge in the holder's network namespace,
// and the holder's own end, from which tests and the wait for sshd come.
const (
	bridgeDevice = "br0"
	bridgeV4     = "10.77.0.254"
	bridgeV6     = "fd77::fe"
	machineNet   = "10.77.0"
)

// machineV6 is the second address of node i.
func machineV6(i int) string { return fmt.Sprintf("fd77::%x", i) }

// prefixed returns an address of the bridge's network with its prefix length.
func prefixed(address string) string {
	if isV6(address) {
		return address + "/64"
	}
	return address + "/24"
}

func isV6(address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && a.Is6()
}

// nodad makes an IPv6 address usable at once.
func nodad(address string) string {
	if isV6(address) {
		return " nodad"
	}
	return ""
}

// enterBridge prepares the namespaces of a holder whose nodes are machines.
func enterBridge() (ip string, err error) {
	if ip, err = findIP(); err != nil {
		return "", err
	}
	// Without this the mounts would spread to the host's namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", kindf(kindNoNamespaces, "make mounts private: %v", err)
	}
	lines := []string{
		"link set lo up",
		"link add " + bridgeDevice + " type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
		"link set " + bridgeDevice + " up",
	}
	for _, a := range []string{bridgeV4, bridgeV6} {
		lines = append(lines, "addr add "+prefixed(a)+" dev "+bridgeDevice+nodad(a))
	}
	if err := runIP(ip, lines...); err != nil {
		return "", kindf(kindNoNamespaces, "set up the bridge: %v", err)
	}
	return ip, nil
}

// routeCutter cuts machines from each other: each gets a route to the other
// that ends in a device which drops silently.
type routeCutter struct{ ip string }

func (c routeCutter) apply(s *spawner, verb string, pairs [][2]*node) error {
	batches := map[*node]*strings.Builder{}
	for _, p := range pairs {
		for _, way := range [][2]*node{p, {p[1], p[0]}} {
			b := batches[way[0]]
			if b == nil {
				b = new(strings.Builder)
				batches[way[0]] = b
			}
			for i, to := range way[1].Addresses {
				fmt.Fprintf(b, "route %s %s dev %s src %s\n", verb, to, pitDevice, way[0].Addresses[i])
			}
		}
	}
	for n, b := range batches {
		if err := ipBatch(s, c.ip, n.machine, b.String()); err != nil {
			return fmt.Errorf("on %s: %w", n.Name, err)
		}
	}
	return nil
}
