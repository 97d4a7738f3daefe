package masterip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kernel changes the addresses of this machine.
type Kernel interface {
	// Places lists all addresses.
	Places() ([]Place, error)
	// Set puts an address onto a device, or sets its lifetime anew.
	Set(netdev string, p netip.Prefix, life time.Duration) error
	// Delete takes an address away; one that is gone is no error.
	Delete(netdev string, p netip.Prefix) error
	// Announce tells the neighbours once that the address is here.
	Announce(netdev string, a netip.Addr) error
}

// System is the machine's own kernel, which lets only those change addresses
// who have CAP_NET_ADMIN and, to announce them, CAP_NET_RAW.
var System Kernel = system{}

type system struct{}

// listTries is how often a list is asked for that changes meanwhile.
const listTries = 5

// Places implements Kernel.
func (system) Places() ([]Place, error) {
	names := map[int]string{}
	links, err := again(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	list, err := again(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var places []Place
	for _, a := range list {
		addr, ok := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		if !ok {
			continue
		}
		places = append(places, Place{names[a.LinkIndex], netip.PrefixFrom(addr.Unmap(), bits), a.Flags&unix.IFA_F_PERMANENT != 0})
	}
	return places, nil
}

func again[T any](list func() ([]T, error)) (out []T, err error) {
	for range listTries {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

// Set implements Kernel. An IPv6 address is not checked for duplicates first:
// that takes seconds, and at a failover the old master, cut off, may answer. It
// is deprecated at once, so that this node's own calls come from its own
// address: keys and firewalls go by that one.
func (system) Set(netdev string, p netip.Prefix, life time.Duration) error {
	link, err := netlink.LinkByName(netdev)
	if err != nil {
		return linkError(netdev, err)
	}
	a := addr(p)
	a.ValidLft = int(life / time.Second)
	if p.Addr().Is4() {
		a.PreferedLft = a.ValidLft
	} else {
		a.Flags = unix.IFA_F_NODAD
		if p.IsSingleIP() {
			a.Flags |= unix.IFA_F_NOPREFIXROUTE
		}
	}
	if err := netlink.AddrReplace(link, a); err != nil {
		return explain(fmt.Errorf("put %s on %s: %w", p, netdev, err))
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("%s is on %s, but that device is down", p, netdev)
	}
	return nil
}

// Delete implements Kernel.
func (system) Delete(netdev string, p netip.Prefix) error {
	link, err := netlink.LinkByName(netdev)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return linkError(netdev, err)
	}
	err = netlink.AddrDel(link, addr(p))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	if err != nil {
		return explain(fmt.Errorf("take %s off %s: %w", p, netdev, err))
	}
	return nil
}

func addr(p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
}

func linkError(netdev string, err error) error {
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return fmt.Errorf("there is no network device %s", netdev)
	}
	return fmt.Errorf("find network device %s: %w", netdev, err)
}

// explain adds what to do about a refusal.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w; noded must run as root, with CAP_NET_ADMIN and CAP_NET_RAW", err)
	}
	return err
}

// Announce implements Kernel. On devices without neighbours there is nothing
// to tell.
func (system) Announce(netdev string, a netip.Addr) error {
	dev, err := net.InterfaceByName(netdev)
	if err != nil {
		return fmt.Errorf("announce %s: %w", a, err)
	}
	if len(dev.HardwareAddr) != macLen || dev.Flags&net.FlagLoopback != 0 {
		return nil
	}
	frame, proto := announcement(mac(dev.HardwareAddr), a)
	if err := send(dev.Index, proto, frame); err != nil {
		return explain(fmt.Errorf("announce %s on %s: %w", a, netdev, err))
	}
	return nil
}

func send(index int, proto uint16, frame []byte) (err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // 0: it receives nothing
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	to := unix.SockaddrLinklayer{Protocol: proto<<8 | proto>>8, Ifindex: index, Halen: macLen}
	copy(to.Addr[:], frame[:macLen])
	return unix.Sendto(fd, frame, unix.MSG_DONTWAIT, &to)
}
