package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rolekey/cluster"
)

// TestRollingUpgrade upgrades the nodes of a living cluster one by one while
// roles change, the master last. Nothing newer is emitted before the last one;
// then the new features are there. A candidate that is downgraded afterwards
// refuses to take part, and comes back when it is upgraded again.
func TestRollingUpgrade(t *testing.T) {
	c := up(t, 4)
	c.wants("gnt-cluster", "info") // the old commands still talk to the old master
	// The first three to join are candidates; on a slow machine node4 is among them.
	for _, change := range [][]string{{"yes", "node2"}, {"yes", "node3"}, {"no", "node4"}} {
		c.wants("gnt-node", "modify", "-C", change[0], change[1])
	}
	load := c.load("node4")
	for _, n := range []string{"node4", "node3", "node2", "node1"} {
		if n == c.master() { // hand over first, as an administrator would not have to
			t.Logf("upgrading the master %s", n)
		}
		c.upgrade(n)
		if n != "node1" {
			c.levelIs(1)
		}
	}
	load.stop()
	c.await("the newest feature level", func() error { return c.level(cluster.FeatureLevel) })
	c.wants("gnt-cluster", "modify", "--ssh-key-type", "ecdsa") // needs the newest level, and noded of every candidate
	c.wants("gnt-cluster", "modify", "--candidate-pool-size", "4")
	c.wants("gnt-cluster", "add-tags", "upgraded")
	c.await("the cluster's name on every node", c.settingsEverywhere)
	c.downgrade("node3")
	c.await("a clean verify", func() error { return c.try("gnt-cluster", "verify") })
}

// upgrade stops a node, as a package manager does, and starts the new build.
func (c *lab) upgrade(node string) {
	c.t.Helper()
	c.must("stop", node)
	c.release(node, c.newBin)
	c.must("start", node)
	c.await(node+" is fresh and up to date", func() error { return c.fresh(node) })
}

// downgrade starts the previous build on a candidate of a cluster that is past
// it. It must say so, and do nothing.
func (c *lab) downgrade(node string) {
	c.t.Helper()
	c.must("stop", node)
	c.release(node, c.oldBin)
	_ = c.cluster("start", node) // masterd may end before it is ready: that is its refusal
	c.await("the old masterd refuses", func() error {
		text, err := os.ReadFile(filepath.Join(c.root(node), "var/log/rolekey/masterd.log"))
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), "upgrade this node") {
			return errors.New("its log does not say that it must be upgraded")
		}
		return nil
	})
	c.await("the others go on", func() error { return c.try("gnt-node", "modify", "-D", "yes", "node4") })
	c.await("and back", func() error { return c.try("gnt-node", "modify", "-D", "no", "node4") })
	c.upgrade(node)
}

// load changes the role of a node for as long as it runs. A change may fail
// while its master is being replaced; not all may.
func (c *lab) load(node string) *load {
	l := &load{c: c, end: make(chan struct{})}
	l.done.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-l.end:
				return
			default:
			}
			err := c.try("gnt-node", "modify", "-D", []string{"yes", "no"}[i%2], node)
			if err != nil && !strings.Contains(err.Error(), "is committed") { // else it is done, but for a node that is being upgraded
				l.failed++
				l.last = err
				continue
			}
			l.changed++
		}
	})
	return l
}

type load struct {
	c               *lab
	end             chan struct{}
	done            sync.WaitGroup
	changed, failed int
	last            error
}

func (l *load) stop() {
	l.c.t.Helper()
	close(l.end)
	l.done.Wait()
	l.c.t.Logf("%d changes during the upgrade, %d refused or interrupted (the last one: %v)", l.changed, l.failed, l.last)
	if l.changed < 10 {
		l.c.t.Errorf("only %d changes were made during the upgrade, %d failed: %v", l.changed, l.failed, l.last)
	}
	l.c.wants("gnt-node", "modify", "-D", "no", "node4")
}

// level checks the cluster's feature level, as the master tells it.
func (c *lab) level(want int) error {
	out, err := c.onMaster("gnt-cluster", "info", "--json")
	if err != nil {
		return err
	}
	var info struct {
		Rolekey struct {
			Level int `json:"feature_level"`
		} `json:"rolekey"`
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		return err
	}
	if info.Rolekey.Level != want {
		return fmt.Errorf("feature level %d, want %d", info.Rolekey.Level, want)
	}
	return nil
}

func (c *lab) levelIs(want int) {
	c.t.Helper()
	c.await(fmt.Sprintf("feature level %d", want), func() error { return c.level(want) })
}

// fresh reports whether the master knows that the node holds the newest map.
func (c *lab) fresh(node string) error {
	out, err := c.onMaster("gnt-cluster", "map", "--json")
	if err != nil {
		return err
	}
	var m struct {
		Hash  string `json:"hash"`
		Nodes []struct {
			Name  string `json:"name"`
			Hash  string `json:"hash"`
			Fresh bool   `json:"fresh"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return err
	}
	for _, n := range m.Nodes {
		if strings.HasPrefix(n.Name, node+".") && n.Fresh && n.Hash == m.Hash {
			return nil
		}
	}
	return fmt.Errorf("%s does not hold the newest map, fresh", node)
}

// settingsEverywhere looks for what only feature level 2 carries to the nodes.
func (c *lab) settingsEverywhere() error {
	for i := 1; i <= c.nodes; i++ {
		path := filepath.Join(c.root(fmt.Sprintf("node%d", i)), "var/lib/rolekey/ssconf_cluster_name")
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(text)) == "" {
			return fmt.Errorf("%s is empty", path)
		}
	}
	return nil
}

// await waits for something that must come.
func (c *lab) await(what string, check func() error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("%s: %v", what, err)
		case <-time.After(wait):
		}
	}
}
