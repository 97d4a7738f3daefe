package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"rolekey/internal/buildinfo"
	"rolekey/internal/paths"
)

// app is one run of a command.
type app struct {
	in       io.Reader // nil: standard input
	out, err io.Writer
	now      func() time.Time
	root     string
	far      remoteFlags
	asJSON   bool
	exec     func(path string, argv []string) error // nil: become another program
	client   *client
}

// Program makes the commands of one program.
type Program func(*app) *cobra.Command

// Main runs a program with the process's arguments and returns its exit code.
func Main(program Program) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return Run(ctx, program, os.Args[1:], os.Stdout, os.Stderr)
}

// Run runs a program and returns its exit code.
func Run(ctx context.Context, program Program, args []string, stdout, stderr io.Writer) int {
	a := &app{out: stdout, err: stderr, now: time.Now}
	cmd := program(a)
	a.prepare(cmd)
	args, err := withDefaults(cmd, args)
	if err == nil {
		cmd.SetArgs(args)
		err = cmd.ExecuteContext(ctx)
	}
	if err != nil {
		explain(stderr, err)
	}
	return exitCode(err)
}

// prepare gives a program what all have: --root, --version, and quiet errors.
func (a *app) prepare(cmd *cobra.Command) {
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.Version = buildinfo.Version()
	cmd.SetVersionTemplate(cmd.Name() + " (Rolekey) {{.Version}}\n")
	cmd.SetOut(a.out)
	cmd.SetErr(a.err)
	cmd.PersistentFlags().StringVar(&a.root, "root", "", "work below this folder instead of / (default: $ROLEKEY_ROOT)")
	a.far.flags(cmd.PersistentFlags())
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%v\nSee '%s --help'", err, c.CommandPath())
	})
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error { return a.connect() }
	cmd.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage("unknown command %q\nSee '%s --help'", args[0], c.CommandPath())
		}
		c.SetOut(a.err)
		return errors.Join(c.Help(), &exitError{ExitFailed, ""})
	}
	cmd.Args = cobra.ArbitraryArgs
}

func (a *app) connect() error {
	at := paths.Layout{Root: cmp.Or(a.root, os.Getenv("ROLEKEY_ROOT"))}
	if at.Root != "" {
		root, err := filepath.Abs(at.Root)
		if err != nil {
			return fmt.Errorf("find root folder: %w", err)
		}
		at.Root = root
	}
	far, err := a.far.chosen()
	if err != nil {
		return err
	}
	if far != nil {
		a.client, err = newRemoteClient(at, far)
		return err
	}
	a.client = newClient(at)
	return nil
}

// jsonFlag gives a command --json.
func (a *app) jsonFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&a.asJSON, "json", false, "print JSON")
	return cmd
}

// exactArgs is cobra.ExactArgs with the command's own words.
func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("usage: %s\nSee '%s --help'", cmd.UseLine(), cmd.CommandPath())
		}
		return nil
	}
}

func atLeastOne(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return exactArgs(1)(cmd, args)
	}
	return nil
}
