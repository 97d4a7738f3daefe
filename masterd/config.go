package masterd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/monitor"
	"rolekey/internal/paths"
	"rolekey/internal/strictoml"
	"rolekey/masterd/consensus"
	"rolekey/rpc"
)

// Config is what masterd reads from masterd.toml, and what tests replace.
type Config struct {
	Paths     paths.Layout
	Addresses []netip.Addr // to listen on and to call from; empty: all, and the system's choice
	LogLevel  zapcore.Level
	// MetricsAddress is where /metrics, /healthz and /readyz are; zero: nowhere.
	MetricsAddress netip.AddrPort

	Timing consensus.Timing // zero: consensus.DefaultTiming
	Log    *zap.Logger      // nil: none
	Now    func() time.Time // nil: time.Now

	// The outside world; nil means this machine's own.
	Clocks      func() candmap.Clocks
	Listen      func(ctx context.Context, addrs []netip.AddrPort) ([]net.Listener, error)
	ListenAway  func(ctx context.Context, addr netip.AddrPort) (net.Listener, error) // on an address that may not be here yet
	Dial        func(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error)
	ListenLocal func(path string, mode os.FileMode) (net.Listener, error)
	DialLocal   func(ctx context.Context, path string) (net.Conn, error)

	Crash func(step string) error // nil, or a test's failure before a step of a recovery
}

// withDefaults fills in this machine.
func (c Config) withDefaults() Config {
	if c.Clocks == nil {
		c.Clocks = candmap.SystemClocks
	}
	if c.Listen == nil {
		c.Listen = rpc.Listen
	}
	if c.ListenAway == nil {
		c.ListenAway = listenShared
	}
	if c.ListenLocal == nil {
		c.ListenLocal = paths.ListenUnix
	}
	if c.DialLocal == nil {
		c.DialLocal = paths.DialUnix
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// file is masterd.toml.
type file struct {
	Addresses []netip.Addr `toml:"addresses"`
	LogLevel  string       `toml:"log_level"`
	Metrics   *string      `toml:"metrics_address"`
}

// LoadConfig reads masterd.toml below the root. A missing file means the
// defaults; an unknown key is an error that names its line.
func LoadConfig(at paths.Layout) (Config, error) {
	cfg := Config{Paths: at, LogLevel: zapcore.InfoLevel, MetricsAddress: monitor.DefaultAddr(nil, monitor.MasterdPort)}
	text, err := os.ReadFile(at.MasterdConfig())
	if os.IsNotExist(err) {
		return cfg, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	var f file
	if err := strictoml.Decode(at.MasterdConfig(), string(text), &f); err != nil {
		return Config{}, err
	}
	for _, a := range f.Addresses {
		if err := cluster.CheckAddr(a); err != nil {
			return Config{}, fmt.Errorf("%s: addresses: %w", at.MasterdConfig(), err)
		}
	}
	cfg.Addresses = f.Addresses
	if cfg.MetricsAddress, err = monitor.ParseAddr(f.Metrics, f.Addresses, monitor.MasterdPort); err != nil {
		return Config{}, fmt.Errorf("%s: %w", at.MasterdConfig(), err)
	}
	if f.LogLevel != "" {
		if cfg.LogLevel, err = zapcore.ParseLevel(f.LogLevel); err != nil {
			return Config{}, fmt.Errorf("%s: log_level: %w", at.MasterdConfig(), err)
		}
	}
	return cfg, nil
}

// bindAddress is where calls come from: the node's own first address, so that
// other nodes' sshd and firewalls see it. Invalid: the system's choice.
func (c *Config) bindAddress() netip.Addr {
	if len(c.Addresses) > 0 {
		return c.Addresses[0]
	}
	return netip.Addr{}
}

func (c *Config) listenAddresses() []netip.Addr {
	if len(c.Addresses) > 0 {
		return c.Addresses
	}
	return []netip.Addr{netip.IPv6Unspecified()}
}
