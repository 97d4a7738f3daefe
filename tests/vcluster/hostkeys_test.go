package vcluster

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"rolekey/masterd/jobs"
)

// newHostKey gives the node's sshd another host key, and returns the key.
func (n *Node) newHostKey() string {
	n.c.t.Helper()
	line := hostKey(n.c)
	n.c.must(os.WriteFile(n.hostKeyFile(), line, 0o644))
	return strings.Fields(string(line))[1]
}

// trusted returns nil if all nodes have a host key in known_hosts.
func (c *Cluster) trusted(key string) error {
	for _, n := range c.Nodes {
		text, err := os.ReadFile(n.at.In("/root/.ssh/known_hosts"))
		if err != nil || !strings.Contains(string(text), key) {
			return fmt.Errorf("%s does not know the key: %w", n.Short(), err)
		}
	}
	return nil
}

// TestHostKeysSurviveFailover: what waits for the administrator waits on under
// the next master, and what a normal node says is believed under either.
func TestHostKeysSurviveFailover(t *testing.T) {
	Run(t, 4, Options{Pool: 3}, func(t *testing.T, c *Cluster) {
		first := c.Master()
		candidate, normal := c.Node(2), c.Node(4)
		if candidate == first {
			candidate = c.Node(3)
		}
		pending := func() (digest string) {
			c.Await(time.Minute, func() error {
				st, err := c.State()
				if err != nil {
					return err
				}
				p := st.Node(candidate.ID).PendingHostKeys
				if p == nil {
					return errors.New("nothing waits")
				}
				d, err := p.Digest()
				digest = d.String()
				return err
			})
			return digest
		}
		key, other := candidate.newHostKey(), normal.newHostKey()
		digest := pending()
		c.Await(time.Minute, func() error { return c.trusted(other) })
		first.Crash()
		c.Await(Limit, func() error { _, err := c.one(); return err })
		if got := pending(); got != digest {
			t.Errorf("under the next master %s waits instead of %s", got, digest)
		}
		first.Start()
		c.Settle()
		if c.trusted(key) == nil {
			t.Error("it is believed before anybody decided")
		}
		c.Must(Change{ID: jobs.OpNodeAcceptHostKeys, Node: string(candidate.Name), Digest: digest})
		c.Await(Limit, func() error { return c.trusted(key) })
	})
}
