package verify

import (
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// address checks that the master, and nobody else, holds the cluster address.
func (c *check) address() {
	want := c.s.Params.MasterAddress
	if want == nil {
		return
	}
	c.section("Verifying the cluster address")
	c.answered(func(n *state.Node, a rpc.NodeState) {
		got := a.MasterAddress
		switch master := n.UUID == c.held.Master; {
		case got == nil && master:
			c.node(n, CodeNodeNet, "the master node does not know of the cluster address %s yet", want.Address)
		case got == nil:
		case got.Problem != "":
			c.node(n, CodeNodeNet, "cluster address: %s", got.Problem)
		case master && (!got.Held || got.Address != want.Address.String() || got.Netdev != want.Netdev):
			c.node(n, CodeNodeNet, "the master node does not hold the cluster address %s on %s", want.Address, want.Netdev)
		case !master && got.Held:
			c.node(n, CodeNodeNet, "holds the cluster address %s, and is not the master", got.Address)
		}
	})
}
