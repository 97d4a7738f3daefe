package vcluster

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// off has all machines off for a while, as a power cut does: of machines that are
// stopped one after the other the first would see that the voters change without
// it, and after a long sleep it would believe nobody (docs/candidate-map.rst, "The
// long-range rule").
func (c *Cluster) off(d time.Duration) {
	c.t.Helper()
	were := c.Up()
	for _, n := range were {
		c.Partition(n)
	}
	for _, n := range were {
		n.Stop()
	}
	c.Heal()
	c.Pass(d)
	for _, n := range were {
		n.Start()
	}
}

// ends tells when the certificates of a node end, by the replicated state.
func ends(n *state.Node) (map[pki.Kind]time.Time, error) {
	out := map[pki.Kind]time.Time{}
	for _, der := range [][]byte{n.Certs.Server, n.Certs.Identity, n.Certs.Candidate} {
		if der == nil {
			continue
		}
		cert, err := pki.ParseCertDER(der)
		if err != nil {
			return nil, err
		}
		id, err := pki.Identify(cert)
		if err != nil {
			return nil, err
		}
		out[id.Kind] = id.NotAfter
	}
	return out, nil
}

// young returns nil if no node that is up has a certificate that is due, and
// none has two of a kind listed.
func (c *Cluster) young() error {
	st, err := c.State()
	if err != nil {
		return err
	}
	if err := idle(st); err != nil {
		return err
	}
	for _, n := range st.SortedNodes() {
		if node := c.ByID(n.UUID); !node.Up() {
			continue
		}
		until, err := ends(n)
		if err != nil {
			return err
		}
		for kind, end := range until {
			if left := time.Until(end); left < pki.LifetimeNode/3 {
				return fmt.Errorf("%s: its %s certificate ends in %v", n.Name, kind, left)
			}
		}
		if len(n.Server) != 1 || len(n.Identity) != 1 || n.Keys != nil && len(n.Keys.Client) != 1 || !n.RenewBefore.IsZero() {
			return fmt.Errorf("%s: %d and %d pins are listed, marked %v", n.Name, len(n.Server), len(n.Identity), n.RenewBefore)
		}
	}
	return nil
}

// sleepOf has a node off for so long, while the others are awake for some minutes
// twice a year, and renew their certificates.
func (c *Cluster) sleepOf(away *Node, d time.Duration) {
	c.t.Helper()
	away.Stop()
	for end := c.Now() + d; c.Now() < end; {
		c.off(min(182*day, end-c.Now()))
		c.Settle()
		c.Await(10*time.Minute, c.young)
	}
}

// wake starts a node that was off, and returns when it is one of the cluster again.
// It reports whether local root had to vouch for the map, because the voters
// changed meanwhile.
func (c *Cluster) wake(away *Node) (trusted bool) {
	c.t.Helper()
	away.Start()
	c.Await(20*time.Minute, func() error {
		if s, err := away.Status(); err == nil && !s.Fresh && strings.Contains(s.Problem, "noded trust HASH") && !trusted {
			c.Pass(10 * time.Second) // it may follow by itself
			if s, err = away.Status(); err == nil && !s.Fresh {
				hash := mustView(c, c.Master()).Map.Hash()
				trusted = away.local.Do(c.t.Context(), "POST", rpc.LocalTrust, rpc.TrustRequest{Hash: hash}, nil) == nil
			}
		}
		return errors.Join(c.young(), c.Check())
	})
	return trusted
}

// TestExpiredNodeReturns: a node is off for four years and a half, and comes back by
// itself, whatever its role.
func TestExpiredNodeReturns(t *testing.T) {
	for _, role := range []cluster.Role{cluster.RoleRegular, cluster.RoleCandidate, cluster.RoleMaster} {
		t.Run(role.String(), func(t *testing.T) {
			Run(t, 5, Options{Pool: 4}, func(t *testing.T, c *Cluster) {
				away := map[cluster.Role]*Node{cluster.RoleRegular: c.Node(5), cluster.RoleCandidate: c.other(), cluster.RoleMaster: c.Master()}[role]
				c.sleepOf(away, 9*year/2)
				st, err := c.State()
				c.must(err)
				until, err := ends(st.Node(away.ID))
				c.must(err)
				for kind, end := range until {
					if time.Until(end) > 0 {
						t.Fatalf("its %s certificate has not ended", kind)
					}
				}
				t.Logf("local root had to vouch: %v", c.wake(away))
				c.Must(Candidate(c.other(), false))
				c.Must(Candidate(c.Node(5), true))
				c.Settle()
				c.Await(Limit, func() error { // the log of one that was just promoted may still be on its way
					if left := c.found(); left != "" {
						return errors.New("verify: " + left)
					}
					return nil
				})
			})
		})
	}
}

