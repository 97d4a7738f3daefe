package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func listen(t *testing.T, h *Host, port uint16) net.Listener {
	t.Helper()
	l, err := h.Listen("tcp", netip.AddrPortFrom(h.Addr(), port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestPartitionHoldsDataUntilHeal(t *testing.T) {
	cuts := map[string]func(*Network){
		"partition":     func(n *Network) { n.Partition([]netip.Addr{addrA}, []netip.Addr{addrB}) },
		"implied group": func(n *Network) { n.Partition([]netip.Addr{addrA}) },
		"block":         func(n *Network) { n.Block(addrA, addrB) },
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New()
				c, s := pair(t, n)
				defer s.Close()
				cut(n)
				send(t, c, "held")
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				checkSilent(t, s)
				n.Heal()
				if got, err := io.ReadAll(s); err != nil || string(got) != "held" {
					t.Errorf("after heal: %q, %v", got, err)
				}
			})
		})
	}
}

func TestHealWakesWaitingReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		c, s := pair(t, n)
		defer c.Close()
		defer s.Close()
		n.Block(addrA, addrB)
		send(t, c, "x")
		time.AfterFunc(time.Minute, func() { n.Unblock(addrA, addrB) })
		expect(t, s, "x")
	})
}

func TestBlockIsOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		c, s := pair(t, n)
		defer c.Close()
		defer s.Close()
		n.Block(addrA, addrB)
		send(t, s, "back")
		expect(t, c, "back")
		send(t, c, "there")
		checkSilent(t, s)
	})
}

// A reset is news that has to travel as well: behind a partition the peer
// keeps believing in the connection, and its writes go nowhere.
func TestResetDoesNotCrossPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		c, s := pair(t, n)
		defer s.Close()
		n.Partition([]netip.Addr{addrA})
		if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
			t.Fatal(err)
		}
		send(t, s, "into the void")
		checkSilent(t, s)
		n.Heal()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after heal: %v", err)
		}
	})
}

func TestNetworkReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		c, s := pair(t, n)
		defer c.Close()
		defer s.Close()
		n.Partition([]netip.Addr{addrA})
		n.Reset(addrB, addrA)
		for _, conn := range []*Conn{c, s} {
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v", err)
			}
			if _, err := conn.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("write: %v", err)
			}
		}
	})
}

func TestDialWaitsForHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l := listen(t, n.Host(addrB), 80)
		n.Block(addrB, addrA) // the answer is lost
		start := time.Now()
		time.AfterFunc(time.Minute, n.Heal)
		c, err := n.Host(addrA).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil || time.Since(start) != time.Minute {
			t.Fatalf("dial: %v after %v", err, time.Since(start))
		}
		c.Close()
	})
}

func TestDialFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a := n.Host(addrA)
		n.Host(addrB)
		blocked := listen(t, n.Host(addrC), 80).Addr().(*net.TCPAddr).AddrPort()
		n.Block(addrA, addrC)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		gone, cancelGone := context.WithCancel(t.Context())
		cancelGone()
		cases := []struct {
			ctx  context.Context
			to   netip.AddrPort
			want error
		}{
			{t.Context(), netip.AddrPortFrom(addrB, 80), syscall.ECONNREFUSED},
			{t.Context(), netip.MustParseAddrPort("192.0.2.99:80"), syscall.EHOSTUNREACH},
			{t.Context(), blocked, syscall.ETIMEDOUT},
			{short, blocked, context.DeadlineExceeded},
			{gone, netip.AddrPortFrom(addrB, 80), context.Canceled},
		}
		for _, c := range cases {
			if _, err := a.Dial(c.ctx, c.to); !errors.Is(err, c.want) {
				t.Errorf("dial %v: %v, want %v", c.to, err, c.want)
			}
		}
		if len(a.conns()) != 0 {
			t.Errorf("%d streams left by failed dials", len(a.conns()))
		}
	})
}

func TestListenErrors(t *testing.T) {
	h := New().Host(addrA)
	listen(t, h, 80)
	if _, err := h.ListenPacket(netip.AddrPortFrom(addrA, 80)); err != nil {
		t.Errorf("packets and streams share ports: %v", err)
	}
	cases := []struct {
		network string
		addr    netip.AddrPort
		want    error
	}{
		{"tcp", netip.AddrPortFrom(addrA, 80), syscall.EADDRINUSE},
		{"tcp", netip.AddrPortFrom(netip.IPv4Unspecified(), 80), syscall.EADDRINUSE},
		{"tcp", netip.AddrPortFrom(addrB, 80), syscall.EADDRNOTAVAIL},
		{"unix", netip.AddrPortFrom(addrA, 81), net.UnknownNetworkError("unix")},
	}
	for _, c := range cases {
		if _, err := h.Listen(c.network, c.addr); !errors.Is(err, c.want) {
			t.Errorf("listen %s %v: %v, want %v", c.network, c.addr, err, c.want)
		}
	}
}

func TestListenerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l := listen(t, n.Host(addrB), 80)
		c, err := n.Host(addrA).Dial(t.Context(), netip.AddrPortFrom(addrB, 80))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a stream that nobody accepted: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
		listen(t, n.Host(addrB), 80) // the port is free again
	})
}

func TestStopAndStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		c, s := pair(t, n)
		defer c.Close()
		b := n.Host(addrB)
		l := listen(t, b, 80)
		p, err := b.ListenPacket(netip.AddrPortFrom(addrB, 80))
		if err != nil {
			t.Fatal(err)
		}
		accepted := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			accepted <- err
		}()
		b.Stop()
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if _, _, err := p.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("packets: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer reads: %v", err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the stopped host reads: %v", err)
		}
		if _, err := b.Listen("tcp", netip.AddrPortFrom(addrB, 80)); !errors.Is(err, syscall.ENETDOWN) {
			t.Errorf("listen while down: %v", err)
		}
		if _, err := b.Dial(t.Context(), netip.AddrPortFrom(addrA, 1)); !errors.Is(err, syscall.ENETDOWN) {
			t.Errorf("dial while down: %v", err)
		}
		b.Start()
		pair(t, n)
	})
}

func TestCloseEndsReadersOfDelayedData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		c, s := pair(t, n)
		n.SetLatency(time.Hour)
		send(t, c, "late")
		c.Close() // forgotten by its host, but the peer still waits for it
		done := make(chan error, 1)
		go func() {
			_, err := s.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		start := time.Now()
		n.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) || time.Since(start) != 0 {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
	})
}

// A writer whose peer has stopped behind a partition must not wait for it
// while there is room, and must not wait for ever when there is none.
func TestStoppedPeerNeverBlocksWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		c, _ := pair(t, n)
		defer c.Close()
		n.Partition([]netip.Addr{addrB})
		n.Host(addrB).Stop()
		if k, err := c.Write(make([]byte, bufferSize)); err != nil {
			t.Fatalf("wrote %d, %v", k, err)
		}
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write into a full buffer: %v", err)
		}
		_ = c.SetWriteDeadline(time.Time{})
		time.AfterFunc(time.Minute, n.Heal)
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write when the news arrives: %v", err)
		}
	})
}
