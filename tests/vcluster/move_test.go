package vcluster

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/masterd/rapi"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// elsewhere is another address for a node.
func elsewhere(n *Node) netip.Addr {
	a := n.Addr.As4()
	a[1]++
	return netip.AddrFrom4(a)
}

// Move gives a node that is down another address.
func (n *Node) Move(to netip.Addr) {
	n.c.t.Helper()
	if n.run != nil {
		n.c.t.Fatalf("%s runs", n.Short())
	}
	n.Addr, n.Host = to, n.c.Net.Host(to)
}

// Peers is noded peers.
func (n *Node) Peers(r rpc.PeersRequest) rpc.PeersReply {
	n.c.t.Helper()
	var reply rpc.PeersReply
	n.c.Await(Limit, func() error { return n.local.Do(n.c.t.Context(), "POST", rpc.LocalPeers, r, &reply) })
	return reply
}

// TestRunbookChangedAddresses: all machines were off and have new addresses, so
// that nobody finds anybody. Root says on each candidate where the others are,
// and on the master then where each node is.
func TestRunbookChangedAddresses(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		for _, n := range c.Nodes {
			n.Stop()
		}
		for _, n := range c.Nodes {
			n.Move(elsewhere(n))
			n.Start()
		}
		c.Pass(30 * time.Second)
		if m := c.Masters(); len(m) > 0 {
			t.Fatalf("%s is master without having found anybody: the test shows nothing", m[0].Short())
		}
		candidates := c.Nodes[:3]
		var r rpc.PeersRequest
		for _, n := range candidates {
			r.Peers = append(r.Peers, rpc.PeerHint{Node: string(n.Name), Addresses: []netip.Addr{n.Addr}})
		}
		for _, n := range candidates {
			if got := n.Peers(r); len(got.Peers) != 2 {
				t.Errorf("%s knows %v", n.Short(), got.Peers)
			}
		}
		c.Master()
		for _, n := range c.Nodes {
			c.Must(Change{ID: jobs.OpNodeSetParams, Node: string(n.Name), Addresses: []netip.Addr{n.Addr}})
		}
		c.Settle()
		for _, n := range c.Nodes {
			c.Await(Limit, func() error {
				if got := n.Peers(rpc.PeersRequest{}); len(got.Peers) > 0 {
					return fmt.Errorf("%s still has hints that the roster has caught up with: %v", n.Short(), got.Peers)
				}
				return nil
			})
		}
	})
}

// TestHintsGiveNobodyRights: a hint that leads to a node leads to no other.
func TestHintsGiveNobodyRights(t *testing.T) {
	Run(t, 3, Options{}, func(_ *testing.T, c *Cluster) {
		for _, n := range c.Nodes[1:] { // all are told that node1 is where node4 would be, and node3 where node2 is
			n.Peers(rpc.PeersRequest{Peers: []rpc.PeerHint{{Node: string(c.Node(1).Name), Addresses: []netip.Addr{elsewhere(n), n.Addr}}}})
		}
		c.Node(1).Peers(rpc.PeersRequest{Peers: []rpc.PeerHint{
			{Node: string(c.Node(2).Name), Addresses: []netip.Addr{c.Node(3).Addr}}, {Node: string(c.Node(3).Name), Addresses: []netip.Addr{c.Node(2).Addr}},
		}})
		for _, n := range c.Nodes {
			n.Restart()
		}
		c.Settle()
	})
}

// TestRenamedNodeFollows: everything says the new name, without a restart.
func TestRenamedNodeFollows(t *testing.T) {
	Run(t, 3, Options{}, func(_ *testing.T, c *Cluster) {
		n := c.other()
		old, name := n.Name, cluster.Name("web.vc.test")
		c.Must(Change{ID: jobs.OpNodeRename, Node: string(old), NewName: string(name)})
		c.Await(Limit, func() error {
			st, err := c.State()
			if err != nil {
				return err
			}
			return errors.Join(namedIn(st, n, name), knownAs(c, old, name))
		})
		if s, err := n.Status(); err != nil || s.Name != name {
			c.t.Errorf("it calls itself %s: %v", s.Name, err)
		}
		if got := n.Masterd().Self(); got != name {
			c.t.Errorf("its masterd calls itself %s", got)
		}
		n.Name = name
	})
}

