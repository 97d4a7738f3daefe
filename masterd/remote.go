package masterd

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/task"
	"rolekey/internal/webserver"
	"rolekey/masterd/rapi"
	"rolekey/masterd/state"
	"rolekey/pki"
)

// rapiRetry is how long a candidate waits before it tries again to listen.
const rapiRetry = 5 * time.Second

// serveRAPI serves RAPI over HTTPS for as long as this node is a candidate. A
// port that is taken is no reason to stop being one.
func (m *member) serveRAPI(ctx context.Context) error {
	logins := rapi.NewLogins(m.current, m.d.cfg.Now)
	var addrs []netip.AddrPort
	for _, a := range m.d.cfg.listenAddresses() {
		addrs = append(addrs, netip.AddrPortFrom(a, m.self.ports.RAPI))
	}
	certs := &rapiCert{state: m.d.State, self: m.self, now: m.d.cfg.Now}
	handler := rapi.NewRemote(m.d, m.d.cfg.Now, logins.Identify, m.d.audit.Write)
	g := task.New(ctx)
	serve := func(ctx context.Context, listen func() ([]net.Listener, error)) error {
		return m.serveAt(ctx, listen, webserver.Config{Certificate: certs.get, Handler: handler, Log: m.log.Named("rapi")})
	}
	g.Go("own addresses", func(ctx context.Context) error {
		return serve(ctx, func() ([]net.Listener, error) { return m.d.cfg.Listen(ctx, addrs) })
	})
	g.Go("cluster address", func(ctx context.Context) error {
		return m.followAddress(ctx, func(ctx context.Context, at netip.AddrPort) {
			_ = serve(ctx, func() ([]net.Listener, error) { // it ends with ctx alone
				l, err := m.d.cfg.ListenAway(ctx, at)
				return []net.Listener{l}, err
			})
		})
	})
	return g.Wait()
}

// serveAt serves until ctx ends.
func (m *member) serveAt(ctx context.Context, listen func() ([]net.Listener, error), cfg webserver.Config) error {
	for {
		listeners, err := listen()
		if err == nil {
			cfg.Listeners = listeners
			err = webserver.Serve(ctx, cfg)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m.log.Warn("RAPI is not served over the network; trying again", zap.Uint16("port", m.self.ports.RAPI), zap.Error(err))
		if err := pause(ctx, rapiRetry); err != nil {
			return err
		}
	}
}

// current is the state that callers over the network are judged by. A candidate
// that is cut off may not have heard that one of them was removed, so it serves
// nobody once its map is stale, as the gate of RPC does (docs/candidate-map.rst).
func (m *member) current() (*state.State, error) {
	if v := m.keeper.View(); !m.keeper.Fresh() && v.Map != nil && v.Map.Policy == cluster.PolicyStrict {
		return nil, cluster.Errorf(cluster.CodeMapStale, "this candidate has heard nothing from the cluster in time, and does not know who may use the remote API").
			WithHint("use the master or another candidate; on this node, root can use the local socket")
	}
	return m.d.State()
}

// rapiCert is what RAPI's server shows: the administrator's own certificate, or
// one that this candidate issues to itself, whose key never leaves its memory.
type rapiCert struct {
	state func() (*state.State, error)
	self  standing
	now   func() time.Time

	mu    sync.Mutex
	known *tls.Certificate
	facts rapiFacts // that it was made of
	until time.Time
}

// rapiFacts are what a certificate depends on.
type rapiFacts struct {
	own, ca string
	since   time.Time
	names   string
}

func (c *rapiCert) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s, err := c.state()
	if err != nil {
		return nil, err
	}
	names, addrs := c.reached(s)
	facts := rapiFacts{string(s.RAPI.Cert), string(s.CA.Cert), s.RAPI.Since, fmt.Sprint(names, addrs)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known != nil && c.facts == facts && c.now().Before(c.until) {
		return c.known, nil
	}
	made, err := c.make(s, names, addrs)
	if err != nil {
		return nil, fmt.Errorf("make RAPI's certificate: %w", err)
	}
	c.known, c.facts = made, facts
	c.until = pki.RenewAt(made.Leaf.NotBefore, made.Leaf.NotAfter, cluster.DigestOf(made.Certificate[0]))
	return made, nil
}

// reached lists by what names and addresses clients reach this candidate.
func (c *rapiCert) reached(s *state.State) ([]cluster.Name, []netip.Addr) {
	var names []cluster.Name
	addrs := c.self.addresses
	if n := s.Node(c.self.node); n != nil {
		names, addrs = append(names, n.Name), n.Addresses
	}
	if a := s.Params.MasterAddress; a != nil {
		addrs = append(addrs[:len(addrs):len(addrs)], a.Address.Addr())
	}
	return append(names, s.Cluster.Name), addrs
}

func (c *rapiCert) make(s *state.State, names []cluster.Name, addrs []netip.Addr) (*tls.Certificate, error) {
	if len(s.RAPI.Cert) > 0 {
		pair, err := tls.X509KeyPair(s.RAPI.Cert, s.RAPI.Key.Reveal()) // also when it has expired: clients complain, and verify does
		if err != nil {
			return nil, errors.New("the administrator's own certificate is not readable")
		}
		return &pair, nil
	}
	ca, err := pki.ParseCA(s.CA.Cert, s.CA.Key)
	if err != nil {
		return nil, err
	}
	key, err := pki.GenerateKey()
	if err != nil {
		return nil, err
	}
	der, err := ca.IssueRAPI(pki.RAPIRequest{Node: c.self.node, Names: names, Addresses: addrs, PublicKey: key.Public()}, c.now())
	if err != nil {
		return nil, err
	}
	leaf, err := pki.ParseCertDER(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: crypto.PrivateKey(key), Leaf: leaf}, nil
}
