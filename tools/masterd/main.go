// Command masterd is the master daemon: it takes part in the cluster's
// decisions while its node is a candidate, and idles otherwise. Package
// masterd does the work; see masterd(8).
//
// Exit codes: 0 after SIGTERM or SIGINT, or if the configuration is sound; 1
// otherwise.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"rolekey/internal/buildinfo"
	"rolekey/internal/paths"
	"rolekey/internal/sdnotify"
	"rolekey/masterd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := command(stdout, stderr)
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "masterd:", err)
		return 1
	}
	return 0
}

func command(stdout, stderr io.Writer) *cobra.Command {
	var root string
	var check bool
	cmd := &cobra.Command{
		Use:           "masterd",
		Short:         "Run Rolekey's master daemon",
		Example:       "  masterd\n  masterd --check-config",
		Args:          cobra.NoArgs,
		Version:       buildinfo.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := configure(root)
			if err != nil || check {
				return err
			}
			return serve(cmd.Context(), cfg, stderr)
		},
	}
	cmd.SetVersionTemplate("masterd (Rolekey) {{.Version}}\n")
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.Flags().StringVar(&root, "root", os.Getenv("ROLEKEY_ROOT"), "work below this folder instead of / (ROLEKEY_ROOT)")
	cmd.Flags().BoolVar(&check, "check-config", false, "read the configuration, report errors, and exit")
	return cmd
}

func configure(root string) (masterd.Config, error) {
	at := paths.Layout{}
	if root != "" {
		abs, err := filepath.Abs(root)
		if err != nil {
			return masterd.Config{}, fmt.Errorf("find root folder: %w", err)
		}
		at.Root = abs
	}
	return masterd.LoadConfig(at)
}

// serve runs the daemon until ctx ends, which is no error.
func serve(ctx context.Context, cfg masterd.Config, stderr io.Writer) error {
	if err := harden(); err != nil {
		return err
	}
	log := newLog(stderr, cfg.LogLevel)
	cfg.Log = log
	log.Info("starting", zap.String("version", buildinfo.Version()))
	d := masterd.New(cfg)
	defer hearHangups(log, d.Reload)()
	err := d.Run(ctx, func() { ready(log) })
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		log.Info("stopped")
		return nil
	}
	if err == nil {
		return errors.New("the daemon ended by itself")
	}
	return err
}

// hearHangups keeps SIGHUP, by which the service manager reloads, from ending
// the daemon. All there is to reload is the audit log, which may have been
// renamed: what can change is replicated.
func hearHangups(log *zap.Logger, reload func()) (stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range hup {
			reload()
			log.Info("audit log opened anew; a changed masterd.toml needs a restart")
		}
	}()
	return func() {
		signal.Stop(hup)
		close(hup)
		<-ended
	}
}

func ready(log *zap.Logger) {
	log.Info("ready")
	if err := sdnotify.Ready(); err != nil {
		log.Warn("service manager not told", zap.Error(err))
	}
}

// newLog writes JSON, one object on each line.
func newLog(w io.Writer, level zapcore.Level) *zap.Logger {
	c := zap.NewProductionEncoderConfig()
	c.TimeKey = "time"
	c.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(c), zapcore.Lock(zapcore.AddSync(w)), level))
}

// harden keeps keys out of core dumps and out of the sight of other processes
// of the same user.
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make process undumpable: %w", err)
	}
	return nil
}