// namedIn wants certificates for the new name.
func namedIn(st *state.State, n *Node, name cluster.Name) error {
	for kind, der := range map[string][]byte{"server": st.Node(n.ID).Certs.Server, "identity": st.Node(n.ID).Certs.Identity} {
		if !strings.Contains(string(der), string(name)) {
			return fmt.Errorf("the %s certificate is still for another name", kind)
		}
	}
	return nil
}

// knownAs wants the new name, and not the old one, in known_hosts everywhere.
func knownAs(c *Cluster, old, name cluster.Name) error {
	for _, n := range c.Nodes {
		text, err := n.KnownHosts()
		switch {
		case err != nil:
			return err
		case strings.Contains(text, string(old)) || !strings.Contains(text, string(name)):
			return fmt.Errorf("known_hosts of %s does not follow", n.Short())
		}
	}
	return nil
}

// TestG1ReaddedNodeReplacesItsFormerLife: a candidate whose machine was set up
// again has a new life; its old disk, which runs as well, can do nothing more.
func TestG1ReaddedNodeReplacesItsFormerLife(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		n := c.other()
		n.Crash()
		ghost := c.newNode(9) // the old machine, which goes on elsewhere
		defer ghost.local.Close()
		defer ghost.Stop()
		c.must(copyOver(n.at.Root, ghost))
		n.newRoot()
		n.prepare()
		c.Must(Change{ID: jobs.OpNodeReadd, Node: string(n.Name)})
		ghost.Start()
		n.Start()
		token := c.readdToken(n)
		c.Await(Limit, func() error {
			return n.local.Do(c.t.Context(), "POST", rpc.LocalJoin, rpc.JoinRequest{Token: token}, &rpc.JoinReply{})
		})
		c.Await(Limit, func() error {
			st, err := c.State()
			if err != nil {
				return err
			}
			got := st.Node(n.ID)
			if got == nil || got.Incarnation != 2 || !got.Flags.MasterCandidate || got.Flags.Offline {
				return fmt.Errorf("%s is %+v", n.Short(), got)
			}
			return nil
		})
		c.Settle()
		c.Await(2*Limit, func() error {
			s, err := ghost.Status()
			if err == nil && s.State != "removed" {
				err = fmt.Errorf("the former life is %s: %s", s.State, s.Problem)
			}
			return err
		})
		if ghost.ready() == nil {
			t.Error("the former life is master")
		}
	})
}

// TestReaddedNodeIsWaitedFor: a node that was down for long is waited for by the
// first change after it has joined again, and so not named as unreachable.
func TestReaddedNodeIsWaitedFor(t *testing.T) {
	Run(t, 4, Options{Pool: 2}, func(t *testing.T, c *Cluster) {
		n := c.Node(4)
		n.Crash()
		drain := func(on bool) *state.Job {
			return c.Must(Change{ID: jobs.OpNodeSetParams, Node: string(c.Node(3).Name), Drained: &on})
		}
		for i := range 4 {
			checkUnreachable(t, drain(i%2 == 0), n, true, true)
		}
		n.newRoot()
		n.prepare()
		n.Start()
		token := c.readdToken(n)
		c.Await(Limit, func() error {
			return n.local.Do(c.t.Context(), "POST", rpc.LocalJoin, rpc.JoinRequest{Token: token}, &rpc.JoinReply{})
		})
		if j := drain(true); len(j.Unreachable) > 0 {
			t.Errorf("right after the join: %+v", j.Unreachable)
		}
	})
}

func (c *Cluster) readdToken(n *Node) (token string) {
	c.t.Helper()
	c.Await(Limit, func() error {
		m, err := c.one()
		if err != nil {
			return err
		}
		made, err := m.Masterd().Admit(c.t.Context(), rapi.AdmitSpec{Name: n.Name, Node: n.ID, TTL: time.Hour, Actor: "test", Request: "token"})
		token = made.Token.Encode()
		return err
	})
	return token
}

// copyOver puts a copy of a disk into a machine that is down.
func copyOver(disk string, n *Node) error {
	if err := os.RemoveAll(n.at.Root); err != nil {
		return err
	}
	return copyTree(disk, n.at.Root)
}
