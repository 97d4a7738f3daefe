package memnet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

var (
	addrA = netip.MustParseAddr("192.0.2.1")
	addrB = netip.MustParseAddr("192.0.2.2")
	addrC = netip.MustParseAddr("2001:db8::3")
)

// pair returns a client at addrA connected to a server at addrB.
func pair(t *testing.T, n *Network) (client, server *Conn) {
	t.Helper()
	l, err := n.Host(addrB).Listen("tcp", netip.AddrPortFrom(addrB, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := n.Host(addrA).Dial(t.Context(), l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*Conn), s.(*Conn)
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// checkSilent reports data or an end that arrived too early.
func checkSilent(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v, want a timeout", n, err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// The conformance tests of x/net cover deadlines, concurrency and closing.
func TestConformance(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		c, s := pair(t, New())
		return c, s, func() { c.Close(); s.Close() }, nil
	})
}

func TestWritesDoNotWaitForReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := pair(t, New())
		defer c.Close()
		defer s.Close()
		send(t, c, "both")
		send(t, s, "sides")
		expect(t, s, "both")
		expect(t, c, "sides")
	})
}

func TestFullBufferBlocksDurably(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := pair(t, New())
		defer c.Close()
		defer s.Close()
		if err := c.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Write(make([]byte, bufferSize+1))
		if n != bufferSize || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("wrote %d, %v", n, err)
		}
		if err := c.SetWriteDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		go func() {
			if _, err := io.CopyN(io.Discard, s, bufferSize); err != nil {
				t.Error(err)
			}
		}()
		send(t, c, "more")
		synctest.Wait()
		expect(t, s, "more")
	})
}

func TestCloseEndsStreamAfterData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := pair(t, New())
		send(t, c, "last words")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s); err != nil || string(got) != "last words" {
			t.Errorf("peer read %q, %v", got, err)
		}
		if _, err := s.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed peer: %v", err)
		}
		for op, err := range map[string]error{"close": c.Close(), "linger": c.SetLinger(0), "half close": c.CloseWrite()} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s after close: %v", op, err)
			}
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
	})
}

func TestHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := pair(t, New())
		defer c.Close()
		defer s.Close()
		send(t, c, "question")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s); err != nil || string(got) != "question" {
			t.Fatalf("peer read %q, %v", got, err)
		}
		send(t, s, "answer")
		expect(t, c, "answer")
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after CloseWrite: %v", err)
		}
	})
}

func TestResetReachesPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := pair(t, New())
		defer s.Close()
		blocked := make(chan error, 1)
		go func() {
			_, err := s.Read(make([]byte, 1))
			blocked <- err
		}()
		synctest.Wait()
		if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
			t.Fatal(err)
		}
		if err := <-blocked; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		if _, err := s.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %v", err)
		}
	})
}

func TestResetDropsDataOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		c, s := pair(t, n)
		defer s.Close()
		n.SetLatency(time.Second)
		send(t, c, "lost")
		if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s); len(got) != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

func TestLatencyIsVirtual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		n.SetLatency(3 * time.Second)
		start := time.Now()
		c, s := pair(t, n)
		defer c.Close()
		defer s.Close()
		if d := time.Since(start); d != 6*time.Second {
			t.Errorf("connecting took %v, want a round trip", d)
		}
		start = time.Now()
		send(t, c, "a")
		n.SetLatency(time.Second) // must not let b overtake a
		send(t, c, "b")
		expect(t, s, "ab")
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("data took %v", d)
		}
	})
}

func TestDeadlineCanBeMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := pair(t, New())
		defer c.Close()
		defer s.Close()
		done := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			done <- err
		}()
		start := time.Now()
		_ = c.SetReadDeadline(start.Add(time.Hour))
		synctest.Wait()
		_ = c.SetReadDeadline(start.Add(time.Minute))
		var ne net.Error
		if err := <-done; !errors.As(err, &ne) || !ne.Timeout() || time.Since(start) != time.Minute {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
	})
}

func TestAddressesAreTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := pair(t, New())
		defer c.Close()
		defer s.Close()
		if c.LocalAddr().String() != s.RemoteAddr().String() || c.RemoteAddr().String() != s.LocalAddr().String() {
			t.Errorf("client %v-%v, server %v-%v", c.LocalAddr(), c.RemoteAddr(), s.LocalAddr(), s.RemoteAddr())
		}
		if got := s.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != addrA {
			t.Errorf("server sees %v, want %v", got, addrA)
		}
	})
}

func TestLargeTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := pair(t, New())
		defer s.Close()
		want := bytes.Repeat([]byte("0123456789abcde"), bufferSize/5)
		go func() {
			if _, err := c.Write(want); err != nil {
				t.Error(err)
			}
			c.Close()
		}()
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d of %d bytes, %v", len(got), len(want), err)
		}
	})
}
