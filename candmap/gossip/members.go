package gossip

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"

	"rolekey/cluster"
)

// State is what gossip believes of a member. Whoever has the key can forge it.
type State string

// The states of a member.
const (
	StateAlive State = "alive" // or suspected, not yet given up
	StateGone  State = "gone"  // left, or stopped answering
)

// Member is a node as it presents itself, for display only.
type Member struct {
	Node    cluster.NodeID
	Name    cluster.Name // from the roster; empty if it is not known there
	Addr    netip.AddrPort
	Version cluster.Version // of the map that it says it holds
	State   State
}

// members is our own table: memberlist's lists point into its live state.
type members struct {
	mu    sync.Mutex
	table map[cluster.NodeID]Member
	alive int
}

func (m *members) init() { m.table = map[cluster.NodeID]Member{} }

// set records what memberlist tells of a node.
func (m *members) set(n *memberlist.Node, s State) {
	id, err := cluster.ParseUUID(n.Name)
	if err != nil {
		return // not let in
	}
	version, _ := decodeMeta(id, n.Meta) // zero if it is not ours to read
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.table[id].State == StateAlive {
		m.alive--
	}
	if s == StateAlive {
		m.alive++
	}
	m.table[id] = Member{Node: id, Addr: addrOf(n), Version: version, State: s}
}

// room reports whether one more member may be known.
func (m *members) room(id cluster.NodeID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.table[id]; !known && len(m.table) >= maxMembers {
		return errors.New("admit member: there are too many, and no roster")
	}
	return nil
}

func (m *members) isAlive(id cluster.NodeID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.table[id].State == StateAlive
}

// list drops those whom keep does not want, and returns the others by UUID.
func (m *members) list(keep func(cluster.NodeID) bool) []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Member, 0, len(m.table))
	for id, member := range m.table {
		if member.State == StateGone && !keep(id) {
			delete(m.table, id)
			continue
		}
		all = append(all, member)
	}
	slices.SortFunc(all, func(a, b Member) int { return bytes.Compare(a.Node[:], b.Node[:]) })
	return all
}

func (m *members) countAlive() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alive
}

// Members returns the members that are known, this node among them, sorted by
// UUID. It is for display only.
func (g *Gossip) Members() []Member {
	inst := g.now.Load()
	if inst == nil {
		return nil
	}
	roster := g.cfg.Holder.View().Roster
	all := inst.members.list(func(id cluster.NodeID) bool { return roster == nil || roster.Node(id) != nil })
	for i := range all {
		if roster == nil {
			break
		}
		if node := roster.Node(all[i].Node); node != nil {
			all[i].Name = node.Name
		}
	}
	return all
}

// alive counts the members that are believed alive, this node among them.
func (g *Gossip) alive() int {
	inst := g.now.Load()
	if inst == nil {
		return 0
	}
	return inst.members.countAlive()
}
