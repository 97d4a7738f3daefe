package noded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/rpc"
)

// A node understands the gossip keys that the roster lists by their digests, and
// sends with the first. It asks the master for those that it lacks, and drops
// all others. So while a key is replaced all nodes understand both.
//
// Before feature level 3 the roster lists none: then a node asks when another
// one was removed, and knows the old key a while longer.

// Pauses of the search for a gossip key.
const (
	rekeyFirst = 100 * time.Millisecond // retries double from here
	rekeyMax   = time.Minute
	// rekeySpread is how long the questions of all nodes are spread, for each.
	rekeySpread = 3 * time.Millisecond
	// Without a roster that lists keys.
	rekeyTries   = 6
	rekeyOverlap = 30 * time.Second
)

// maxRing is how many keys a node holds at most.
const maxRing = 3

// readRing reads the gossip keys: of KeySize bytes each, the one to send with
// first.
func readRing(path string) ([]cluster.Secret, error) {
	text, err := readSmall(path)
	if err == nil && (len(text) == 0 || len(text)%gossip.KeySize != 0 || len(text) > maxRing*gossip.KeySize) {
		err = errors.New("it is damaged or missing")
	}
	if err != nil {
		return nil, fmt.Errorf("read gossip key: %w", err)
	}
	var ring []cluster.Secret
	for key := range slices.Chunk(text, gossip.KeySize) {
		ring = append(ring, cluster.NewSecret(key))
	}
	return ring, nil
}

func digestsOf(ring []cluster.Secret) (out []cluster.Digest) {
	for _, k := range ring {
		out = append(out, cluster.DigestOf(k.Reveal()))
	}
	return out
}

// wantedRing returns what the roster lists; nil: it does not say.
func (m *member) wantedRing() []cluster.Digest {
	v := m.keeper.View()
	if v.Roster == nil || v.Roster.Settings() == nil {
		return nil
	}
	return v.Roster.Settings().Gossip
}

// chooseRing returns the keys to hold, of those that are known.
func chooseRing(wanted []cluster.Digest, known []cluster.Secret) (ring []cluster.Secret) {
	for _, d := range wanted {
		i := slices.Index(digestsOf(known), d)
		if i >= 0 {
			ring = append(ring, known[i])
		}
	}
	return ring
}

// keepGossip holds what the roster wants, of the keys that the master told and
// those that are held.
func (m *member) keepGossip(one []byte, all [][]byte) error {
	m.ringTurn.Lock()
	defer m.ringTurn.Unlock()
	have := *m.ring.Load()
	var known []cluster.Secret
	for _, k := range append(all[:len(all):len(all)], one) {
		if len(k) == gossip.KeySize {
			known = append(known, cluster.NewSecret(k))
		}
	}
	wanted := m.wantedRing()
	ring := chooseRing(wanted, append(known, have...))
	if wanted == nil && len(known) > 0 && cluster.DigestOf(one) != digestsOf(have)[0] {
		// The old key stays good for a while: others may not have the new one yet.
		ring = []cluster.Secret{known[len(known)-1], have[0]}
	}
	if len(ring) == 0 || slices.Equal(digestsOf(ring), digestsOf(have)) {
		return nil // what there is is better than none
	}
	return m.useRing(ring)
}

// useRing takes the keys into use, and remembers them. A disk that is full must
// not keep an old key good.
func (m *member) useRing(ring []cluster.Secret) error {
	if err := m.gossip.Rekey(ring[0], ring[1:]...); err != nil {
		return err
	}
	var text bytes.Buffer
	for _, k := range ring {
		text.Write(k.Reveal())
	}
	if err := atomicfile.Write(filepath.Join(m.cfg.Paths.NodeDir(), gossipFile), text.Bytes(), atomicfile.Durable(0o600)); err != nil {
		return err
	}
	m.ring.Store(&ring)
	return nil
}

// followGossipKey holds the keys that the roster lists.
func (m *member) followGossipKey(ctx context.Context) error {
	wait := rekeyFirst
	for {
		news := m.news.wait()
		again, err := m.rekey(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil || again:
			m.log.Debug("the gossip keys do not follow the roster yet", zap.Error(err))
			if err := pause(ctx, wait/2+rand.N(wait), news); err != nil {
				return err
			}
			wait = min(2*wait, rekeyMax)
			continue
		}
		wait = rekeyFirst
		select {
		case <-news:
		case <-m.rekeyNow:
			if m.wantedRing() == nil {
				err = m.rekeyAfterRemoval(ctx)
			}
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// rekey does what the roster wants, and reports whether something is missing
// still.
func (m *member) rekey(ctx context.Context) (again bool, err error) {
	wanted := m.wantedRing()
	have := digestsOf(*m.ring.Load())
	if wanted == nil || slices.Equal(wanted, have) {
		return false, nil
	}
	lacks := slices.ContainsFunc(wanted, func(d cluster.Digest) bool { return !slices.Contains(have, d) })
	if !lacks {
		return false, m.keepGossip(nil, nil)
	}
	spread := rekeySpread * time.Duration(max(1, len(m.keeper.View().Roster.Nodes())))
	if err := pause(ctx, rand.N(spread), nil); err != nil {
		return false, err
	}
	if _, err := m.askCertificate(ctx, rpc.CertificateRequest{}); err != nil {
		return false, err
	}
	return !slices.Equal(m.wantedRing(), digestsOf(*m.ring.Load())), nil
}

// lastOfRing drops all keys but the one to send with.
func (m *member) lastOfRing() error {
	m.ringTurn.Lock()
	defer m.ringTurn.Unlock()
	if ring := *m.ring.Load(); m.wantedRing() == nil && len(ring) > 1 {
		return m.useRing(ring[:1])
	}
	return nil
}

// rekeyAfterRemoval fetches the key that the master makes right after it has
// removed a node. What it misses comes with the next certificate: the key is a
// fence, and no more.
func (m *member) rekeyAfterRemoval(ctx context.Context) error {
	before := digestsOf(*m.ring.Load())[0]
	for wait, tries := rekeyFirst, 0; tries < rekeyTries; wait, tries = 2*wait, tries+1 {
		if err := pause(ctx, wait/2+rand.N(wait), nil); err != nil {
			return err
		}
		if _, err := m.askCertificate(ctx, rpc.CertificateRequest{}); err != nil {
			m.log.Debug("gossip key is not to be had", zap.Error(err))
			continue
		}
		if digestsOf(*m.ring.Load())[0] == before {
			continue
		}
		if err := pause(ctx, rekeyOverlap, nil); err != nil {
			return err
		}
		if err := m.lastOfRing(); err != nil {
			m.log.Warn("the old gossip key is still accepted", zap.Error(err))
		}
		break
	}
	return nil
}
