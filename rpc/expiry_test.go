package rpc

import (
	"context"
	"crypto"
	"crypto/tls"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/pki"
)

// ages of a certificate.
var ages = map[string]struct {
	over          time.Duration // since its end
	ended, lapsed bool
}{
	"at its end":     {0, false, false},
	"ended":          {time.Second, true, false},
	"half the grace": {pki.Grace / 2, true, false},
	"end of grace":   {pki.Grace, true, false},
	"lapsed":         {pki.Grace + time.Second, true, true},
	"for ever":       {50 * 365 * 24 * time.Hour, true, true},
}

// clock sets the world's time.
func (w *world) clock(t time.Time) { w.now.Store(&t) }

// nowOf is for clients whose clock is the world's.
func (w *world) nowOf(c *ClientConfig) { c.Now = w.config(1, "", nil, nil, nil).Now }

// TestG1ExpiredCaller: a certificate that has ended opens nothing. A member's
// still lets it get another one for a while, if its key is in the roster; that of
// a candidate, of the master, or of a former member does not even do that.
func TestG1ExpiredCaller(t *testing.T) {
	for _, who := range []struct {
		kind   pki.Kind
		n      int
		member bool
	}{
		{pki.KindIdentity, 5, true},
		{pki.KindIdentity, 1, true},
		{pki.KindIdentity, former, false},
		{pki.KindCandidate, 1, false},
		{pki.KindCandidate, 2, false},
		{pki.KindCandidate, former, false},
	} {
		for age, a := range ages {
			if !a.ended {
				continue
			}
			w := newWorld(t)
			w.cert(who.kind, who.n)
			w.clock(w.peer(who.kind, who.n).Identity.NotAfter.Add(a.over))
			for daemon, methods := range map[Daemon][]Method{Noded: NodedMethods(), Masterd: MasterdMethods()} {
				srv := w.expiredWorldServer(daemon)
				c := w.client(who.kind, who.n, srv)
				for _, m := range methods {
					want := m.Tier == TierOpen || who.member && !a.lapsed && m.Ended
					err := callAt(t, c, Target{Node: ct.NodeID(4), Daemon: daemon}, m)
					if (err == nil) != want {
						t.Errorf("%s of node %d, %s: %s: %v", who.kind, who.n, age, m.Name, err)
					}
					if len(srv.ran) > 0 != want {
						t.Errorf("%s of node %d, %s: the handler of %s ran: %v", who.kind, who.n, age, m.Name, !want)
					}
					for len(srv.ran) > 0 {
						<-srv.ran
					}
				}
			}
		}
	}
}

// expiredWorldServer is node 4, with a certificate that holds for clients that do
// not look at the world's clock.
func (w *world) expiredWorldServer(daemon Daemon) *node {
	if daemon == Noded {
		return w.serve(4, nil)
	}
	w.change(1, 2, 3, 4)
	return w.serveMasterd(4)
}

func (w *world) serveMasterd(n int) *node {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	return w.serveOn(l, n, pki.KindCandidate, nil)
}

// TestWhatTheExpiredAreTold: the refusal says what is to be done.
func TestWhatTheExpiredAreTold(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	end := w.peer(pki.KindIdentity, 5).Identity.NotAfter
	for over, want := range map[time.Duration]string{time.Hour: "renews it by itself", pki.Grace + time.Hour: "--readd"} {
		w.clock(end.Add(over))
		m := MethodState
		if over > pki.Grace {
			m = MethodMapGet
		}
		err := call(t, w.client(pki.KindIdentity, 5, srv), m)
		wantCode(t, m.Name, err, cluster.CodeNoCertificate)
		if hint := cluster.HintOf(err); !strings.Contains(hint, want) {
			t.Errorf("%v after its end: %v, hint %q", over, err, hint)
		}
	}
	w.clock(end.Add(time.Hour))
	wantCode(t, "removed, and expired", call(t, w.client(pki.KindIdentity, former, srv), MethodMapGet), cluster.CodeNotInRoster)
}

