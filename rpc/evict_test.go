package rpc

import (
	"crypto/tls"
	"sync/atomic"
	"testing"

	"rolekey/cluster"
	"rolekey/pki"

	ct "rolekey/candmap/candmaptest"
)

// An evicted master has what a stranger has, on open connections and on new
// ones, until that is taken back; its node's identity stays a member's.
func TestG3EvictedIsRefused(t *testing.T) {
	w := newWorld(t)
	var evicted atomic.Pointer[cluster.NodeID]
	srv := w.serve(4, nil, func(c *ServerConfig) {
		c.Evicted = func(id cluster.NodeID) bool { e := evicted.Load(); return e != nil && *e == id }
	})
	regrade := func(id *cluster.NodeID) {
		evicted.Store(id)
		if err := srv.Revoke(w.view.Load(), w.view.Load()); err != nil {
			t.Fatal(err)
		}
	}
	master, other := w.client(pki.KindCandidate, 1, srv), w.client(pki.KindCandidate, 2, srv)
	wantCode(t, "before", call(t, master, MethodKeyCreate), "")
	open, bystander := w.open(srv, w.cert(pki.KindCandidate, 1)), w.open(srv, w.cert(pki.KindCandidate, 2))

	regrade(new(ct.NodeID(1)))
	wantClosed(t, "the open connection", open)
	for _, m := range NodedMethods() {
		want := cluster.CodeEvicted
		if m.Tier == TierOpen {
			want = ""
		}
		wantCode(t, m.Name+" of the evicted master", call(t, master, m), want)
	}
	wantCode(t, "its identity", call(t, w.client(pki.KindIdentity, 1, srv), MethodMapGet), "")
	wantCode(t, "another candidate", call(t, other, MethodState), "")
	stays(t, bystander)

	regrade(nil)
	wantCode(t, "after", call(t, master, MethodKeyCreate), "")
}

// stays fails the test if the server has closed the connection.
func stays(t *testing.T, c *tls.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1024)); err != nil {
		t.Error(err)
	}
}
