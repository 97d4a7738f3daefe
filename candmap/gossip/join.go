package gossip

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
)

// joins says when each missing node may be tried again. memberlist itself
// forgets the dead within a minute, so that this is what heals a partition.
type joins map[cluster.NodeID]attempt

type attempt struct {
	next time.Time
	wait time.Duration
}

// due notes a try at now, if it is time for one.
func (j joins) due(id cluster.NodeID, now time.Time) bool {
	a, tried := j[id]
	if tried && now.Before(a.next) {
		return false
	}
	a.wait = min(max(2*a.wait, minBackoff), maxBackoff)
	a.next = now.Add(a.wait + jitter(a.wait/2))
	j[id] = a
	return true
}

// joinMissing tries to join a few of the roster's nodes that are not members,
// and returns how many others there should be.
func (i *instance) joinMissing(now time.Time) (others int) {
	roster := i.g.cfg.Holder.View().Roster
	if roster == nil {
		return 0
	}
	missing := i.missing(roster, &others)
	tries := 0
	for _, node := range missing {
		if tries == joinsAtOnce {
			break
		}
		if i.joins.due(node.UUID, now) {
			tries++
			i.work.Go(func() { i.join(node) })
		}
	}
	return others
}

// missing returns, in random order, the nodes to join, and forgets the tries
// of all others. An offline node is not expected, and joins us when it is back.
func (i *instance) missing(roster *candmap.Roster, others *int) []candmap.RosterNode {
	var missing []candmap.RosterNode
	for _, node := range roster.Nodes() {
		if node.UUID == i.g.cfg.Self || node.Flags.Offline {
			continue
		}
		*others++
		if !i.members.isAlive(node.UUID) {
			missing = append(missing, node)
		}
	}
	for id := range i.joins {
		if !slices.ContainsFunc(missing, func(n candmap.RosterNode) bool { return n.UUID == id }) {
			delete(i.joins, id)
		}
	}
	rand.Shuffle(len(missing), func(a, b int) { missing[a], missing[b] = missing[b], missing[a] })
	return missing
}

// join tries the node's addresses until one answers.
func (i *instance) join(node candmap.RosterNode) {
	for _, a := range node.Addresses {
		if a.Zone() != "" {
			continue // memberlist would look it up as a name
		}
		at := netip.AddrPortFrom(a.Unmap(), node.Ports.Gossip)
		if _, err := i.list.Join([]string{at.String()}); err == nil {
			return
		}
	}
	i.g.log.Debug("node does not answer gossip", zap.String("node", string(node.Name)))
}

// aloneness remembers whether this node hears nobody.
type aloneness struct {
	since time.Time // zero: it is not alone
	told  bool
}

// noteAlone logs when this node has heard nobody for a while, and when that
// ends: a firewall, or a wrong key.
func (i *instance) noteAlone(now time.Time, others int) {
	a := &i.alone
	if others == 0 || i.members.countAlive() > 1 {
		if a.told {
			i.g.log.Info("gossip reaches others again", zap.Int("members", i.members.countAlive()))
		}
		*a = aloneness{}
		return
	}
	if a.since.IsZero() {
		a.since = now
	}
	if !a.told && now.Sub(a.since) >= aloneAfter {
		a.told = true
		i.g.log.Warn("gossip reaches nobody: announcements come only from the master's pushes", zap.Int("nodes", others))
	}
}

// jitter returns a random part of d, so that nodes do not act in step.
func jitter(d time.Duration) time.Duration { return rand.N(max(d, 1)) }

func containsBytes(list [][]byte, b []byte) bool {
	return slices.ContainsFunc(list, func(o []byte) bool { return bytes.Equal(o, b) })
}
