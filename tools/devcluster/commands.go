package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"rolekey/internal/lab"
)

func upCommand(dir *string) *cobra.Command {
	cfg := lab.Config{Detach: true, Progress: os.Stderr}
	cmd := &cobra.Command{
		Use:   "up --nodes N",
		Short: "Start a cluster; returns when all nodes hold one fresh map",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Dir = *dir
			if cfg.Bin == "" {
				cfg.Bin = ownFolder()
			}
			_, err := lab.Up(cmd.Context(), cfg)
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Nodes, "nodes", 3, "number of nodes")
	f.StringVar(&cfg.Isolation, "isolation", lab.IsolationLoopback, "how nodes are kept apart: loopback, or (root only) netns")
	f.IntVar(&cfg.CandidatePoolSize, "candidate-pool-size", 0, "wanted number of candidates (default: that of gnt-cluster init)")
	f.DurationVar(&cfg.MapLease, "map-lease", 0, "lease of the candidate map, as 3s (default: that of gnt-cluster init)")
	f.StringArrayVar(&cfg.InitArgs, "init-arg", nil, "one more argument for gnt-cluster init (repeatable)")
	f.StringVar(&cfg.Bin, "bin", "", "folder of the programs (default: where devcluster lies)")
	f.BoolVar(&cfg.Bare, "bare", false, "start the daemons, form no cluster of them")
	f.BoolVar(&cfg.NoNamespaces, "no-namespaces", false, "use the host's loopback; no partitions")
	return cmd
}

// ownFolder returns devcluster's own folder if the daemons lie next to it, or
// nothing, which means bin/ of the repository.
func ownFolder() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(exe), "noded")); err != nil {
		return ""
	}
	return filepath.Dir(exe)
}

func downCommand(dir *string) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End all processes of the cluster; its files stay",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := takeDown(cmd.Context(), *dir)
			if !purge || (err != nil && !errors.Is(err, lab.ErrNotRunning)) {
				return err
			}
			return lab.Purge(*dir)
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the nodes' files too")
	return cmd
}

// takeDown also ends what a killed holder has left.
func takeDown(ctx context.Context, dir string) error {
	c, err := lab.Open(ctx, dir)
	if errors.Is(err, lab.ErrNotRunning) {
		return lab.Sweep(dir)
	}
	if err != nil {
		return err
	}
	return c.Shutdown(ctx)
}

func statusCommand(dir *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show nodes, addresses, pids and cuts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := lab.Open(cmd.Context(), *dir)
			if err != nil {
				return err
			}
			st, err := c.State(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(st)
			}
			return printStatus(cmd.OutOrStdout(), st)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what cluster.json holds")
	return cmd
}

func printStatus(out io.Writer, st *lab.State) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tADDRESS\tSSH\tNODED\tMASTERD\tSSHD")
	for _, n := range st.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", n.Name, strings.Join(n.Addresses, ","), n.SSHPort, pid(n.PIDs.Noded), pid(n.PIDs.Masterd), pid(n.PIDs.SSHD))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	for _, c := range st.Cuts {
		fmt.Fprintf(out, "cut: %s - %s\n", c[0], c[1])
	}
	if !st.Namespaces {
		fmt.Fprintf(out, "no partitions: %s\n", st.Reason)
	}
	if st.Lax != "" {
		fmt.Fprintf(out, "StrictModes off: %s\n", st.Lax)
	}
	return nil
}

func pid(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func execCommand(dir *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec NODE -- CMD...",
		Short: "Run a command as on the node, and exit with its code",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := execOn(cmd.Context(), *dir, lab.Cmd{Node: args[0], Args: args[1:]})
			if errors.Is(err, lab.ErrNotFound) {
				code = exitNotFound
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "devcluster:", err)
			}
			if code == 0 {
				return nil
			}
			return exitCode(code)
		},
	}
	// Flags after NODE belong to CMD, with or without the --.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func execOn(ctx context.Context, dir string, cmd lab.Cmd) (int, error) {
	c, err := lab.Open(ctx, dir)
	if err != nil {
		return exitExecFailed, err
	}
	if cmd.Args[0] == "--" {
		cmd.Args = cmd.Args[1:]
	}
	// The command decides what an interrupt means, so it gets the signals, and
	// the end of ctx does not kill it.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer close(signals) // ends the loop below
	defer signal.Stop(signals)
	p, err := c.SpawnFiles(context.WithoutCancel(ctx), cmd, os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		return exitExecFailed, err
	}
	go func() {
		for s := range signals {
			_ = p.Signal(s.(syscall.Signal)) // it may have ended
		}
	}()
	code, err := p.Wait()
	if err != nil {
		return exitExecFailed, err
	}
	return code, nil
}

func killCommand(dir *string) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:       "kill NODE noded|masterd|sshd|all",
		Short:     "Send SIGKILL, or --signal, to a daemon or to all processes of a node",
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{lab.Noded, lab.Masterd, lab.SSHD, lab.All},
		RunE: func(cmd *cobra.Command, args []string) error {
			sig, err := lab.SignalByName(name)
			if err != nil {
				return err
			}
			c, err := lab.Open(cmd.Context(), *dir)
			if err != nil {
				return err
			}
			return c.Signal(cmd.Context(), args[0], args[1], sig)
		},
	}
	cmd.Flags().StringVar(&name, "signal", "KILL", "the signal; STOP pauses and CONT resumes")
	return cmd
}

// nodeCommand makes a command that does one thing to nodes.
func nodeCommand(dir *string, name, short string, do func(*lab.Cluster, context.Context, ...string) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " NODE[,NODE...]",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := lab.Open(cmd.Context(), *dir)
			if err != nil {
				return err
			}
			return do(c, cmd.Context(), nodeNames(args)...)
		},
	}
}

// nodeNames accepts names apart and joined by commas.
func nodeNames(args []string) []string {
	return strings.FieldsFunc(strings.Join(args, ","), func(r rune) bool { return r == ',' })
}

func partitionCommand(dir *string) *cobra.Command {
	return nodeCommand(dir, "partition", "Cut nodes off from all others, silently; cuts add up", (*lab.Cluster).Partition)
}

func healCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "heal",
		Short: "End all partitions",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := lab.Open(cmd.Context(), *dir)
			if err != nil {
				return err
			}
			return c.Heal(cmd.Context())
		},
	}
}
