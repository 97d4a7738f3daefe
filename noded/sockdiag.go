package noded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel lists connections in two ways. sock_diag(7) picks those of one
// port by itself; net/tcp of proc(5) is read as a whole, and on a machine with
// much memory, and so a large table, that takes many milliseconds of processor
// time even if the table is empty. Every map's acknowledgement waits for it.

// Sizes of the kernel's inet_diag_req_v2, inet_diag_sockid and inet_diag_msg.
const (
	diagID      = 48
	diagRequest = 8 + diagID
	diagMessage = 4 + diagID + 20

	diagLimit = time.Second // of each answer; the kernel answers at once
)

// diagConnections lists connections of this machine.
func diagConnections(w wanted) (list []connection, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	limit := unix.NsecToTimeval(int64(diagLimit))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := unix.Sendto(fd, diagQuestion(family, w), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, fmt.Errorf("ask sock_diag: %w", err)
		}
		part, err := readDiag(fd, w)
		if err != nil {
			return nil, fmt.Errorf("read sock_diag: %w", err)
		}
		list = append(list, part...)
	}
	return list, nil
}

// diagQuestion asks for a dump; ports are in the order of the network.
func diagQuestion(family byte, w wanted) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+diagRequest)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	r := b[unix.SizeofNlMsghdr:]
	r[0], r[1] = family, unix.IPPROTO_TCP
	states := uint32(1 << tcpEstablished)
	if w.opening {
		states |= 1 << tcpOpening
	}
	binary.NativeEndian.PutUint32(r[4:], states)
	binary.BigEndian.PutUint16(r[8:], w.local)
	binary.BigEndian.PutUint16(r[10:], w.remote)
	return b
}

// readDiag reads one dump to its end.
func readDiag(fd int, w wanted) (list []connection, err error) {
	buf := make([]byte, 64<<10)
	for {
		n, _, flags, from, err := unix.Recvmsg(fd, buf, nil, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != 0 || flags&unix.MSG_TRUNC != 0 {
			return nil, errors.New("an answer is cut, or not the kernel's")
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			c, done, err := parseDiag(m)
			if done || err != nil {
				return list, err
			}
			if w.ends(c) {
				list = append(list, c)
			}
		}
	}
}

// parseDiag reads one message of a dump; done: it is the last.
func parseDiag(m syscall.NetlinkMessage) (c connection, done bool, err error) {
	switch {
	case m.Header.Flags&unix.NLM_F_DUMP_INTR != 0:
		return c, false, errors.New("the list changed while it was made")
	case m.Header.Type == unix.NLMSG_DONE, m.Header.Type == unix.NLMSG_ERROR:
		if len(m.Data) >= 4 {
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code < 0 {
				return c, true, syscall.Errno(-code)
			}
		}
		return c, true, nil
	case m.Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(m.Data) < diagMessage:
		return c, false, fmt.Errorf("message of type %d and %d bytes", m.Header.Type, len(m.Data))
	}
	size := 4
	if m.Data[0] == unix.AF_INET6 {
		size = 16
	}
	end := func(port, addr int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(m.Data[addr : addr+size]) // 4 or 16 bytes: always one
		return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(m.Data[port:]))
	}
	inode := binary.NativeEndian.Uint32(m.Data[diagMessage-4:])
	return connection{end(4, 8), end(6, 24), strconv.FormatUint(uint64(inode), 10)}, false, nil
}
