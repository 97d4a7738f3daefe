package vcluster

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/pki"
)

// TestG7TwoRenewals: a node whose addresses change renews its certificates by
// itself, and a job of the master's retires what it has replaced. At whatever
// moment they meet, neither takes away the key that the other has put in use.
func TestG7TwoRenewals(t *testing.T) {
	for seed := range uint64(60) {
		Run(t, 3, Options{Pool: 2}, func(t *testing.T, c *Cluster) {
			n, r := c.Node(3), rand.New(rand.NewPCG(seed, 9))
			for i := range 8 {
				list := []netip.Addr{n.Addr}
				if i%2 == 0 {
					list = append(list, elsewhere(n))
				}
				c.Must(Change{ID: jobs.OpNodeSetParams, Node: string(n.Name), Addresses: list, Force: true})
				c.Pass(time.Duration(r.IntN(250)) * time.Millisecond)
			}
			c.Settle()
			c.Await(Limit, func() error { return renewedBy(c, n) })
		})
	}
}

// renewedBy wants certificates of a node that name its addresses of now, and
// nothing retired that it uses.
func renewedBy(c *Cluster, n *Node) error {
	st, err := c.State()
	if err != nil {
		return err
	}
	intent := st.Node(n.ID)
	for kind, der := range map[string][]byte{"server": intent.Certs.Server, "identity": intent.Certs.Identity} {
		cert, err := pki.ParseCertDER(der)
		if err != nil {
			return err
		}
		id, err := pki.Identify(cert)
		switch {
		case err != nil:
			return err
		case !slices.Equal(id.Addresses, intent.Addresses):
			return fmt.Errorf("the %s certificate of %s is for %v, it is at %v", kind, n.Short(), id.Addresses, intent.Addresses)
		case !slices.Equal(intent.Pins(kind), []cluster.Digest{id.Pin}):
			return fmt.Errorf("the %s certificate of %s is not the only one that is pinned", kind, n.Short())
		}
	}
	return nil
}
