package gossip

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/internal/memnet"
)

func TestMailboxIsNewestFirst(t *testing.T) {
	m := newMailbox()
	for i := range maxWaiting + 2 {
		want := putTaken
		if i >= maxWaiting {
			want = putEvicted
		}
		if got := m.put([]byte{byte(i)}); got != want {
			t.Errorf("put %d: %v, want %v", i, got, want)
		}
	}
	if m.put([]byte{5}) != putAgain {
		t.Error("the same message was taken twice")
	}
	for i := maxWaiting + 1; i >= 2; i-- {
		if got := m.pop(); !bytes.Equal(got, []byte{byte(i)}) {
			t.Errorf("popped %v, want %d", got, i)
		}
	}
	if m.pop() != nil || len(m.ready) != 1 {
		t.Errorf("popped from an empty mailbox, or %d tokens", len(m.ready))
	}
}

// The buffer is memberlist's, which uses it again.
func TestMailboxCopies(t *testing.T) {
	m, buf := newMailbox(), []byte("one")
	m.put(buf)
	copy(buf, "two")
	if got := m.pop(); string(got) != "one" {
		t.Errorf("popped %q", got)
	}
}

func TestMeta(t *testing.T) {
	id, at := ct.NodeID(3), cluster.Version{Epoch: 2, Version: 1 << 40}
	b := encodeMeta(id, at)
	if got, err := decodeMeta(id, b); err != nil || got != at || len(b) > 512 {
		t.Errorf("%v, %v from %d bytes", got, err, len(b))
	}
	later := slices.Clone(b)
	later[0]++
	for name, bad := range map[string][]byte{"empty": nil, "short": b[:32], "long": append(slices.Clone(b), 0), "format": later} {
		if _, err := decodeMeta(id, bad); err == nil {
			t.Errorf("no error for metadata that is bad: %s", name)
		}
	}
	if _, err := decodeMeta(ct.NodeID(4), b); err == nil {
		t.Error("took another node's metadata")
	}
}

func TestTrim(t *testing.T) {
	m := ct.Map(1, 2, 3, 4, 5)
	v, err := candmap.Genesis(ct.Seal(m, 1, 2, 3), ct.Seal(m, 1).Hash())
	if err != nil {
		t.Fatal(err)
	}
	beacon := func(signers ...int) candmap.Envelope { return ct.Beacon(m, ct.Epoch0, signers...) }
	junk := candmap.Merge(beacon(9, 8, 1, 2, 3, 4, 5), candmap.Signature{KeyID: ct.Pin("junk", 1), Sig: make([]byte, 64)})
	bare, err := trim(junk, v)
	if err != nil || len(bare.Signatures) != 3 || bare.Signers(v.Authority().Voters) != 3 {
		t.Errorf("trimmed to %d signatures, %v", len(bare.Signatures), err)
	}
	borrowed := beacon(1, 2)
	borrowed = candmap.Merge(borrowed, candmap.Signature{KeyID: candmap.KeyIDOf(ct.Public(3).Public()), Sig: borrowed.Signatures[0].Sig})
	if !couldProve(borrowed, v) || couldProve(beacon(1, 2, 9), v) {
		t.Error("couldProve counts wrongly")
	}
	for name, env := range map[string]candmap.Envelope{"few": beacon(1, 2, 8, 9), "borrowed": borrowed, "none": beacon(), "map": ct.Seal(m, 1, 2, 3)} {
		if _, err := trim(env, v); err == nil {
			t.Errorf("no error for %s", name)
		}
	}
}

func TestLogLines(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	g := &Gossip{log: zap.New(core)}
	w := newLogWriter(g)
	for line, want := range map[string]struct {
		level zapcore.Level
		text  string
	}{
		"[ERR] memberlist: a\n":       {zapcore.WarnLevel, "a"},
		"[WARN] memberlist: b":        {zapcore.WarnLevel, "b"},
		"[INFO] memberlist: c":        {zapcore.InfoLevel, "c"},
		"[what] d":                    {zapcore.InfoLevel, "[what] d"},
		"e]":                          {zapcore.InfoLevel, "e]"},
		strings.Repeat("ü", maxLine):  {zapcore.InfoLevel, strings.Repeat("ü", maxLine/2) + "…"},
		"[ERR] Failed to shutdown: f": {zapcore.WarnLevel, "Failed to shutdown: f"},
	} {
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		got := logs.TakeAll()
		if len(got) != 1 || got[0].Level != want.level || got[0].Message != want.text {
			t.Errorf("%q became %v", line, got)
		}
	}
	_, _ = w.Write([]byte("[DEBUG] memberlist: not enabled"))
	for range 1000 {
		_, _ = w.Write([]byte("[ERR] memberlist: flood"))
	}
	if n := logs.Len(); n > 2*linesAtOnce || g.count.lines.Load() < 1000-2*linesAtOnce {
		t.Errorf("%d lines of a flood written, %d counted", n, g.count.lines.Load())
	}
}

