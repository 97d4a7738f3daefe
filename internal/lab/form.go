package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// defaultPool is Ganeti's candidate pool size, and Rolekey's.
const defaultPool = 5

// form makes one cluster of the nodes, as an administrator would.
func (c *Cluster) form(ctx context.Context, cfg Config, nodes []Node) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.FormLimit)
	defer cancel()
	first := nodes[0]
	fmt.Fprintf(c.progress, "%s: init %s\n", first.Name, ClusterName)
	if _, err := c.step(ctx, first, "", initCommand(cfg, first)...); err != nil {
		return c.explain(err, first)
	}
	for _, n := range nodes[1:] {
		fmt.Fprintf(c.progress, "%s: join\n", n.Name)
		if err := c.admit(ctx, first, n); err != nil {
			return c.explain(err, first, n)
		}
	}
	fmt.Fprintf(c.progress, "waiting for one map on all nodes\n")
	pool := cfg.CandidatePoolSize
	if pool == 0 {
		pool = defaultPool
	}
	uuids, err := c.converge(ctx, first, len(nodes), min(len(nodes), pool))
	if err != nil {
		return c.explain(err, nodes[:min(3, len(nodes))]...)
	}
	return c.do(ctx, request{Op: opIdentify, UUIDs: uuids})
}

func initCommand(cfg Config, first Node) []string {
	argv := []string{"gnt-cluster", "init", ClusterName, "--node-name", first.Name}
	for _, a := range first.Addresses {
		argv = append(argv, "--address", a)
	}
	if !slices.Contains(cfg.InitArgs, "--recovery-recipient") {
		argv = append(argv, "--no-recovery-key")
	}
	if cfg.CandidatePoolSize != 0 {
		argv = append(argv, "--candidate-pool-size", itoa(cfg.CandidatePoolSize))
	}
	if cfg.MapLease != 0 {
		argv = append(argv, "--map-lease", cfg.MapLease.String())
	}
	return append(argv, cfg.InitArgs...)
}

// admit adds n: a string from the first node, spent on n.
func (c *Cluster) admit(ctx context.Context, first, n Node) error {
	token, err := c.step(ctx, first, "", "gnt-node", "add", n.Name)
	if err != nil {
		return err
	}
	_, err = c.step(ctx, n, token, "noded", "join", "-")
	return err
}

// step runs one command that must succeed. Its input, which may be an
// admission string, is not shown.
func (c *Cluster) step(ctx context.Context, n Node, input string, argv ...string) (string, error) {
	r, err := c.Run(ctx, Cmd{Node: n.Name, Args: argv, Stdin: strings.NewReader(input)})
	if err != nil {
		return "", fmt.Errorf("on %s: %w", n.Name, err)
	}
	if r.Code != 0 {
		return "", fmt.Errorf("on %s: %s: exit code %d: %s", n.Name, strings.Join(argv, " "), r.Code, strings.TrimSpace(r.Stderr))
	}
	return r.Stdout, nil
}

// clusterMap is the part of gnt-cluster map --json that says whether all nodes
// hold one fresh map.
type clusterMap struct {
	Candidates []json.RawMessage `json:"candidates"`
	Nodes      []struct {
		UUID    string          `json:"uuid"`
		Name    string          `json:"name"`
		Version json.RawMessage `json:"version"`
		Hash    string          `json:"hash"`
		Fresh   bool            `json:"fresh"`
	} `json:"nodes"`
}

// settled returns nil when all nodes hold one fresh map with the right number
// of candidates, and otherwise says what is missing.
func (m *clusterMap) settled(nodes, candidates int) error {
	if len(m.Nodes) != nodes {
		return fmt.Errorf("%d nodes of %d", len(m.Nodes), nodes)
	}
	if len(m.Candidates) != candidates {
		return fmt.Errorf("%d candidates of %d", len(m.Candidates), candidates)
	}
	for _, n := range m.Nodes {
		switch {
		case !n.Fresh:
			return fmt.Errorf("%s holds no fresh map", n.Name)
		case n.Hash == "" || n.Hash != m.Nodes[0].Hash || !slices.Equal(n.Version, m.Nodes[0].Version):
			return fmt.Errorf("%s holds version %s (%.12s), %s holds %s (%.12s)", n.Name, n.Version, n.Hash,
				m.Nodes[0].Name, m.Nodes[0].Version, m.Nodes[0].Hash)
		}
	}
	return nil
}

// AwaitMap waits until gnt-cluster map, run on the given node, shows so many
// nodes that all hold the same fresh map, with so many candidates.
func (c *Cluster) AwaitMap(ctx context.Context, node string, nodes, candidates int) error {
	n, err := c.Node(ctx, node)
	if err != nil {
		return err
	}
	_, err = c.converge(ctx, n, nodes, candidates)
	return err
}

// converge asks, at growing intervals, until the map has settled. It returns
// the nodes' UUIDs.
func (c *Cluster) converge(ctx context.Context, on Node, nodes, candidates int) (map[string]string, error) {
	var last error
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		m, err := c.readMap(ctx, on)
		if err == nil {
			err = m.settled(nodes, candidates)
		}
		if err == nil {
			return m.uuids(), nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for one map on all nodes: %w: last answer: %v", ctx.Err(), last)
		case <-time.After(wait):
		}
	}
}

func (c *Cluster) readMap(ctx context.Context, on Node) (*clusterMap, error) {
	out, err := c.step(ctx, on, "", "gnt-cluster", "map", "--json")
	if err != nil {
		return nil, err
	}
	m := new(clusterMap)
	if err := json.Unmarshal([]byte(out), m); err != nil {
		return nil, fmt.Errorf("read gnt-cluster map: %w", err)
	}
	return m, nil
}

func (m *clusterMap) uuids() map[string]string {
	out := map[string]string{}
	for _, n := range m.Nodes {
		out[n.Name] = n.UUID
	}
	return out
}

// explain prints the ends of the logs of the nodes where a step failed.
func (c *Cluster) explain(err error, nodes ...Node) error {
	for _, n := range nodes {
		for _, name := range []string{Noded, Masterd} {
			fmt.Fprintf(c.progress, "--- %s: %s\n%s\n", n.Name, n.Log(name), tail(n.Log(name), 20))
		}
	}
	return err
}
