package noded

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// hintsFile exists while local root says where other nodes are.
const hintsFile = "peers.json"

// hints are where local root says that other nodes are, for the time when all
// machines have moved and the map cannot say so yet, because that takes voters
// who find one another. They only tell where to knock: who opens is known by
// map and roster. One that the roster has caught up with is forgotten.
type hints struct {
	path string

	mu   sync.Mutex
	said map[cluster.NodeID][]netip.Addr // replaced, never written to
}

// openHints reads what was said before. What cannot be read was a help only.
func openHints(dir string, log *zap.Logger) *hints {
	h := &hints{path: filepath.Join(dir, hintsFile)}
	if _, err := readStrict(h.path, &h.said); err != nil {
		log.Warn("where other nodes are must be said again: noded peers", zap.Error(err))
		h.said = nil
	}
	return h
}

func (h *hints) all() map[cluster.NodeID][]netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.said
}

func (h *hints) of(id cluster.NodeID) []netip.Addr { return h.all()[id] }

// change replaces what is said by what edit makes of a copy.
func (h *hints) change(edit func(map[cluster.NodeID][]netip.Addr)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := maps.Clone(h.said)
	if next == nil {
		next = map[cluster.NodeID][]netip.Addr{}
	}
	edit(next)
	if maps.EqualFunc(next, h.said, slices.Equal[[]netip.Addr]) {
		return nil
	}
	if err := writeJSON(h.path, next); err != nil {
		return fmt.Errorf("note where other nodes are: %w", err)
	}
	h.said = next
	return nil
}

// prune forgets what the roster says as well, and nodes that it does not list.
func (h *hints) prune(r *candmap.Roster) error {
	if r == nil || len(h.all()) == 0 {
		return nil
	}
	return h.change(func(said map[cluster.NodeID][]netip.Addr) {
		maps.DeleteFunc(said, func(id cluster.NodeID, addrs []netip.Addr) bool {
			n := r.Node(id)
			return n == nil || !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !slices.Contains(n.Addresses, a) })
		})
	})
}

// servePeers takes hints from local root, and tells all there are.
func (d *Daemon) servePeers(_ context.Context, r *rpc.PeersRequest) (any, error) {
	m, err := d.serving()
	if err != nil {
		return nil, err
	}
	roster := m.keeper.View().Roster
	if roster == nil {
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node holds no roster, and so knows no other node")
	}
	said := map[cluster.NodeID][]netip.Addr{}
	for _, p := range r.Peers {
		n := findNode(roster, p.Node)
		if n == nil {
			return nil, cluster.Errorf(cluster.CodeNotFound, "the roster that this node holds has no node %.64s", p.Node).
				WithHint("name nodes in full, as they were when this node heard of the cluster last, or by UUID")
		}
		if err := checkAddresses(p.Addresses); err != nil {
			return nil, err
		}
		if n.UUID != m.id.Node { // so that the same command is right on all nodes
			said[n.UUID] = p.Addresses
		}
	}
	err = m.hints.change(func(all map[cluster.NodeID][]netip.Addr) {
		if r.Clear {
			clear(all)
		}
		maps.Copy(all, said)
	})
	if err != nil {
		return nil, err
	}
	m.changed() // pulls begin anew, and masterd is told
	return peersReply(roster, m.hints.all()), nil
}

func peersReply(roster *candmap.Roster, said map[cluster.NodeID][]netip.Addr) rpc.PeersReply {
	reply := rpc.PeersReply{Peers: []rpc.PeerHint{}}
	for _, n := range roster.Nodes() {
		if addrs := said[n.UUID]; len(addrs) > 0 {
			reply.Peers = append(reply.Peers, rpc.PeerHint{Node: string(n.Name), Addresses: addrs})
		}
	}
	return reply
}

// findNode finds a node by its full name or UUID.
func findNode(r *candmap.Roster, ref string) *candmap.RosterNode {
	for _, n := range r.Nodes() {
		if string(n.Name) == ref || n.UUID.String() == ref {
			return &n
		}
	}
	return nil
}
