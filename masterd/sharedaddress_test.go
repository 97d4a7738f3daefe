package masterd

import (
	"context"
	"net"
	"net/netip"
	"testing"
)

// TestListenShared: an address that this machine does not have can be listened on.
func TestListenShared(t *testing.T) {
	for _, addr := range []string{"192.0.2.77:0", "[2001:db8::77]:0"} {
		l, err := listenShared(t.Context(), netip.MustParseAddrPort(addr))
		if err != nil {
			if probe, no := new(net.ListenConfig).Listen(t.Context(), "tcp", "[::1]:0"); no != nil && addr[0] == '[' {
				t.Skipf("no IPv6 here: %v", no)
			} else if no == nil {
				_ = probe.Close()
			}
			t.Fatalf("%s: %v", addr, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestBeginWaits: the end returns after what was begun.
func TestBeginWaits(t *testing.T) {
	ended := false
	begin(t.Context(), func(ctx context.Context) { <-ctx.Done(); ended = true })()
	if !ended {
		t.Error("it goes on")
	}
}
