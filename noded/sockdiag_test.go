package noded

import (
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestG4ConnectionsBothWays: both of the kernel's lists name the same
// connections, of IPv4, of IPv6, and of IPv4 to a socket of IPv6. A session that
// one of them missed would go on.
func TestG4ConnectionsBothWays(t *testing.T) {
	for _, c := range []struct {
		network, listen, dial string
	}{{"tcp4", "127.0.0.1:0", "127.0.0.1"}, {"tcp6", "[::1]:0", "::1"}, {"tcp", "[::]:0", "127.0.0.1"}} {
		l, err := net.Listen(c.network, c.listen)
		if err != nil {
			t.Logf("%s: %v", c.listen, err) // no IPv6 here
			continue
		}
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		t.Cleanup(func() { l.Close() })
		for range 40 {
			conn, err := net.Dial("tcp", net.JoinHostPort(c.dial, strconv.Itoa(int(port))))
			if err != nil {
				t.Fatal(err)
			}
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close(); accepted.Close() })
		}
		read, err := readConnections("/proc/net", wanted{local: port})
		if err != nil {
			t.Fatal(err)
		}
		asked, err := diagConnections(wanted{local: port})
		if err != nil {
			t.Skipf("no sock_diag here: %v", err)
		}
		for _, list := range [][]connection{read, asked} {
			slices.SortFunc(list, func(a, b connection) int { return strings.Compare(a.inode, b.inode) })
		}
		if len(read) != 40 || !reflect.DeepEqual(read, asked) {
			t.Errorf("%s: /proc lists %d, sock_diag %d:\n%v\n%v", c.listen, len(read), len(asked), read, asked)
		}
	}
}

func BenchmarkConnections(b *testing.B) {
	b.Run("sock_diag", func(b *testing.B) {
		for b.Loop() {
			if _, err := diagConnections(wanted{local: 22}); err != nil {
				b.Skip(err)
			}
		}
	})
	b.Run("proc", func(b *testing.B) {
		for b.Loop() {
			if _, err := readConnections("/proc/net", wanted{local: 22}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