// TestGraceEndsOnOpenConnections: what a certificate that has ended is good for
// ends by the server's clock, on the same connection.
func TestGraceEndsOnOpenConnections(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	end := w.peer(pki.KindIdentity, 5).Identity.NotAfter
	var dials atomic.Int64
	c := w.client(pki.KindIdentity, 5, srv, counted(&dials))
	for _, step := range []struct {
		over time.Duration
		want cluster.Code
	}{{-time.Hour, ""}, {time.Hour, ""}, {pki.Grace, ""}, {pki.Grace + time.Second, cluster.CodeNoCertificate}, {time.Hour, ""}} {
		w.clock(end.Add(step.over))
		wantCode(t, step.over.String(), call(t, c, MethodMapGet), step.want)
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestG4ExpiredAndRemoved: the removal reaches the connection of a member whose
// certificate has ended like any other.
func TestG4ExpiredAndRemoved(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	w.clock(w.peer(pki.KindIdentity, 5).Identity.NotAfter.Add(time.Hour))
	c := w.client(pki.KindIdentity, 5, srv)
	wantCode(t, "in the roster", call(t, c, MethodMapGet), "")
	old, next := w.set(ct.Next(w.m), w.roster(5))
	if err := srv.Revoke(old, next); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "removed", call(t, c, MethodMapGet), cluster.CodeNotInRoster)
}

// TestNotYetValid: a certificate of the future is none, however wrong whose clock
// is.
func TestNotYetValid(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(4, nil)
	w.clock(w.peer(pki.KindIdentity, 5).Identity.NotBefore.Add(-time.Hour))
	if err := call(t, w.client(pki.KindIdentity, 5, srv), MethodMapGet); err == nil {
		t.Error("a certificate was taken before its time")
	}
}

// TestExpiredServer: of a noded whose certificate has ended nothing is asked but
// what makes it fresh and what proves itself; of a masterd nothing at all.
func TestExpiredServer(t *testing.T) {
	for age, a := range ages {
		w := newWorld(t)
		srv := w.serve(4, nil)
		w.clock(w.peer(pki.KindServer, 4).Identity.NotAfter.Add(a.over))
		own := w.issue(w.ca, pki.KindCandidate, 1, time.Now().Add(3*365*24*time.Hour))
		w.certs["candidate/1"] = own
		w.change(1, 2, 3)
		c := w.client(pki.KindCandidate, 1, srv, w.nowOf)
		for _, m := range NodedMethods() {
			if m.Name == MethodSSHProbe.Name {
				continue
			}
			err := call(t, c, m)
			asked := len(srv.ran) > 0
			for len(srv.ran) > 0 {
				<-srv.ran
			}
			want := !a.ended || !a.lapsed && (m.Tier == TierOpen || m.Ended)
			if asked && !want {
				t.Errorf("%s: %s was asked of it", age, m.Name)
			}
			if !want {
				wantCode(t, age+": "+m.Name, err, cluster.CodeIdentityMismatch)
			} else if cluster.CodeOf(err) == cluster.CodeIdentityMismatch {
				t.Errorf("%s: %s was not asked of it: %v", age, m.Name, err)
			}
			if a.lapsed && !strings.Contains(cluster.HintOf(err), "--readd") {
				t.Errorf("%s: %v, hint %q", age, err, cluster.HintOf(err))
			}
		}
	}
	w := newWorld(t)
	srv := w.serveMasterd(2)
	w.clock(w.peer(pki.KindCandidate, 2).Identity.NotAfter.Add(time.Second))
	c := w.client(pki.KindIdentity, 5, srv, w.nowOf)
	for _, m := range MasterdMethods() {
		wantCode(t, m.Name, callAt(t, c, Target{Node: ct.NodeID(2), Daemon: Masterd}, m), cluster.CodeIdentityMismatch)
	}
}

// TestServerHasRenewed: a call that the old certificate does not allow finds the
// new one.
func TestServerHasRenewed(t *testing.T) {
	w := newWorld(t)
	var cert atomic.Pointer[tls.Certificate]
	cert.Store(w.cert(pki.KindServer, 4))
	srv := w.serve(4, map[string]Handler{"state": func(context.Context, *Request) (any, error) { return nil, nil }},
		func(c *ServerConfig) { c.Certificate = func() (*tls.Certificate, error) { return cert.Load(), nil } })
	end := w.peer(pki.KindServer, 4).Identity.NotAfter
	w.certs["candidate/1"] = w.issue(w.ca, pki.KindCandidate, 1, end)
	w.change(1, 2, 3)
	c := w.client(pki.KindCandidate, 1, srv, w.nowOf)
	w.clock(end.Add(time.Hour))
	wantCode(t, "a delivery", call(t, c, MethodMapPut), "")
	wantCode(t, "its state", call(t, c, MethodState), cluster.CodeIdentityMismatch)
	id := must(pki.Identify(cert.Load().Leaf))
	next := w.issueFor(w.ca, pki.KindServer, 4, cert.Load().PrivateKey.(crypto.Signer), end) //nolint:forcetypeassert // of pki's keys
	if must(pki.Identify(next.Leaf)).Pin != id.Pin {
		t.Fatal("another key")
	}
	cert.Store(next)
	wantCode(t, "its state, renewed", call(t, c, MethodState), "")
}

// TestExpiredAllowIsPure: every grant and method, without a connection.
func TestExpiredAllowIsPure(t *testing.T) {
	w := newWorld(t)
	view := w.view.Load()
	for age, a := range ages {
		for _, p := range []*Peer{w.peer(pki.KindIdentity, 4), w.peer(pki.KindCandidate, 2), w.peer(pki.KindCandidate, 1)} {
			for _, v := range []*candmap.View{view, nil} {
				g := Classify(v, p)
				g.until(&p.Identity, p.Identity.NotAfter.Add(a.over))
				if a.ended && g.Tier > TierMember || a.lapsed && g.Tier > TierOpen || g.Ended && (g.Tier != TierMember || !a.ended) {
					t.Errorf("%s: a %s of node %s is %s, ended %v", age, p.Identity.Kind, p.Identity.Node, g.Tier, g.Ended)
				}
			}
		}
	}
}
