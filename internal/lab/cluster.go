package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"rolekey/cluster"
)

// MaxNodes is the largest cluster: one byte of the address.
const MaxNodes = 250

// Config says what cluster to run. Nodes is required.
type Config struct {
	Nodes int
	// Dir is the cluster's folder. No cluster may run in it; the files of one
	// that ran are replaced. Empty means a temporary folder, which goes with
	// the cluster.
	Dir string
	// Isolation is IsolationLoopback, which is also the default, or
	// IsolationNetns, which needs root and answers ErrNeedsRoot without.
	Isolation string
	// Bin holds noded, masterd and the commands. The default is bin/ of the
	// repository around the working directory.
	Bin string
	// Ports default to Rolekey's own, and for sshd to 2222 with loopback.
	Ports cluster.Ports
	// CandidatePoolSize, MapLease and InitArgs go to gnt-cluster init; zero
	// values leave its defaults.
	CandidatePoolSize int
	MapLease          time.Duration
	InitArgs          []string
	// NoNamespaces uses the host's loopback even where namespaces work.
	NoNamespaces bool
	// Bare starts the daemons and forms no cluster of them.
	Bare bool
	// Detach lets the cluster outlive the process that called Up.
	Detach bool
	// ReadyLimit bounds the start of one daemon (default 30 s), FormLimit the
	// forming of the whole cluster (default 1 minute and 10 s per node).
	ReadyLimit, FormLimit time.Duration
	// Progress receives a line per step, and the ends of the logs that matter
	// when a step fails. Nil discards.
	Progress io.Writer
}

// Cluster is a running cluster.
type Cluster struct {
	dir      string
	temp     bool
	progress io.Writer

	// Of the process that called Up; nil after Open.
	lifeline io.Closer
	gone     <-chan struct{} // closed when the holder has ended
}

func (c Config) withDefaults() (Config, error) {
	if c.Nodes < 1 || c.Nodes > MaxNodes {
		return c, fmt.Errorf("%d nodes: want 1 to %d", c.Nodes, MaxNodes)
	}
	switch c.Isolation {
	case "", IsolationLoopback:
		c.Isolation = IsolationLoopback
	case IsolationNetns:
		if os.Geteuid() != 0 {
			return c, ErrNeedsRoot
		}
		if c.NoNamespaces {
			return c, errors.New("isolation netns is nothing without namespaces: use loopback")
		}
	default:
		return c, fmt.Errorf("isolation %q: want loopback or netns", c.Isolation)
	}
	if c.Ports == (cluster.Ports{}) {
		c.Ports = cluster.DefaultPorts
		if c.Isolation == IsolationLoopback {
			c.Ports.SSH = 2222
		}
	}
	if !c.Ports.Valid() {
		return c, errors.New("ports: one is missing or used twice")
	}
	if c.Bin == "" {
		c.Bin = filepath.Join(repoRoot(), "bin")
	}
	if c.ReadyLimit == 0 {
		c.ReadyLimit = 30 * time.Second
	}
	if c.FormLimit == 0 {
		c.FormLimit = time.Minute + time.Duration(c.Nodes)*10*time.Second
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	return c, nil
}

// Up starts a cluster and returns when all nodes hold one fresh map. After an
// error nothing of it is left but, in a given Dir, the files.
func Up(ctx context.Context, cfg Config) (*Cluster, error) {
	if !mainCalled {
		return nil, errors.New("lab.Up needs lab.Main at the start of the program")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Cluster{progress: cfg.Progress, temp: cfg.Dir == ""}
	if c.dir, err = prepareDir(cfg.Dir); err != nil {
		return nil, err
	}
	if cfg.Bin, err = filepath.Abs(cfg.Bin); err == nil {
		err = errors.Join(checkDir(c.dir), checkDir(cfg.Bin))
	}
	if err == nil {
		err = c.startHolder(ctx, cfg)
	}
	if err != nil {
		c.removeTemp()
		return nil, err
	}
	if err := c.bringUp(ctx, cfg); err != nil {
		c.abandon()
		return nil, err
	}
	return c, nil
}

// bringUp starts the daemons of all nodes at once and forms the cluster.
func (c *Cluster) bringUp(ctx context.Context, cfg Config) error {
	st, err := c.State(ctx)
	if err != nil {
		return err
	}
	if st.Lax != "" {
		fmt.Fprintf(c.progress, "warning: sshd runs with StrictModes off, since %s and no mount namespace hides it\n", st.Lax)
	}
	fmt.Fprintf(c.progress, "starting %d nodes in %s\n", len(st.Nodes), c.dir)
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range st.Nodes {
		g.Go(func() error { return c.Start(gctx, n.Name) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if !cfg.Bare {
		if err := c.form(ctx, cfg, st.Nodes); err != nil {
			return err
		}
	}
	if cfg.Detach {
		if _, err := c.call(ctx, request{Op: opDetach}); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.progress, "cluster is up: %d nodes\n", len(st.Nodes))
	return nil
}

// abandon takes down what Up had started, whatever became of its context.
func (c *Cluster) abandon() {
	c.lifeline.Close()
	<-c.gone
	c.removeTemp()
}

func (c *Cluster) removeTemp() {
	if c.temp {
		_ = os.RemoveAll(c.dir) // best effort: the caller has an error already
	}
}

// Down ends all processes of the cluster and removes its files from Dir.
func (c *Cluster) Down(ctx context.Context) error {
	if err := c.Shutdown(ctx); err != nil {
		return err
	}
	if err := purgeDir(c.dir); err != nil {
		return fmt.Errorf("remove cluster's files: %w", err)
	}
	return nil
}

// Shutdown ends all processes of the cluster and keeps the nodes' files, for
// reading.
func (c *Cluster) Shutdown(ctx context.Context) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := writeRequest(conn, request{Op: opDown}, nil); err != nil {
		return err
	}
	if _, err := readReply(json.NewDecoder(conn)); err != nil {
		return err
	}
	return c.awaitGone(ctx)
}

// awaitGone waits until the holder has let go of the folder's lock, which is
// the last that it does.
func (c *Cluster) awaitGone(ctx context.Context) error {
	if c.gone != nil {
		select {
		case <-c.gone:
			c.lifeline.Close()
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for holder: %w", ctx.Err())
		}
	}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		f, err := lockDir(c.dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			if f != nil {
				f.Close()
			}
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("wait for holder: %w", ctx.Err())
		}
	}
}
