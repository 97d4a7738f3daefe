package gossip

import (
	"fmt"
	"net/netip"

	"github.com/hashicorp/memberlist"

	"rolekey/cluster"
)

// delegate is what memberlist calls, some of it under its own lock: nothing
// here calls back into memberlist, blocks, or does I/O.
type delegate struct{ *instance }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = delegate{}
	_ memberlist.AliveDelegate = delegate{}
)

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(limit int) []byte {
	b := encodeMeta(d.g.cfg.Self, d.g.cfg.Holder.View().At())
	if len(b) > limit {
		return nil
	}
	return b
}

// NotifyMsg implements memberlist.Delegate.
func (d delegate) NotifyMsg(msg []byte) { d.g.receive(msg) }

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.g.out.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate: what push/pull exchanges.
func (d delegate) LocalState(bool) []byte { return d.g.current() }

// MergeRemoteState implements memberlist.Delegate.
func (d delegate) MergeRemoteState(msg []byte, _ bool) { d.g.receive(msg) }

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.members.set(n, StateAlive) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.members.set(n, StateAlive) }

// NotifyLeave implements memberlist.EventDelegate.
func (d delegate) NotifyLeave(n *memberlist.Node) { d.members.set(n, StateGone) }

// NotifyAlive implements memberlist.AliveDelegate. Anybody with the key can
// name members; this keeps out those that would fill memory or draw packets
// to machines that are none of ours.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if err := d.admit(n); err != nil {
		d.g.count.strangers.Add(1)
		return err
	}
	return nil
}

func (d delegate) admit(n *memberlist.Node) error {
	id, err := cluster.ParseUUID(n.Name)
	if err != nil {
		return fmt.Errorf("admit member: %w", err)
	}
	if id == d.g.cfg.Self { // memberlist itself compares addresses
		return nil
	}
	roster := d.g.cfg.Holder.View().Roster
	if roster == nil {
		return d.members.room(id)
	}
	node := roster.Node(id)
	if node == nil {
		return fmt.Errorf("admit member: %s is not in the roster", id)
	}
	at := addrOf(n)
	for _, a := range node.Addresses {
		if netip.AddrPortFrom(a.Unmap(), node.Ports.Gossip) == at {
			return nil
		}
	}
	return fmt.Errorf("admit member: %s is not at %s by the roster", node.Name, at)
}

func addrOf(n *memberlist.Node) netip.AddrPort {
	a, _ := netip.AddrFromSlice(n.Addr) // zero if it is none
	return netip.AddrPortFrom(a.Unmap(), n.Port)
}
