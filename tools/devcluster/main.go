// Command devcluster runs a Rolekey cluster on this machine: real daemons, one
// sshd per node, and cuts in the network. Package internal/lab does the work;
// this is its command line.
//
// Exit codes: 0 done; 1 failed; 5 no cluster runs in the folder; 77 a partition
// was asked for where the kernel allows none. exec answers with the command's
// own code, 127 if there is no such command, and 125 if it could not be run
// for another reason.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"rolekey/internal/buildinfo"
	"rolekey/internal/lab"
)

// Exit codes.
const (
	exitFailed     = 1
	exitNoCluster  = 5
	exitSkipped    = 77
	exitExecFailed = 125
	exitNotFound   = 127
)

// exitCode is an error that has been told already, or needs no words.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func main() {
	lab.Main(nil)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string) int {
	cmd := rootCommand()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, lab.ErrNoNamespaces):
		fmt.Fprintln(os.Stderr, "SKIPPED:", err)
		return exitSkipped
	}
	fmt.Fprintln(os.Stderr, "devcluster:", err)
	if errors.Is(err, lab.ErrNotRunning) {
		fmt.Fprintln(os.Stderr, "hint: start one with devcluster up --nodes 3, or name its folder with --dir")
		return exitNoCluster
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "devcluster",
		Short:         "Run a Rolekey cluster on this machine",
		Version:       buildinfo.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetVersionTemplate("devcluster {{.Version}}\n")
	cmd.SetOut(os.Stdout)
	dir := cmd.PersistentFlags().String("dir", defaultDir(), "the cluster's folder")
	// All programs of Rolekey take --root; here it means the same folder.
	cmd.PersistentFlags().StringVar(dir, "root", *dir, "the same as --dir")
	cmd.AddCommand(
		upCommand(dir), downCommand(dir), statusCommand(dir), execCommand(dir), killCommand(dir),
		nodeCommand(dir, "stop", "Shut nodes down: SIGTERM to all daemons, and wait", (*lab.Cluster).Stop),
		nodeCommand(dir, "start", "Start the daemons of nodes that do not run", (*lab.Cluster).Start),
		partitionCommand(dir), healCommand(dir),
	)
	return cmd
}

func defaultDir() string {
	if d := os.Getenv("ROLEKEY_DEVCLUSTER"); d != "" {
		return d
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "rolekey-dev"
	}
	return filepath.Join(home, "rolekey-dev")
}
