package vcluster

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/seal"
)

// Loot is what root on a candidate can steal: the keys of the node, used
// outside of its daemons.
type Loot struct {
	Client  *tls.Certificate   // the candidate's, for calls
	Signing ed25519.PrivateKey // of maps and beacons

	c      *Cluster
	caller *rpc.Client
}

func pemOf(text []byte) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	return block.Bytes, nil
}

// Steal takes the keys of a candidate from its disk.
func (n *Node) Steal() *Loot {
	n.c.t.Helper()
	v, err := n.View()
	n.c.must(err)
	ring, err := seal.Open(n.at.Keyring(), seal.Context{Cluster: v.Cluster, Node: v.Node, Incarnation: v.Incarnation})
	n.c.must(err)
	text, err := os.ReadFile(n.at.CandidateCert())
	n.c.must(err)
	secret, err := ring.OpenFile(n.at.CandidateKey(), "candidate-key")
	n.c.must(err)
	cert, err := pairOf(text, secret)
	n.c.must(err)
	l := n.thief(cert)
	seed, err := ring.OpenFile(n.at.SigningKey(), "signing-key")
	n.c.must(err)
	l.Signing = ed25519.NewKeyFromSeed(seed.Reveal())
	return l
}

// thief makes calls with a certificate from the node's address.
func (n *Node) thief(cert *tls.Certificate) *Loot {
	n.c.t.Helper()
	l := &Loot{c: n.c, Client: cert}
	var err error
	l.caller, err = rpc.NewClient(rpc.ClientConfig{
		Certificate: func() (*tls.Certificate, error) { return l.Client, nil },
		Dial: func(ctx context.Context, _ netip.Addr, to netip.AddrPort) (net.Conn, error) {
			return n.Host.Dial(ctx, to)
		},
	})
	n.c.must(err)
	n.c.t.Cleanup(func() { _ = l.caller.Close() }) // it never fails
	return l
}

func pairOf(text []byte, secret cluster.Secret) (*tls.Certificate, error) {
	cert, err := pki.ParseCert(text)
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseKey(secret)
	if err != nil {
		return nil, err
	}
	pair, err := pki.NewPair(cert, key)
	if err != nil {
		return nil, err
	}
	t := pair.TLS()
	return &t, nil
}

// Call makes a call with the stolen key, on a connection of its own, from the
// node's address. The thief does not mind who answers.
func (l *Loot) Call(to *Node, d rpc.Daemon, m rpc.Method, arg string, req, resp any) error {
	return l.CallWith(context.Background(), to, d, m, arg, req, resp)
}

// CallWith is Call with a context, which may carry a stamp.
func (l *Loot) CallWith(ctx context.Context, to *Node, d rpc.Daemon, m rpc.Method, arg string, req, resp any) error {
	port := cluster.DefaultPorts.Noded
	if d == rpc.Masterd {
		port = cluster.DefaultPorts.Masterd
	}
	anyone := func(tls.ConnectionState) error { return nil }
	return l.caller.Call(ctx, rpc.Target{Addr: netip.AddrPortFrom(to.Addr, port), Expect: anyone}, m, arg, req, resp)
}

// Refused fails the test unless err is a refusal with one of the codes.
func (c *Cluster) Refused(what string, err error, codes ...cluster.Code) {
	c.t.Helper()
	if err == nil {
		c.t.Errorf("%s: it was served", what)
		return
	}
	var coded *cluster.Error
	if !errors.As(err, &coded) {
		c.t.Errorf("%s: no refusal: %v", what, err)
		return
	}
	for _, code := range codes {
		if coded.Code == code {
			return
		}
	}
	c.t.Errorf("%s: refused with %s (%s), want %v", what, coded.Code, fmt.Sprint(err), codes)
}

// State asks for what only candidates may see.
func (l *Loot) State(of *Node) error { return l.Call(of, rpc.Noded, rpc.MethodState, "", nil, nil) }
