package masterd

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
)

// refreshPause is how often masterd asks noded for the view although noded
// tells of every change by itself: it covers a noded that was restarted.
const refreshPause = 2 * time.Second

// askNodeLimit bounds that question.
const askNodeLimit = 10 * time.Second

// standing is where this node stands in its cluster. A new one is made when
// the node joins, leaves or is admitted again; the keeper within moves on.
type standing struct {
	cluster     cluster.UUID
	node        cluster.NodeID
	incarnation uint64
	addresses   []netip.Addr
	ports       cluster.Ports
	roots       *atomic.Pointer[pki.Roots] // follow what noded says
	keeper      *candmap.Keeper
}

// same reports whether a view is of this very standing.
func (s *standing) same(v *rpc.LocalViewReply) bool {
	return s != nil && s.cluster == v.Cluster && s.node == v.Node && s.incarnation == v.Incarnation && s.ports == v.Ports
}

// intake takes what noded says: it has verified it, as root on this machine.
// Noded tells and is asked; of one view there must be one standing.
func (d *Daemon) intake(ctx context.Context, v *rpc.LocalViewReply) error {
	end, err := d.beginIntake(ctx)
	if err != nil {
		return err
	}
	defer end()
	return d.take(ctx, v, false)
}

func (d *Daemon) beginIntake(ctx context.Context) (end func(), err error) {
	select {
	case d.intakes <- struct{}{}:
		return func() { <-d.intakes }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// take takes a view, whole or what is new of it; whoever calls it has begun an
// intake.
func (d *Daemon) take(ctx context.Context, v *rpc.LocalViewReply, whole bool) error {
	d.takeEvictions(v.Evicted)
	d.hints.Store(&v.Hints)
	if v.Cluster.IsZero() {
		d.setStanding(nil)
		return nil
	}
	self := d.standing()
	known := self.same(v)
	if known {
		if err := d.trust(self, v); err != nil {
			return err
		}
		err := deliver(ctx, self.keeper, v)
		if known = !vouched(self.keeper, v, whole, err); known && err != nil {
			return err
		}
	}
	if !known {
		var err error
		if self, err = d.newStanding(ctx, v); err != nil {
			return err
		}
		d.setStanding(self)
	}
	if v.Beacon != nil {
		if _, err := self.keeper.DeliverBeacon(*v.Beacon); err != nil && cluster.CodeOf(err) != cluster.CodeMapOlder {
			d.log.Warn("beacon from noded is refused", zap.Error(err))
		}
	}
	d.vault.settle(d.listed())
	d.settleRecovery(self.keeper.View().Map)
	d.poke()
	return nil
}

// vouched reports whether a map was refused that noded took because local root
// vouched for it. If masterd lacks what lies between, it must be the whole view.
func vouched(k *candmap.Keeper, v *rpc.LocalViewReply, whole bool, err error) bool {
	switch cluster.CodeOf(err) {
	case cluster.CodeTrustExpired:
		return true
	case cluster.CodeBadSignature:
		m, err := candmap.DecodeMap(v.Map.Payload)
		return whole && err == nil && m.At().Newer(k.View().At())
	}
	return false
}

func deliver(ctx context.Context, k *candmap.Keeper, v *rpc.LocalViewReply) error {
	_, err := k.Deliver(ctx, append(v.Chain, v.Map), v.Docs)
	if errors.Is(err, candmap.ErrKnown) || cluster.CodeOf(err) == cluster.CodeMapOlder {
		return nil
	}
	return err
}

func (d *Daemon) newStanding(ctx context.Context, v *rpc.LocalViewReply) (*standing, error) {
	s := &standing{cluster: v.Cluster, node: v.Node, incarnation: v.Incarnation, addresses: v.Addresses, ports: v.Ports, roots: new(atomic.Pointer[pki.Roots])}
	if err := s.trust(v); err != nil {
		return nil, fmt.Errorf("take standing: %w", err)
	}
	k, err := candmap.NewKeeper(candmap.KeeperConfig{
		Cluster: v.Cluster, Store: candmap.NewMemStore(), Clocks: d.cfg.Clocks, Effects: d, Log: d.log.Named("map"),
	})
	if err != nil {
		return nil, fmt.Errorf("take standing: %w", err)
	}
	if _, err := k.Join(ctx, v.Map, v.Map.Hash(), nil, v.Docs); err != nil {
		return nil, fmt.Errorf("take standing: %w", err)
	}
	if err := k.Fill(ctx, v.Chain); err != nil {
		d.log.Info("older maps are not complete here", zap.Error(err))
	}
	s.keeper = k
	return s, nil
}

// trust has a running member go by the authorities that noded trusts.
func (d *Daemon) trust(s *standing, v *rpc.LocalViewReply) error {
	was := s.roots.Load()
	if err := s.trust(v); err != nil || s.roots.Load() == was {
		return err
	}
	d.mu.Lock()
	m := d.member
	d.mu.Unlock()
	if m != nil {
		m.server.Reintroduce()
	}
	return nil
}

// trust takes the authorities that noded trusts.
func (s *standing) trust(v *rpc.LocalViewReply) error {
	ders := v.CAs
	if len(ders) == 0 {
		ders = [][]byte{v.CA}
	}
	if held := s.roots.Load(); held != nil && slices.EqualFunc(held.Certificates(), ders, func(c *x509.Certificate, der []byte) bool { return bytes.Equal(c.Raw, der) }) {
		return nil
	}
	roots, err := rootsOf(ders...)
	if err != nil {
		return fmt.Errorf("take authorities: %w", err)
	}
	s.roots.Store(roots)
	return nil
}

// name is what this node is called now.
func (s *standing) name() cluster.Name {
	if n := rosterNode(s.keeper, s.node); n != nil {
		return n.Name
	}
	return ""
}

func rosterNode(k *candmap.Keeper, id cluster.NodeID) *candmap.RosterNode {
	if r := k.View().Roster; r != nil {
		return r.Node(id)
	}
	return nil
}

func (d *Daemon) setStanding(s *standing) {
	d.mu.Lock()
	d.self = s
	d.mu.Unlock()
	d.poke()
}

// Revoke implements candmap.Effects: masterd's own gate follows the map too,
// before noded acknowledges it.
func (d *Daemon) Revoke(_ context.Context, old, next *candmap.View) {
	d.mu.Lock()
	m := d.member
	d.mu.Unlock()
	if m == nil {
		return
	}
	m.client.Recheck()
	if err := m.server.Revoke(old, next); err != nil {
		d.log.Error("calls of a revoked peer still run", zap.Error(err))
	}
	m.seen.keep(next.Map) // after the last message of a life that ended
}

// Apply implements candmap.Effects; masterd writes no files by the map.
func (d *Daemon) Apply(context.Context, *candmap.View) error { return nil }

// followNode asks noded for the view, at first and now and then.
func (d *Daemon) followNode(ctx context.Context) error {
	c := d.nodedClient()
	for {
		if err := d.askNode(ctx, c); err != nil && ctx.Err() == nil {
			d.log.Debug("noded does not tell the view", zap.Error(err))
		}
		if err := pause(ctx, refreshPause); err != nil {
			return err
		}
	}
}

// askNode takes the view that noded tells. Nothing that noded tells by itself is
// taken meanwhile: it would be newer than this answer, and would be undone.
func (d *Daemon) askNode(ctx context.Context, c *rpc.LocalClient) error {
	end, err := d.beginIntake(ctx)
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, askNodeLimit)
	defer cancel()
	var v rpc.LocalViewReply
	if err := c.Do(ctx, http.MethodGet, rpc.LocalView, nil, &v); err != nil {
		return err
	}
	return d.take(ctx, &v, true)
}

// nodedClient believes root and its own user only: whoever else made a socket
// at noded's path could otherwise say who the candidates are.
func (d *Daemon) nodedClient() *rpc.LocalClient {
	return rpc.NewLocalClient(func(ctx context.Context) (net.Conn, error) {
		return d.cfg.DialLocal(ctx, d.cfg.Paths.NodedSock())
	}, 0, uint32(os.Geteuid()))
}