// wire is a transport on one host of a network, and another host.
func wire(t *testing.T) (tr *transport, other *memnet.Host, at netip.AddrPort, n *memnet.Network) {
	t.Helper()
	n = memnet.New()
	at = netip.AddrPortFrom(ct.Addr(1), 1813)
	g := &Gossip{log: zap.NewNop(), cfg: Config{BindAddr: at.Addr(), AdvertiseAddr: at.Addr(), Port: at.Port(), Network: n.Host(at.Addr())}}
	tr, err := listen(g, at)
	if err != nil {
		t.Fatal(err)
	}
	return tr, n.Host(ct.Addr(2)), at, n
}

func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, other, at, n := wire(t)
		defer n.Close()
		var taken []net.Conn
		for range maxPerPeer {
			if _, err := other.Dial(t.Context(), at); err != nil {
				t.Fatal(err)
			}
			taken = append(taken, <-tr.StreamCh())
		}
		extra, err := other.Dial(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := extra.Read(make([]byte, 1)); err == nil || tr.g.count.streams.Load() != 1 {
			t.Errorf("one stream too many: %v, %d counted", err, tr.g.count.streams.Load())
		}
		_, _ = taken[0].Close(), taken[0].Close() // twice counts once
		if _, err := other.Dial(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		<-tr.StreamCh()
		if len(tr.from) != 1 || tr.sum != maxPerPeer || len(tr.open) != maxPerPeer {
			t.Errorf("%v, %d, %d streams counted", tr.from, tr.sum, len(tr.open))
		}
		if err := tr.Shutdown(); err != nil || len(tr.open) != 0 || len(tr.from) != 0 {
			t.Errorf("after shutdown: %v, %d open, %v", err, len(tr.open), tr.from)
		}
		if _, err := taken[1].Read(make([]byte, 1)); err == nil {
			t.Error("a stream outlived its transport")
		}
	})
}

func TestStreamReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, other, at, n := wire(t)
		defer n.Close()
		conn, err := other.Dial(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = conn.Write(make([]byte, 2*maxStream)) }()
		got, err := io.Copy(io.Discard, <-tr.StreamCh())
		if got != maxStream || err == nil {
			t.Errorf("read %d bytes, %v", got, err)
		}
		_ = tr.Shutdown()
		_ = conn.Close()
	})
}

func TestShutdownEndsDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _, _, n := wire(t)
		defer n.Close()
		n.Partition([]netip.Addr{ct.Addr(2)})
		done := make(chan error)
		go func() {
			_, err := tr.DialTimeout(netip.AddrPortFrom(ct.Addr(2), 1813).String(), time.Hour)
			done <- err
		}()
		synctest.Wait()
		start := time.Now()
		_ = tr.Shutdown()
		if err := <-done; !errors.Is(err, context.Canceled) || time.Since(start) != 0 {
			t.Errorf("the dial ended with %v after %v", err, time.Since(start))
		}
		if _, err := tr.DialTimeout("node2.example.com:1813", time.Second); err == nil {
			t.Error("dialled a name")
		}
		if _, err := tr.WriteTo(nil, "node2.example.com:1813"); err == nil {
			t.Error("sent to a name")
		}
	})
}

func TestPacketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, other, at, n := wire(t)
		defer n.Close()
		from, err := other.ListenPacket(netip.AddrPortFrom(other.Addr(), 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{maxPacket + 1, 0, maxPacket} {
			if _, err := from.WriteTo(make([]byte, size), net.UDPAddrFromAddrPort(at)); err != nil {
				t.Fatal(err)
			}
		}
		if p := <-tr.PacketCh(); len(p.Buf) != maxPacket || p.From.String() != from.LocalAddr().String() {
			t.Errorf("%d bytes from %v", len(p.Buf), p.From)
		}
		if got := tr.g.count.packets.Load(); got != 2 {
			t.Errorf("%d packets refused, want 2", got)
		}
		_ = tr.Shutdown()
	})
}

func TestMembersAreBounded(t *testing.T) {
	var m members
	m.init()
	for i := range maxMembers {
		m.table[cluster.UUID{byte(i), byte(i >> 8), 1}] = Member{State: StateGone}
	}
	if m.room(cluster.UUID{1, 1, 1}) != nil || m.room(cluster.UUID{1, 1, 2}) == nil {
		t.Error("a known one must fit, a new one must not")
	}
}

func TestBackoff(t *testing.T) {
	j, now, id := joins{}, ct.Epoch0, ct.NodeID(1)
	var tries []time.Duration
	for at := now; at.Sub(now) < 10*time.Minute; at = at.Add(tickEvery) {
		if j.due(id, at) {
			tries = append(tries, at.Sub(now))
		}
	}
	// 1, 2, 4, 8, 16, then 30 s, each and up to half of it more.
	if n := len(tries); n < 15 || n > 28 || tries[0] != 0 {
		t.Errorf("%d tries in ten minutes: %v", n, tries)
	}
	for i := 7; i < len(tries); i++ {
		if gap := tries[i] - tries[i-1]; gap < maxBackoff || gap > 2*maxBackoff {
			t.Errorf("tries %v apart", gap)
		}
	}
}
