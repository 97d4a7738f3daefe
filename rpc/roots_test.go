package rpc

import (
	"context"
	"crypto"
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/pki"
)

// TestG1CertificateOfNoAuthority makes its holder a stranger, who delivers maps
// and may do nothing else, whoever the certificate says that it is.
func TestG1CertificateOfNoAuthority(t *testing.T) {
	w := newWorld(t)
	other, err := pki.NewCA(ct.Cluster, "cluster.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	srv := w.serve(4, nil)
	for _, kind := range []pki.Kind{pki.KindCandidate, pki.KindIdentity} {
		cert := w.issue(other, kind, 1, time.Now())
		for _, m := range NodedMethods() {
			path := m.Path
			if m.variable() != "" {
				path = "/v1/roster/" + cluster.Digest{}.String()
			}
			want := 200
			if m.Tier > TierOpen {
				want = cluster.CodeNoCertificate.HTTPStatus()
			}
			body := "{}"
			if m.MaxBody == 0 {
				body = ""
			}
			if status, _, text := ask(t, w, srv, cert, m.Verb, path, body); status != want {
				t.Errorf("%s with a %s certificate: status %d, %s", m.Name, kind, status, text)
			}
		}
	}
}

// TestStrangerIsKnownLater: who was a stranger for want of an authority is none
// as soon as that is trusted, and its connections end for that.
func TestStrangerIsKnownLater(t *testing.T) {
	w := newWorld(t)
	next := must(pki.NewCA(ct.Cluster, "cluster.example", time.Now()))
	var roots atomic.Pointer[pki.Roots]
	roots.Store(w.roots)
	var srv *node
	srv = w.serve(4, map[string]Handler{MethodMapPut.Name: func(_ context.Context, q *Request) (any, error) {
		var d MapDelivery
		if err := q.Decode(&d); err != nil {
			return nil, err
		}
		roots.Store(must(pki.NewRoots(w.ca.Cert, next.Cert)))
		srv.Reintroduce()
		return MapAck{}, nil
	}}, func(c *ServerConfig) { c.Roots = roots.Load })
	cert := w.reissue(next, w.cert(pki.KindIdentity, 2), 2)
	c := w.client(pki.KindIdentity, 2, srv, func(c *ClientConfig) {
		c.Certificate = func() (*tls.Certificate, error) { return cert, nil }
	})
	to := Target{Node: ct.NodeID(4), Daemon: Noded}
	if err := c.Call(t.Context(), to, MethodMapGet, "0.0", nil, nil); cluster.CodeOf(err) != cluster.CodeNoCertificate {
		t.Errorf("as a stranger: %v", err)
	}
	if err := c.Call(t.Context(), to, MethodMapPut, "", MapDelivery{}, nil); err != nil {
		t.Errorf("the delivery that makes it known: %v", err)
	}
	if err := c.Call(t.Context(), to, MethodMapGet, "0.0", nil, nil); err != nil {
		t.Errorf("known: %v", err)
	}
}

// TestRootsSwapped: the authority changes, and so do the certificates, while
// calls are made all the time. None fails: all trust the next authority before
// it issues, and the one before for as long as its certificates are used.
func TestRootsSwapped(t *testing.T) {
	w := newWorld(t)
	next, err := pki.NewCA(ct.Cluster, "cluster.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var roots atomic.Pointer[pki.Roots]
	var server, client atomic.Pointer[tls.Certificate]
	roots.Store(w.roots)
	server.Store(w.cert(pki.KindServer, 4))
	client.Store(w.cert(pki.KindIdentity, 2))
	srv := w.serve(4, nil, func(c *ServerConfig) {
		c.Roots, c.Certificate = roots.Load, func() (*tls.Certificate, error) { return server.Load(), nil }
	})
	c := w.client(pki.KindIdentity, 2, srv, func(c *ClientConfig) {
		c.Roots, c.Certificate = roots.Load, func() (*tls.Certificate, error) { return client.Load(), nil }
	})
	call := func() error {
		return c.Call(context.Background(), Target{Node: ct.NodeID(4), Daemon: Noded}, MethodMapGet, "0.0", nil, nil)
	}
	for what, step := range []func(){
		func() {},
		func() { roots.Store(must(pki.NewRoots(w.ca.Cert, next.Cert))) },
		func() { roots.Store(must(pki.NewRoots(next.Cert, w.ca.Cert))) },
		func() { server.Store(w.reissue(next, server.Load(), 4)) },
		func() { c.Forget(ct.NodeID(4)) },
		func() { client.Store(w.reissue(next, client.Load(), 2)) },
		func() { roots.Store(must(pki.NewRoots(next.Cert))) },
		func() { c.Forget(ct.NodeID(4)) },
	} {
		step()
		if err := call(); err != nil {
			t.Errorf("after step %d: %v", what, err)
		}
	}
	client.Store(w.cert(pki.KindIdentity, 2)) // of the old authority
	if err := call(); cluster.CodeOf(err) != cluster.CodeNoCertificate {
		t.Errorf("with a certificate of the former authority: %v", err)
	}
	client.Store(nil)
	server.Store(w.cert(pki.KindServer, 4))
	c.Forget(ct.NodeID(4))
	if err := call(); cluster.CodeOf(err) != cluster.CodeIdentityMismatch {
		t.Errorf("to a server with a certificate of the former authority: %v", err)
	}
}

// reissue has an authority sign a certificate for the same key.
func (w *world) reissue(ca *pki.CA, cert *tls.Certificate, n int) *tls.Certificate {
	id := must(pki.Identify(cert.Leaf))
	return w.issueFor(ca, id.Kind, n, cert.PrivateKey.(crypto.Signer), time.Now()) //nolint:forcetypeassert // of pki's keys
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
