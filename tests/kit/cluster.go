package kit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"rolekey/cluster"
	"rolekey/internal/lab"
)

// Cluster is a running cluster, with shorter ways to ask it.
type Cluster struct {
	*lab.Cluster
	Ports cluster.Ports
}

// Open finds the cluster that runs in dir.
func Open(ctx context.Context, dir string) (*Cluster, error) {
	c, err := lab.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	st, err := c.State(ctx)
	if err != nil {
		return nil, err
	}
	return &Cluster{c, st.Ports}, nil
}

// Noded is the address of a node's noded, Masterd that of its masterd.
func (c *Cluster) Noded(n lab.Node) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(n.Address), c.Ports.Noded)
}

// Masterd is the address of a node's masterd.
func (c *Cluster) Masterd(n lab.Node) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(n.Address), c.Ports.Masterd)
}

// Others returns all nodes but those named.
func (c *Cluster) Others(ctx context.Context, names ...string) ([]lab.Node, error) {
	all, err := c.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	var out []lab.Node
	for _, n := range all {
		named := false
		for _, name := range names {
			named = named || n.Name == name || n.Short() == name
		}
		if !named {
			out = append(out, n)
		}
	}
	return out, nil
}

// NodedOf returns the addresses of the noded of each node.
func (c *Cluster) NodedOf(nodes []lab.Node) []netip.AddrPort {
	var out []netip.AddrPort
	for _, n := range nodes {
		out = append(out, c.Noded(n))
	}
	return out
}

// Run is a command that has run.
type Run struct {
	lab.Result
	Args    []string
	Started time.Time
	Took    time.Duration
}

// Sh runs a command on a node.
func (c *Cluster) Sh(ctx context.Context, node string, args ...string) (Run, error) {
	return c.Feed(ctx, node, "", args...)
}

// Feed runs a command on a node, with input.
func (c *Cluster) Feed(ctx context.Context, node, input string, args ...string) (Run, error) {
	r := Run{Args: args, Started: time.Now()}
	var err error
	r.Result, err = c.Cluster.Run(ctx, lab.Cmd{Node: node, Args: args, Stdin: strings.NewReader(input)})
	r.Took = time.Since(r.Started)
	if err != nil {
		return r, fmt.Errorf("on %s: %s: %w", node, strings.Join(args, " "), err)
	}
	return r, nil
}

// Must runs a command that must end with the given code.
func (c *Cluster) Must(ctx context.Context, code int, node string, args ...string) (Run, error) {
	r, err := c.Sh(ctx, node, args...)
	if err == nil {
		err = r.Want(code)
	}
	if err != nil && !strings.HasPrefix(err.Error(), "on ") {
		err = fmt.Errorf("on %s: %w", node, err)
	}
	return r, err
}

// Want returns an error unless the command ended with the code.
func (r *Run) Want(code int) error {
	if r.Code == code {
		return nil
	}
	said := strings.TrimSpace(r.Stderr)
	if said == "" {
		said = strings.TrimSpace(r.Stdout)
	}
	return fmt.Errorf("%s: exit code %d, want %d: %s", strings.Join(r.Args, " "), r.Code, code, said)
}

// Map is the part of gnt-cluster map --json that the tests read.
type Map struct {
	Epoch      uint64         `json:"epoch"`
	Version    uint64         `json:"version"`
	Hash       string         `json:"hash"`
	Master     cluster.NodeID `json:"master"`
	Candidates []struct {
		UUID  cluster.NodeID `json:"uuid"`
		Name  string         `json:"name"`
		Voter bool           `json:"voter"`
	} `json:"candidates"`
	Nodes []MapNode `json:"nodes"`
}

// MapNode is what a node confirmed to the master.
type MapNode struct {
	UUID      cluster.NodeID  `json:"uuid"`
	Name      string          `json:"name"`
	Role      string          `json:"role"`
	Version   json.RawMessage `json:"version"`
	Hash      string          `json:"hash"`
	Fresh     bool            `json:"fresh"`
	Reachable bool            `json:"reachable"`
	Problem   string          `json:"problem"`
}

// ReadMap runs gnt-cluster map on a node.
func (c *Cluster) ReadMap(ctx context.Context, node string) (*Map, error) {
	r, err := c.Must(ctx, 0, node, "gnt-cluster", "map", "--json")
	if err != nil {
		return nil, err
	}
	m := new(Map)
	if err := json.Unmarshal([]byte(r.Stdout), m); err != nil {
		return nil, fmt.Errorf("read gnt-cluster map: %w", err)
	}
	return m, nil
}

// Has reports whether the map names the node as a candidate.
func (m *Map) Has(node string) bool {
	for _, c := range m.Candidates {
		if c.Name == node || strings.HasPrefix(c.Name, node+".") {
			return true
		}
	}
	return false
}

// Voters counts the candidates that vote.
func (m *Map) Voters() (n int) {
	for _, c := range m.Candidates {
		if c.Voter {
			n++
		}
	}
	return n
}

// Master returns the node whose masterd is the master in office.
func (c *Cluster) Master(ctx context.Context) (string, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return "", err
	}
	errs := []error{errors.New("no node is the master in office")}
	for _, n := range nodes {
		if n.PIDs.Masterd == 0 {
			continue
		}
		ready, err := c.inOffice(ctx, n)
		if ready {
			return n.Name, nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.Short(), err))
		}
	}
	return "", errors.Join(errs...)
}

// askLimit bounds a question to one masterd, which may be stopped.
const askLimit = time.Second

// inOffice asks a masterd whether it is the master.
func (c *Cluster) inOffice(ctx context.Context, n lab.Node) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	r := NewRAPI(n)
	defer r.Close()
	var info struct {
		Rolekey struct {
			Ready bool `json:"ready"`
		} `json:"rolekey"`
	}
	err := r.Call(ctx, http.MethodGet, "/2/info", nil, &info)
	return info.Rolekey.Ready, err
}

// AwaitMaster waits until a node is the master and serves; not is a node that
// does not count.
func (c *Cluster) AwaitMaster(ctx context.Context, limit time.Duration, not string) (string, time.Duration, error) {
	var name string
	took, err := Until(ctx, limit, func(ctx context.Context) (err error) {
		if name, err = c.Master(ctx); err == nil && name == not {
			err = fmt.Errorf("%s is still the master", not)
		}
		return err
	})
	return name, took, err
}

// LogSays counts the lines of a daemon's log that contain all the words, after
// the given offset.
func LogSays(n lab.Node, daemon string, from int64, words ...string) (int, error) {
	b, err := os.ReadFile(n.Log(daemon))
	if err != nil {
		return 0, fmt.Errorf("read log of %s: %w", n.Name, err)
	}
	count := 0
	for line := range strings.SplitSeq(string(b[min(from, int64(len(b))):]), "\n") {
		all := line != ""
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			count++
		}
	}
	return count, nil
}

// LogEnd is where a daemon's log ends now.
func LogEnd(n lab.Node, daemon string) int64 {
	st, err := os.Stat(n.Log(daemon))
	if err != nil {
		return 0
	}
	return st.Size()
}

// RSS is the resident memory of a process, in bytes (proc_pid_status(5)).
func RSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("read memory of process %d: it has none", pid)
}
