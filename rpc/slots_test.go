package rpc

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"

	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/pki"
)

func TestLargeCallsAreBounded(t *testing.T) {
	w := newWorld(t)
	release, began := make(chan struct{}), make(chan struct{}, 10)
	srv := w.serve(4, map[string]Handler{"map-put": func(context.Context, *Request) (any, error) {
		began <- struct{}{}
		<-release
		return nil, nil
	}}, func(c *ServerConfig) { c.Limits.LargeCallsEach = 1 })
	c := w.client("", 0, srv)
	first := make(chan error, 1)
	go func() { first <- call(t, c, MethodMapPut) }()
	<-began
	wantCode(t, "second large call of a stranger", call(t, c, MethodMapPut), cluster.CodeBusy)
	master, second := w.client(pki.KindCandidate, 1, srv), make(chan error, 1)
	go func() { second <- call(t, master, MethodMapPut) }()
	<-began // the master has room of its own
	close(release)
	for _, ch := range []chan error{first, second} {
		if err := <-ch; err != nil {
			t.Error(err)
		}
	}
	wantNoSlots(t, srv)
}

func wantNoSlots(t *testing.T, srv *node) {
	t.Helper()
	srv.slots.mu.Lock()
	defer srv.slots.mu.Unlock()
	if len(srv.slots.each) != 0 || srv.slots.total != [TierCandidate]int{} {
		t.Errorf("slots leak: %v, %v", srv.slots.each, srv.slots.total)
	}
}

// A large answer takes as much memory as a large body, and strangers with slow
// small bodies would hold their connections for longer than others may wait.
func TestCallsThatHoldMemoryAreBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		kind          pki.Kind // of the caller
		n, other      int      // the caller's node, and one that has room all the same
		daemon        Daemon
		method        Method
		want, ofOther cluster.Code
	}{
		"map of a member":           {pki.KindIdentity, 4, 5, Noded, MethodMapGet, cluster.CodeBusy, ""},
		"roster of a member":        {pki.KindIdentity, 4, 5, Noded, MethodRosterGet, cluster.CodeBusy, ""},
		"state of a candidate":      {pki.KindCandidate, 2, 3, Noded, MethodState, cluster.CodeBusy, ""},
		"raft of a candidate":       {pki.KindCandidate, 2, 3, Masterd, MethodRaft, cluster.CodeBusy, ""},
		"admission of a stranger":   {"", 0, 0, Masterd, MethodAdmit, cluster.CodeBusy, cluster.CodeBusy},
		"beacon of a stranger":      {"", 0, 0, Noded, MethodBeaconPut, cluster.CodeBusy, cluster.CodeBusy},
		"beacon of a candidate":     {pki.KindCandidate, 2, 3, Noded, MethodBeaconPut, "", ""},
		"version for a stranger":    {"", 0, 0, Noded, MethodVersion, "", ""},
		"certificate of a member":   {pki.KindIdentity, 4, 5, Masterd, MethodCertificate, "", ""},
		"admission, of a candidate": {pki.KindCandidate, 2, 3, Masterd, MethodAdmit, cluster.CodeBusy, ""},
	} {
		w := newWorld(t)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := map[Daemon]pki.Kind{Noded: pki.KindServer, Masterd: pki.KindCandidate}[tc.daemon]
		srv := w.serveOn(l, 1, served, nil, func(c *ServerConfig) { c.Limits.LargeCallsEach = 1 })
		one := w.client(tc.kind, tc.n, srv)
		hold := fill(w, srv, tc.kind, tc.n)
		err = callAt(t, one, Target{Node: ct.NodeID(1), Daemon: tc.daemon}, tc.method)
		wantCode(t, name, err, tc.want)
		if tc.want != "" && cluster.HintOf(err) == "" {
			t.Errorf("%s: the refusal has no hint", name)
		}
		other := w.client(tc.kind, tc.other, srv)
		wantCode(t, name+", by another", callAt(t, other, Target{Node: ct.NodeID(1), Daemon: tc.daemon}, tc.method), tc.ofOther)
		hold()
		wantCode(t, name+", later", callAt(t, one, Target{Node: ct.NodeID(1), Daemon: tc.daemon}, tc.method), "")
	}
}

// fill takes every slot that a caller may have, until the returned func.
func fill(w *world, srv *node, kind pki.Kind, n int) (release func()) {
	g, c := Grant{}, &conn{net: network(netip.MustParseAddr("127.0.0.1"))}
	if kind != "" {
		g = Classify(w.view.Load(), w.peer(kind, n))
	}
	var keys []slotKey
	for {
		key, ok := srv.slots.take(c, &g)
		if !ok {
			break
		}
		keys = append(keys, key)
	}
	return func() {
		for _, key := range keys {
			srv.slots.give(key)
		}
	}
}

// However many strangers call, members find room, and the other way round.
func TestTiersDoNotShareSlots(t *testing.T) {
	w := newWorld(t)
	l, each := DefaultLimits, DefaultLimits.LargeCallsEach
	s := newSlots(&l)
	take := func(kind pki.Kind, n int) bool {
		g, c := Grant{}, &conn{net: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})}
		if kind != "" {
			g = Classify(w.view.Load(), w.peer(kind, n))
		}
		_, ok := s.take(c, &g)
		return ok
	}
	var strangers int
	for n := range 100 {
		for take("", n) {
			strangers++
		}
	}
	if strangers != l.LargeCalls {
		t.Errorf("%d large calls of strangers", strangers)
	}
	for _, c := range []struct {
		kind pki.Kind
		n    int
		want int
	}{{pki.KindIdentity, 4, each}, {pki.KindIdentity, 5, each}, {pki.KindCandidate, 1, 8 * each}, {pki.KindCandidate, 2, 8 * each}, {pki.KindCandidate, 3, 8 * each}} {
		var n int
		for take(c.kind, c.n) {
			n++
		}
		if n != c.want {
			t.Errorf("%s of node %d has %d large calls, want %d", c.kind, c.n, n, c.want)
		}
	}
	if each < 5 {
		t.Error("five nodes cannot join at once from behind one address")
	}
}

// An answer is in memory until its reader has taken it.
func TestSlotIsHeldWhileTheAnswerIsRead(t *testing.T) {
	w := newWorld(t)
	big := make([]byte, 16<<20)
	srv := w.serve(4, map[string]Handler{"map-get": func(context.Context, *Request) (any, error) { return big, nil }},
		func(c *ServerConfig) { c.Limits.LargeCallsEach = 1 })
	slow := w.open(srv, w.cert(pki.KindIdentity, 4))
	if _, err := slow.Write([]byte("GET /v1/map?from=0.0 HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(slow, make([]byte, 1000)); err != nil { // the handler has returned
		t.Fatal(err)
	}
	c := w.client(pki.KindIdentity, 4, srv)
	wantCode(t, "second map", call(t, c, MethodMapGet), cluster.CodeBusy)
	_ = slow.Close()
	for cluster.CodeOf(call(t, c, MethodMapGet)) == cluster.CodeBusy && t.Context().Err() == nil {
	}
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	wantNoSlots(t, srv)
}
