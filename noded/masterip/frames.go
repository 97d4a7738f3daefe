package masterip

import (
	"encoding/binary"
	"net/netip"
)

const macLen = 6

type mac [macLen]byte

const (
	etherIPv4, etherARP, etherIPv6 = 0x0800, 0x0806, 0x86dd
	arpEthernet, arpRequest        = 1, 1
	protoICMPv6                    = 58
	ndHopLimit                     = 255
	ndAdvertisement                = 136
	ndOverride                     = 0x20
	ndTargetLinkAddr               = 2
)

// announcement is the Ethernet frame that tells all neighbours that an address
// is at a MAC address now, and the frame's protocol.
func announcement(from mac, a netip.Addr) ([]byte, uint16) {
	if a.Is4() {
		return arpAnnouncement(from, a), etherARP
	}
	return advertisement(from, a), etherIPv6
}

func ethernet(to, from mac, proto uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte{}, to[:]...), from[:]...), proto)
}

// arpAnnouncement is the gratuitous ARP of RFC 5227: a request whose sender and
// target are the same address.
func arpAnnouncement(from mac, a netip.Addr) []byte {
	ip := a.As4()
	b := ethernet(mac{255, 255, 255, 255, 255, 255}, from, etherARP)
	b = binary.BigEndian.AppendUint16(b, arpEthernet)
	b = binary.BigEndian.AppendUint16(b, etherIPv4)
	b = append(b, macLen, byte(len(ip)))
	b = binary.BigEndian.AppendUint16(b, arpRequest)
	b = append(append(b, from[:]...), ip[:]...)
	return append(append(b, make([]byte, macLen)...), ip[:]...)
}

// advertisement is the unsolicited neighbour advertisement of RFC 4861, to all
// nodes, with the override flag.
func advertisement(from mac, a netip.Addr) []byte {
	ip := a.As16()
	all := netip.MustParseAddr("ff02::1").As16()
	icmp := []byte{ndAdvertisement, 0, 0, 0, ndOverride, 0, 0, 0}
	icmp = append(append(icmp, ip[:]...), ndTargetLinkAddr, 1)
	icmp = append(icmp, from[:]...)
	binary.BigEndian.PutUint16(icmp[2:], checksum(ip, all, icmp))

	b := ethernet(mac{0x33, 0x33, 0, 0, 0, 1}, from, etherIPv6)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(icmp)))
	b = append(b, protoICMPv6, ndHopLimit)
	b = append(append(b, ip[:]...), all[:]...)
	return append(b, icmp...)
}

// checksum is ICMPv6's, over the pseudo header too (RFC 8200 §8.1). The length
// of the message is even.
func checksum(src, dst [16]byte, message []byte) uint16 {
	sum := uint32(len(message)) + protoICMPv6
	for _, part := range [][]byte{src[:], dst[:], message} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
