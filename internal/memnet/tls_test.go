package memnet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// certificate is self-signed for addrB, good at the bubble's time, and its own
// root.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{addrB.AsSlice()},
		IsCA:        true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

func TestMutualTLSAndHTTP2InBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		n.SetLatency(50 * time.Millisecond)
		cert, pool := certificate(t)
		conf := &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: pool,
			ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"},
		}
		answer := func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Proto+" "+r.TLS.PeerCertificates[0].SerialNumber.String())
		}
		server := &http.Server{Handler: http.HandlerFunc(answer), TLSConfig: conf.Clone()}
		l := listen(t, n.Host(addrB), 1811)
		var wg sync.WaitGroup
		wg.Go(func() { _ = server.ServeTLS(l, "", "") })
		tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: conf.Clone(), DialContext: n.Host(addrA).DialContext}
		requests(t, &http.Client{Transport: tr, Timeout: 10 * time.Second})
		n.Partition([]netip.Addr{addrB})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := get(ctx, &http.Client{Transport: tr}); err == nil {
			t.Error("a request crossed the partition")
		}
		tr.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		n.Close()
		wg.Wait()
	})
}

// requests makes many requests at once, over one connection.
func requests(t *testing.T, client *http.Client) {
	t.Helper()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if body, err := get(t.Context(), client); err != nil || body != "HTTP/2.0 1" {
				t.Errorf("answer %q, %v", body, err)
			}
		})
	}
	wg.Wait()
}

func get(ctx context.Context, client *http.Client) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://192.0.2.2:1811/", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
