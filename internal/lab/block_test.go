package lab

import (
	"errors"
	"net/netip"
	"testing"
)

// TestBlock: one port of a node is out of reach, the others and the other nodes
// are not.
func TestBlock(t *testing.T) {
	c := up(t, Config{Nodes: 3, Bare: true})
	needNamespaces(t, c)
	ctx := testContext(t)
	nodes, err := c.Nodes(ctx)
	must(t, err)
	server := startServer(t, c, nodes[1])
	at := netip.MustParseAddrPort(server)
	must(t, c.Block(ctx, at.Port(), "node1"))
	connect(t, c, nodes[0], server, "700ms").expect("no connection")
	connect(t, c, nodes[2], server, limit.String()).expect("connected")
	must(t, c.Heal(ctx))
	connect(t, c, nodes[0], server, limit.String()).expect("connected")
	must(t, c.Block(ctx, at.Port()+1, "node1"))
	connect(t, c, nodes[0], server, limit.String()).expect("connected")
	if err := c.Block(ctx, at.Port(), "node9"); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("a block of an unknown node: %v", err)
	}
}
