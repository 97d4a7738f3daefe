package cluster

import (
	"fmt"
	"net/netip"
	"strings"
)

// Limits of a host name (RFC 1035 §2.3.4).
const (
	maxName  = 253
	maxLabel = 63
)

// Name is a node's or cluster's host name: lower-case labels of letters,
// digits and inner hyphens, joined by dots, the last one not all digits. The
// grammar is stricter than DNS on purpose: names reach known_hosts, where a
// pattern character would match every host.
type Name string

// ParseName checks s against the grammar. Upper case is refused rather than
// folded, so that one node has one spelling.
func ParseName(s string) (Name, error) {
	if s == "" || len(s) > maxName {
		return "", fmt.Errorf("host name %q: want 1 to %d characters", clip(s), maxName)
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if !validLabel(l) {
			return "", fmt.Errorf("host name %q: label %q: want 1 to %d of a-z, 0-9 and inner hyphens", clip(s), clip(l), maxLabel)
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return "", fmt.Errorf("host name %q: the last label is a number, so it reads as an address", clip(s))
	}
	return Name(s), nil
}

func validLabel(l string) bool {
	if l == "" || len(l) > maxLabel || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for _, c := range []byte(l) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *Name) UnmarshalText(b []byte) (err error) {
	*n, err = ParseName(string(b))
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (n Name) MarshalText() ([]byte, error) { return []byte(n), nil }

// ParseAddr reads one unicast IP address in canonical form, without a zone:
// what is signed and written to files has one spelling.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		// The parser's own error repeats s, however long.
		return netip.Addr{}, fmt.Errorf("address %q: want an IP address", clip(s))
	}
	if err := CheckAddr(a); err != nil {
		return netip.Addr{}, err
	}
	if a.String() != s {
		return netip.Addr{}, fmt.Errorf("address %q: write it as %s", clip(s), a)
	}
	return a, nil
}

// CheckAddr refuses what cannot be the address of a node: zones, unspecified,
// multicast, and IPv4 addresses in IPv6 clothing.
func CheckAddr(a netip.Addr) error {
	if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("address %q: want a plain unicast IPv4 or IPv6 address", clip(a.String()))
	}
	return nil
}
