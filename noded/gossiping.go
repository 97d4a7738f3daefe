package noded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/rpc"
)

// openGossip prepares the safety net under the master's pushes. What arrives by
// it is a beacon that proves itself; a beacon of a newer map leads to a pull.
func (m *member) openGossip(dir string) error {
	key, err := readSmall(filepath.Join(dir, gossipFile))
	if err == nil && len(key) != gossip.KeySize {
		err = errors.New("it is damaged or missing")
	}
	if err != nil {
		return fmt.Errorf("read gossip key: %w", err)
	}
	advertise := m.id.Addresses[0]
	if n := m.self(); n != nil {
		advertise = n.Addresses[0]
	}
	bind := m.cfg.bindAddress()
	switch {
	case bind.IsValid():
	case advertise.Is4():
		bind = netip.IPv4Unspecified()
	default:
		bind = netip.IPv6Unspecified()
	}
	m.gossip, err = gossip.New(gossip.Config{
		Self: m.id.Node, BindAddr: bind, Port: m.id.Ports.Gossip, AdvertiseAddr: advertise,
		Key: cluster.NewSecret(key), Holder: m.keeper, OnNews: func(candmap.Envelope) { m.changed() }, Log: m.log.Named("gossip"),
		Network: m.cfg.Gossip,
	})
	return err
}

// Pauses of the search for a new gossip key: the master makes it right after it
// has removed a node.
const (
	rekeyFirst = 250 * time.Millisecond
	rekeyTries = 6
	// rekeyOverlap is how long the old key is good beside the new one, so that
	// nodes which have the one still hear those which have the other.
	rekeyOverlap = 30 * time.Second
)

// lostNode reports whether a node of the old roster is not in the new one.
func lostNode(old, next *candmap.Roster) bool {
	if old == nil || next == nil || old == next {
		return false
	}
	return slices.ContainsFunc(old.Nodes(), func(n candmap.RosterNode) bool { return next.Node(n.UUID) == nil })
}

// followGossipKey fetches the new gossip key after a node was removed. What it
// misses comes with the next certificate: the key is a fence, and no more.
func (m *member) followGossipKey(ctx context.Context) error {
	for {
		select {
		case <-m.rekeyNow:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for wait, tries := rekeyFirst, 0; tries < rekeyTries; wait, tries = 2*wait, tries+1 {
			if err := pause(ctx, wait/2+rand.N(wait), nil); err != nil {
				return err
			}
			if m.gossipKeyChanged(ctx) {
				if err := m.dropOldKey(ctx); err != nil {
					return err
				}
				break
			}
		}
	}
}

// dropOldKey ends the overlap.
func (m *member) dropOldKey(ctx context.Context) error {
	if err := pause(ctx, rekeyOverlap, nil); err != nil {
		return err
	}
	key, err := readSmall(filepath.Join(m.cfg.Paths.NodeDir(), gossipFile))
	if err == nil {
		err = m.gossip.Rekey(cluster.NewSecret(key))
	}
	if err != nil {
		m.log.Warn("the old gossip key is still accepted", zap.Error(err))
	}
	return nil
}

// gossipKeyChanged asks the master for the key and reports whether it was new.
func (m *member) gossipKeyChanged(ctx context.Context) bool {
	path := filepath.Join(m.cfg.Paths.NodeDir(), gossipFile)
	before, err := readSmall(path)
	if err != nil {
		return false
	}
	if _, err := m.askCertificate(ctx, rpc.CertificateRequest{}); err != nil {
		m.log.Debug("gossip key is not to be had", zap.Error(err))
		return false
	}
	after, err := readSmall(path)
	return err == nil && !bytes.Equal(before, after)
}
