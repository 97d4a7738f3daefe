package vcluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"rolekey/masterd/state"
	"rolekey/pki"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// off has all machines off for a while.
func (c *Cluster) off(d time.Duration) {
	c.t.Helper()
	var were []*Node
	for _, n := range c.Up() {
		were = append(were, n)
		n.Stop()
	}
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

// TestExpiredNodeReturns: a node is off for four years and a half, while the
// others, who are awake for some minutes each season, have renewed their
// certificates. It comes back by itself.
func TestExpiredNodeReturns(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		away := c.Node(4)
		away.Stop()
		for c.Now() < 9*year/2 {
			c.off(91 * day)
			c.Settle()
			c.Await(10*time.Minute, c.young)
		}
		st, err := c.State()
		c.must(err)
		if until, err := ends(st.Node(away.ID)); err != nil || len(until) != 2 || time.Until(until[pki.KindIdentity]) > 0 {
			t.Fatalf("its certificates have not ended: %v, %v", until, err)
		}
		away.Start()
		c.Await(10*time.Minute, func() error { return errors.Join(c.young(), c.Check()) })
		c.Must(Candidate(away, true))
		c.Settle()
	})
}
