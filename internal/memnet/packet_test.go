package memnet

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func packetPair(t *testing.T, n *Network) (a, b net.PacketConn) {
	t.Helper()
	a, errA := n.Host(addrA).ListenPacket(netip.AddrPortFrom(addrA, 0))
	b, errB := n.Host(addrB).ListenPacket(netip.AddrPortFrom(addrB, 1813))
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func sendTo(t *testing.T, p net.PacketConn, data string, to net.Addr) {
	t.Helper()
	if n, err := p.WriteTo([]byte(data), to); n != len(data) || err != nil {
		t.Fatalf("sent %d, %v", n, err)
	}
}

func TestPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := packetPair(t, n)
		n.SetLatency(time.Second)
		start := time.Now()
		sendTo(t, a, "one", b.LocalAddr())
		sendTo(t, a, "twotwo", b.LocalAddr())
		buf := make([]byte, 4)
		for _, want := range []string{"one", "twot"} {
			k, from, err := b.ReadFrom(buf)
			if err != nil || string(buf[:k]) != want || from.String() != a.LocalAddr().String() {
				t.Errorf("got %q from %v, %v, want %q", buf[:k], from, err, want)
			}
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("packets took %v", d)
		}
	})
}

func TestPacketsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := packetPair(t, n)
		n.Block(addrA, addrB)
		sendTo(t, a, "blocked", b.LocalAddr())
		n.Heal()
		sendTo(t, a, "nobody there", &net.UDPAddr{IP: net.ParseIP("192.0.2.77"), Port: 1})
		sendTo(t, a, "wrong port", &net.UDPAddr{IP: addrB.AsSlice(), Port: 1})
		for range maxPackets + 1 {
			sendTo(t, a, "flood", b.LocalAddr())
		}
		got := 0
		_ = b.SetReadDeadline(time.Now().Add(time.Second))
		for {
			buf := make([]byte, 64)
			k, _, err := b.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil || string(buf[:k]) != "flood" {
				t.Fatalf("got %q, %v", buf[:k], err)
			}
			got++
		}
		if got != maxPackets {
			t.Errorf("%d packets arrived, want %d", got, maxPackets)
		}
	})
}

func TestPacketErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := packetPair(t, New())
		if _, err := a.WriteTo(make([]byte, maxPacket+1), b.LocalAddr()); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("large packet: %v", err)
		}
		_ = a.SetDeadline(time.Now().Add(-time.Second))
		if _, err := a.WriteTo(nil, b.LocalAddr()); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("late write: %v", err)
		}
		done := make(chan error, 1)
		go func() {
			_, _, err := b.ReadFrom(nil)
			done <- err
		}()
		synctest.Wait()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
		if _, err := b.WriteTo(nil, a.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		if err := b.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
	})
}
