package masterip

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

// The frames byte by byte, written down from RFC 826, 5227 and 4861.
func TestFrames(t *testing.T) {
	from := mac{0x02, 0, 0, 0, 0, 0x0a}
	for addr, c := range map[string]struct {
		proto uint16
		parts []string
	}{
		"192.0.2.9": {0x0806, []string{
			"ffffffffffff", "02000000000a", "0806", // to all, from us, ARP
			"0001", "0800", "06", "04", "0001", // Ethernet, IPv4, lengths, request
			"02000000000a", "c0000209", "000000000000", "c0000209", // sender, target
		}},
		"2001:db8::9": {0x86dd, []string{
			"333300000001", "02000000000a", "86dd",
			"60000000", "0020", "3a", "ff", // length 32, ICMPv6, hop limit 255
			"20010db8000000000000000000000009", "ff020000000000000000000000000001",
			"88", "00", "f911", "20000000", // advertisement, checksum, override
			"20010db8000000000000000000000009", "02", "01", "02000000000a",
		}},
	} {
		frame, proto := announcement(from, netip.MustParseAddr(addr))
		if got, want := hex.EncodeToString(frame), strings.Join(c.parts, ""); got != want || proto != c.proto {
			t.Errorf("%s: protocol %#x\n%s\n%s", addr, proto, got, want)
		}
	}
}

// A message with its checksum in place sums to zero: what a receiver checks.
func TestChecksum(t *testing.T) {
	for _, addr := range []string{"2001:db8::9", "fe80::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"} {
		frame := advertisement(mac{1, 2, 3, 4, 5, 6}, netip.MustParseAddr(addr))
		var src, dst [16]byte
		copy(src[:], frame[14+8:])
		copy(dst[:], frame[14+24:])
		if sum := checksum(src, dst, frame[14+40:]); sum != 0 {
			t.Errorf("%s: %#04x", addr, sum)
		}
	}
}
