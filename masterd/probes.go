package masterd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/verify"
	"rolekey/pki"
	"rolekey/rpc"
)

// Probe implements verify.Prober.
func (c calls) Probe(ctx context.Context, node cluster.NodeID, r rpc.ProbeRequest) (rpc.ProbeReply, error) {
	var reply rpc.ProbeReply
	err := c.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Noded}, rpc.MethodProbe, "", r, &reply)
	return reply, err
}

// OldMap implements verify.Prober: the last one that changed the authority,
// which candidates keep and which the voters of today may have signed.
func (c calls) OldMap() (candmap.Envelope, bool) {
	chain := c.member.keeper.Chain()
	if len(chain) == 0 {
		return candmap.Envelope{}, false
	}
	return chain[len(chain)-1], true
}

// Outsider implements verify.Prober. Key and certificate exist in memory only,
// and are of no use: no map will list them.
func (c calls) Outsider(s *state.State) (verify.Outsider, error) {
	ca, err := pki.ParseCA(s.CA.Cert, s.CA.Key)
	if err != nil {
		return nil, err
	}
	n := s.Node(s.Master)
	if n == nil {
		return nil, fmt.Errorf("the state names no master")
	}
	key, err := pki.GenerateKey()
	if err != nil {
		return nil, err
	}
	cfg := &c.member.d.cfg
	der, err := ca.Issue(pki.Request{Kind: pki.KindCandidate, Node: n.UUID, Name: n.Name, Addresses: n.Addresses, PublicKey: key.Public()}, cfg.Now())
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pair, err := pki.NewPair(cert, key)
	if err != nil {
		return nil, err
	}
	shown := pair.TLS()
	client, err := rpc.NewClient(rpc.ClientConfig{
		Certificate: func() (*tls.Certificate, error) { return &shown, nil },
		Roots:       c.member.self.roots.Load, View: c.member.keeper.View, Hints: c.member.d.hinted,
		LocalAddr: cfg.bindAddress(), Dial: cfg.Dial, Log: c.member.log,
	})
	if err != nil {
		return nil, err
	}
	return outsider{client}, nil
}

type outsider struct{ *rpc.Client }

// Read implements verify.Outsider. What it reads is thrown away.
func (o outsider) Read(ctx context.Context, node cluster.NodeID) error {
	return o.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Noded}, rpc.MethodState, "", nil, new([]byte))
}