// TestExpiredOfAFormerAuthority: the authority was changed days before an expired
// node returns, which knows the former one alone, and is known by it.
func TestExpiredOfAFormerAuthority(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		away := c.Node(4)
		c.sleepOf(away, 9*year/2)
		c.Must(Change{ID: jobs.OpClusterRenew, NewCA: true})
		c.off(10 * day)
		c.Settle()
		if st, err := c.State(); err != nil || len(st.CA.Old) != 1 {
			t.Fatalf("the former authority is not kept for the node: %v", err)
		}
		c.wake(away)
		c.Await(10*time.Minute, c.renewedAll)
	})
}

// TestExpiredForTooLong: after the grace a node is told to be readded, and so is
// whoever looks.
func TestExpiredForTooLong(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		away := c.Node(4)
		c.sleepOf(away, pki.LifetimeNode+pki.Grace+day)
		away.Start()
		c.Await(2*time.Minute, func() error {
			s, err := away.Status()
			if err == nil && !strings.Contains(s.Problem, "--readd") {
				err = fmt.Errorf("it says: %s", s.Problem)
			}
			return err
		})
		if v := mustView(c, away); v.Fresh {
			t.Error("it is fresh")
		}
		report := c.found()
		for _, want := range []string{"ERROR: node node4.vc.test: its certificates ended", "days ago"} {
			if !strings.Contains(report, want) {
				t.Errorf("verify does not say %q:\n%s", want, report)
			}
		}
		st, err := c.State()
		c.must(err)
		if len(st.Node(away.ID).Identity) != 1 {
			t.Error("it got something")
		}
		away.Stop()
		c.Must(Remove(away))
	})
}

// TestTrustAfterExpiry: the voters changed while a node was off for so long that
// nobody it knows has the key that it knows.
func TestTrustAfterExpiry(t *testing.T) {
	Run(t, 5, Options{}, func(t *testing.T, c *Cluster) {
		away := c.Node(5)
		away.Stop()
		c.Must(Candidate(c.Node(4), true))
		c.Must(Candidate(c.other(), false))
		c.sleepOf(away, 9*year/2)
		if !c.wake(away) {
			t.Error("it crossed a change of voters by itself")
		}
	})
}

// TestWholeClusterExpired: all machines were off for longer than their
// certificates live. The voters recognise nobody; one of them is recovered, and
// the others come back as expired nodes, by local root's word.
func TestWholeClusterExpired(t *testing.T) {
	recoverable(t, 4, Options{}, func(t *testing.T, c *Cluster, id age.Identity) {
		c.off(9 * year / 2)
		c.Pass(time.Minute)
		c.goOn(c.Node(1), id)
		c.Await(Limit, c.Node(1).ready)
		for _, n := range c.Nodes[1:] {
			c.Await(Limit, func() error {
				return n.local.Do(c.t.Context(), "POST", rpc.LocalTrust, rpc.TrustRequest{Hash: mustView(c, c.Node(1)).Map.Hash()}, nil)
			})
		}
		c.allAgain(3)
		c.Await(10*time.Minute, c.young)
	})
}

// TestSoleVoterExpired: with one voter there is nobody to recognise, and it goes on
// by itself.
func TestSoleVoterExpired(t *testing.T) {
	Run(t, 2, Options{Pool: 1}, func(t *testing.T, c *Cluster) {
		c.off(9 * year / 2)
		c.Settle()
		c.Await(10*time.Minute, c.young)
	})
}

// found runs gnt-cluster verify and returns the errors and warnings of its report,
// but for those about sshd, of which there is none here.
func (c *Cluster) found() string {
	c.t.Helper()
	var lines []string
	for _, log := range c.Do(Change{ID: "OP_CLUSTER_VERIFY"}).Log {
		for _, e := range log {
			bad := strings.Contains(e.Text, "- ERROR: ") || strings.Contains(e.Text, "- WARNING: ")
			if bad && !strings.Contains(e.Text, "ssh communication with node") {
				lines = append(lines, e.Text)
			}
		}
	}
	return strings.Join(lines, "\n")
}

// TestWrongClockRenewsNothing: whether a certificate is due or has ended is not for
// the clock of its holder to say.
func TestWrongClockRenewsNothing(t *testing.T) {
	for _, skew := range []time.Duration{3 * year, 9 * year / 2, 6 * year} {
		t.Run(skew.String(), func(t *testing.T) {
			Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
				listed := func() []cluster.Digest {
					pins := c.pins()
					slices.SortFunc(pins, func(a, b cluster.Digest) int { return bytes.Compare(a[:], b[:]) })
					return pins
				}
				n, before := c.Node(4), listed()
				n.Stop()
				n.Skew = skew
				n.Start()
				c.Pass(5 * time.Minute)
				if s, err := n.Status(); err != nil || s.Fresh {
					t.Errorf("with a clock that is %v ahead it is fresh: %v", skew, err)
				}
				n.Stop()
				if !slices.Equal(listed(), before) {
					t.Error("something was renewed")
				}
				n.Skew = 0
				n.Start()
				c.Settle()
			})
		})
	}
}
