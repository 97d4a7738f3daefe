// Command noded is Rolekey's node daemon, and what local root tells it: join a
// cluster, leave it, trust a map, say where this node stands. Package noded does
// the work.
//
// Exit codes: 0 done; 1 failed; 5 no cluster here; 13 confirmation declined.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"rolekey/cluster"
	"rolekey/internal/buildinfo"
	"rolekey/internal/paths"
	"rolekey/internal/sdnotify"
	"rolekey/internal/task"
	"rolekey/noded"
)

// Exit codes.
const (
	exitFailed    = 1
	exitNoCluster = 5
	exitDeclined  = 13
)

// errDeclined says that a dangerous command was not confirmed.
var errDeclined = errors.New("not confirmed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// streams are the program's standard files.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, std streams) int {
	cmd := rootCommand(std)
	cmd.SetArgs(args)
	cmd.SetIn(std.in)
	cmd.SetOut(std.out)
	cmd.SetErr(std.err)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(std.err, "noded:", err)
	if hint := cluster.HintOf(err); hint != "" {
		fmt.Fprintln(std.err, "hint:", hint)
	}
	switch {
	case errors.Is(err, errDeclined):
		return exitDeclined
	case cluster.CodeOf(err) == cluster.CodeNoMap:
		return exitNoCluster
	default:
		return exitFailed
	}
}

func rootCommand(std streams) *cobra.Command {
	var root string
	var check bool
	cmd := &cobra.Command{
		Use:   "noded",
		Short: "Rolekey's node daemon",
		Long: `noded runs on every node of a cluster, as root. Without a command it is the
daemon: it serves until it gets SIGTERM, and logs to stderr. The commands talk
to the daemon that runs on this machine.`,
		Example: `  noded --check-config
  noded join --token-file /root/token
  gnt-node add node2.example.com | ssh node2 noded join -
  noded status
  noded leave --yes`,
		Version:       buildinfo.Version(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := layout(root)
			if err != nil {
				return err
			}
			cfg, err := noded.LoadConfig(at)
			if err != nil || check {
				return err
			}
			return serve(cmd.Context(), cfg, std.err)
		},
	}
	cmd.SetVersionTemplate("noded {{.Version}}\n")
	cmd.PersistentFlags().StringVar(&root, "root", os.Getenv("ROLEKEY_ROOT"), "folder that stands for / (default $ROLEKEY_ROOT)")
	cmd.Flags().BoolVar(&check, "check-config", false, "check noded.toml and exit")
	cmd.AddCommand(joinCommand(&root, std), leaveCommand(&root), trustCommand(&root, std), peersCommand(&root, std), statusCommand(&root, std), authorizedKeysCommand(&root, std))
	return cmd
}

func layout(root string) (paths.Layout, error) {
	if root == "" {
		return paths.Layout{}, nil
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return paths.Layout{}, fmt.Errorf("root %q: %w", root, err)
	}
	return paths.Layout{Root: abs}, nil
}

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, cfg noded.Config, log io.Writer) error {
	if err := noded.Harden(); err != nil {
		return err
	}
	if os.Getenv("GOMAXPROCS") == "" {
		// The machine is there for other things, and what noded does is short:
		// to spread it over processors costs more than it gains.
		runtime.GOMAXPROCS(1)
	}
	cfg.Log = newLogger(log, cfg.LogLevel)
	defer func() { _ = cfg.Log.Sync() }() // stderr may not be syncable
	d, err := noded.New(cfg)
	if err != nil {
		return err
	}
	g := task.New(ctx)
	g.Go("watchdog", func(ctx context.Context) error { return sdnotify.RunWatchdog(ctx, func() bool { return true }) })
	g.Go("reload", func(ctx context.Context) error { return reload(ctx, d) })
	g.Go("noded", func(ctx context.Context) error {
		defer g.Stop()
		return d.Run(ctx, func() {
			cfg.Log.Info("serving", zap.String("version", buildinfo.Version()))
			if err := sdnotify.Ready(); err != nil {
				cfg.Log.Warn("service manager is not told", zap.Error(err))
			}
		})
	})
	err = g.Wait()
	return errors.Join(err, sdnotify.Stopping())
}

// reload obeys SIGHUP, by which the service manager reloads.
func reload(ctx context.Context, d *noded.Daemon) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			d.Reload()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// newLogger writes JSON lines.
func newLogger(to io.Writer, level zapcore.Level) *zap.Logger {
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(to)), level)
	return zap.New(core).Named("noded")
}
