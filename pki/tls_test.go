package pki

import (
	"crypto/tls"
	"net"
	"testing"
)

// The certificates work in a real TLS 1.3 handshake, and both ends export the
// same value, other than that of another connection.
func TestTLSHandshakeAndExporter(t *testing.T) {
	ca := newTestCA(t)
	roots := must(NewRoots(ca.Cert))(t)
	pair := func(kind Kind) Pair {
		key := newKey(t)
		r := request(t, kind)
		r.PublicKey = key.Public()
		return must(NewPair(issue(t, ca, r), key))(t)
	}
	client, server := pair(KindIdentity), pair(KindServer)
	var values [][ExporterSize]byte
	for range 2 {
		c, s := handshake(t, roots, client, server)
		vc, vs := must(Exporter(&c))(t), must(Exporter(&s))(t)
		if vc != vs {
			t.Error("client and server export different values")
		}
		values = append(values, vc)
	}
	if values[0] == values[1] {
		t.Error("two connections export the same value")
	}
	if _, err := Exporter(&tls.ConnectionState{HandshakeComplete: true, Version: tls.VersionTLS12}); err == nil {
		t.Error("exported from TLS 1.2")
	}
	if _, err := NewPair(client.Cert, server.Key()); err == nil {
		t.Error("joined a certificate and a foreign key")
	}
}

func handshake(t *testing.T, roots *Roots, client, server Pair) (c, s tls.ConnectionState) {
	t.Helper()
	check := func(kind Kind) func(tls.ConnectionState) error {
		return func(cs tls.ConnectionState) error {
			_, err := VerifyChain(roots, cs.PeerCertificates, kind, testNow)
			return err
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	srv := tls.Server(b, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server.TLS()}, SessionTicketsDisabled: true,
		ClientAuth: tls.RequireAnyClientCert, VerifyConnection: check(KindIdentity),
	})
	done := make(chan error, 1)
	go func() { done <- srv.Handshake() }()
	cli := tls.Client(a, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{client.TLS()},
		InsecureSkipVerify: true, VerifyConnection: check(KindServer), // nodes are verified by kind and pin, not by name
	})
	if err := cli.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return cli.ConnectionState(), srv.ConnectionState()
}
