package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Open returns the cluster that runs in dir, or ErrNotRunning.
func Open(ctx context.Context, dir string) (*Cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve cluster folder: %w", err)
	}
	c := &Cluster{dir: dir}
	if _, err := c.State(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Dir returns the cluster's folder.
func (c *Cluster) Dir() string { return c.dir }

// State asks the holder for what cluster.json says.
func (c *Cluster) State(ctx context.Context) (*State, error) {
	r, err := c.call(ctx, request{Op: opStatus})
	if err != nil {
		return nil, err
	}
	return r.State, nil
}

// Nodes returns the nodes, in the order of their names.
func (c *Cluster) Nodes(ctx context.Context) ([]Node, error) {
	st, err := c.State(ctx)
	if err != nil {
		return nil, err
	}
	return st.Nodes, nil
}

// Node returns one node by its name, with or without the domain.
func (c *Cluster) Node(ctx context.Context, name string) (Node, error) {
	st, err := c.State(ctx)
	if err != nil {
		return Node{}, err
	}
	return st.Node(name)
}

// Start starts the daemons of a node that do not run, and returns when they
// are ready.
func (c *Cluster) Start(ctx context.Context, nodes ...string) error {
	return c.do(ctx, request{Op: opStart, Nodes: nodes})
}

// Stop shuts a node down: SIGTERM to its daemons, a wait for their end, and
// SIGKILL to its SSH sessions.
func (c *Cluster) Stop(ctx context.Context, nodes ...string) error {
	return c.do(ctx, request{Op: opStop, Nodes: nodes})
}

// Kill ends a daemon of a node, or All, with SIGKILL. It returns when the
// daemon has ended. SSH sessions outlive their sshd, except with All.
func (c *Cluster) Kill(ctx context.Context, node, daemon string) error {
	return c.Signal(ctx, node, daemon, syscall.SIGKILL)
}

// Signal sends a signal to a daemon of a node, or to All. SIGSTOP and SIGCONT
// pause and resume it.
func (c *Cluster) Signal(ctx context.Context, node, daemon string, sig syscall.Signal) error {
	return c.do(ctx, request{Op: opKill, Nodes: []string{node}, Daemon: daemon, Signal: int(sig)})
}

// Partition cuts the named nodes off from all others, in both directions and
// silently; among themselves they still talk. Several partitions add up.
// Without namespaces it answers ErrNoNamespaces.
func (c *Cluster) Partition(ctx context.Context, nodes ...string) error {
	return c.do(ctx, request{Op: opPartition, Nodes: nodes})
}

// Heal ends all partitions, and all blocks.
func (c *Cluster) Heal(ctx context.Context) error { return c.do(ctx, request{Op: opHeal}) }

func (c *Cluster) do(ctx context.Context, req request) error {
	_, err := c.call(ctx, req)
	return err
}

// call makes one request that has one answer.
func (c *Cluster) call(ctx context.Context, req request) (reply, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := writeRequest(conn, req, nil); err != nil {
		return reply{}, errors.Join(ctx.Err(), err)
	}
	r, err := readReply(json.NewDecoder(conn))
	if err != nil && ctx.Err() != nil {
		return r, fmt.Errorf("%s: %w", req.Op, ctx.Err())
	}
	return r, err
}

func readReply(dec *json.Decoder) (reply, error) {
	var r reply
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("read holder's answer: %w", err)
	}
	if r.Error != nil {
		return r, r.Error
	}
	return r, nil
}

func (c *Cluster) dial(ctx context.Context) (*net.UnixConn, error) {
	conn, err := dialUnix(ctx, socketPath(c.dir))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%s: %w", c.dir, ErrNotRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("reach holder of %s: %w", c.dir, err)
	}
	return conn, nil
}

// Sweep removes what a holder that was killed left in dir: processes that
// still carry a node's root in their command line, and run files. It answers
// ErrNotRunning when there is nothing of a cluster.
func Sweep(dir string) error {
	st, err := ReadState(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, ErrNotRunning)
	}
	for _, n := range st.Nodes {
		for _, name := range daemonNames {
			pid := n.PIDs.Get(name)
			if pid == 0 || !mentions(pid, n.Root) {
				continue
			}
			killTree(append(descendants(pid), procOf(pid)...), syscall.SIGKILL)
		}
		removeRunFiles(n)
	}
	return errors.Join(os.Remove(statePath(dir)), removeIfThere(socketPath(dir)))
}

// Purge removes the files of a cluster that does not run from dir.
func Purge(dir string) error { return purgeDir(dir) }

func procOf(pid int) []procID {
	if st, ok := readStat(pid); ok {
		return []procID{st.procID}
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// SignalByName reads the name of a signal, with or without SIG.
func SignalByName(name string) (syscall.Signal, error) {
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	for sig, s := range map[string]syscall.Signal{
		"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT,
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1,
		"USR2": syscall.SIGUSR2, "ABRT": syscall.SIGABRT,
	} {
		if sig == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("unknown signal %q", name)
}
