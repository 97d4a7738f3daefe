package state

import (
	"slices"

	"rolekey/cluster"
)

// Pins lists what the map and the roster know a node's certificates of a kind by:
// the one in use, and while that is being replaced the next one.
func (n *Node) Pins(kind string) []cluster.Digest {
	switch {
	case kind == CertServer:
		return n.Server
	case kind == CertIdentity:
		return n.Identity
	case kind == CertCandidate && n.Keys != nil:
		return n.Keys.Client
	}
	return nil
}

// ErrOvertaken says that a renewal was computed from pins that have changed since.
var ErrOvertaken = cluster.Errorf(cluster.CodeConflict, "the node's keys were renewed by somebody else meanwhile").
	WithHint("nothing is to be done: it is tried again")

// overtaken reports whether the pins are others than those that the change was
// computed from.
func (c *NodeCerts) overtaken(s *State) bool {
	n := s.Node(c.Node)
	return c.Was != nil && n != nil && !slices.Equal(c.Was, n.Pins(c.Kind))
}

// Current refuses a change that is overtaken. A node renews by itself, and the
// master has jobs that do: whichever comes second would take away the key that
// the other has put in use, and the node could not even complain. The proposer
// checks it, with the newest state, and lets no other such change in between.
func (c NodeCerts) Current(s *State) (any, error) {
	if c.overtaken(s) {
		return c, ErrOvertaken
	}
	return c, nil
}

// Current leaves out what is overtaken. Who renews many nodes begins again with
// what is left to do.
func (c NodesCerts) Current(s *State) (any, error) {
	c.Certs = slices.DeleteFunc(slices.Clone(c.Certs), func(one NodeCerts) bool { return one.overtaken(s) })
	if len(c.Certs)+len(c.Stale) == 0 {
		return c, ErrOvertaken
	}
	return c, nil
}
