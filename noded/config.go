package noded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"rolekey/candmap"
	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/internal/monitor"
	"rolekey/internal/paths"
	"rolekey/internal/strictoml"
	"rolekey/noded/masterip"
	"rolekey/rpc"
)

// Config is what noded reads from noded.toml, and what tests replace.
type Config struct {
	Paths     paths.Layout
	Addresses []netip.Addr  // the node's own; to listen on and to call from. Empty: all, and the system's choice
	Ports     cluster.Ports // zero fields: cluster.DefaultPorts
	LogLevel  zapcore.Level
	SSH       SSHConfig
	// MetricsAddress is where /metrics, /healthz and /readyz are; zero: nowhere.
	MetricsAddress netip.AddrPort
	Log            *zap.Logger           // nil: none
	Now            func() time.Time      // nil: time.Now
	Clocks         func() candmap.Clocks // nil: candmap.SystemClocks

	// The outside world; nil means this machine's own.
	Listen      func(ctx context.Context, addrs []netip.AddrPort) ([]net.Listener, error)
	Dial        func(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error)
	ListenLocal func(path string, mode os.FileMode) (net.Listener, error)
	DialLocal   func(ctx context.Context, path string) (net.Conn, error)
	Gossip      gossip.Network
	FileTime    func(path string) (time.Time, error) // when a file was changed, by the same clock as Now
	Kernel      masterip.Kernel                      // puts the cluster address onto a device
	Program     string                               // that sshd asks with; empty: this one
	ReloadSSHD  func(ctx context.Context, pidFile string) error
	// ShowsHostKeys returns nil if the sshd at an address shows these host keys.
	ShowsHostKeys func(ctx context.Context, at netip.AddrPort, keys []cluster.SSHKey) error
	Unwatched     bool // do not ask the kernel about changes of files

	askSSHPort bool // sshd may know better than the default
}

// SSHConfig says where SSH's files are, if not where sshd itself says.
type SSHConfig struct {
	AuthorizedKeys string   `toml:"authorized_keys"` // empty: ask sshd
	KnownHosts     string   `toml:"known_hosts"`     // empty: .ssh/known_hosts in the home
	User           string   `toml:"user"`            // empty: root, or the daemon's own user
	Home           string   `toml:"home"`            // empty: the user's
	HostKeys       []string `toml:"host_keys"`       // files with public keys; empty: ask sshd
	SSHD           string   `toml:"sshd"`            // empty: /usr/sbin/sshd
	SSHDConfig     string   `toml:"sshd_config"`     // empty: sshd's own default
}

// file is noded.toml.
type file struct {
	Addresses []netip.Addr `toml:"addresses"`
	LogLevel  string       `toml:"log_level"`
	Metrics   *string      `toml:"metrics_address"`
	Ports     filePorts    `toml:"ports"`
	SSH       SSHConfig    `toml:"ssh"`
}

type filePorts struct {
	Noded   uint16 `toml:"noded"`
	Masterd uint16 `toml:"masterd"`
	Gossip  uint16 `toml:"gossip"`
	RAPI    uint16 `toml:"rapi"`
	SSH     uint16 `toml:"ssh"`
}

// LoadConfig reads noded.toml below the root. A missing file means the
// defaults; an unknown key is an error that names its line.
func LoadConfig(at paths.Layout) (Config, error) {
	cfg := Config{Paths: at, LogLevel: zapcore.InfoLevel, MetricsAddress: monitor.DefaultAddr(nil, monitor.NodedPort)}
	path := at.NodedConfig()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg, cfg.complete()
	}
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	var f file
	if err := strictoml.Decode(path, string(text), &f); err != nil {
		return Config{}, err
	}
	cfg.Addresses, cfg.Ports, cfg.SSH = f.Addresses, cluster.Ports(f.Ports), f.SSH
	if cfg.MetricsAddress, err = monitor.ParseAddr(f.Metrics, f.Addresses, monitor.NodedPort); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	if f.LogLevel != "" {
		if cfg.LogLevel, err = zapcore.ParseLevel(f.LogLevel); err != nil {
			return Config{}, fmt.Errorf("%s: log_level: %w", path, err)
		}
	}
	if err := cfg.complete(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// complete fills in defaults and checks the rest.
func (c *Config) complete() error {
	for i, a := range c.Addresses {
		if err := cluster.CheckAddr(a); err != nil {
			return fmt.Errorf("addresses: %w", err)
		}
		for _, b := range c.Addresses[:i] {
			if a == b {
				return fmt.Errorf("addresses: %s stands there twice", a)
			}
		}
	}
	if len(c.Addresses) > candmap.MaxAddresses {
		return fmt.Errorf("addresses: %d, the limit is %d", len(c.Addresses), candmap.MaxAddresses)
	}
	c.askSSHPort = c.askSSHPort || c.Ports.SSH == 0
	d := cluster.DefaultPorts
	for _, p := range []struct{ have, def *uint16 }{
		{&c.Ports.Noded, &d.Noded},
		{&c.Ports.Masterd, &d.Masterd},
		{&c.Ports.Gossip, &d.Gossip},
		{&c.Ports.RAPI, &d.RAPI},
		{&c.Ports.SSH, &d.SSH},
	} {
		if *p.have == 0 {
			*p.have = *p.def
		}
	}
	if !c.Ports.Valid() {
		return errors.New("ports: one port is used twice")
	}
	return c.SSH.check()
}

func (s *SSHConfig) check() error {
	files := append([]string{s.AuthorizedKeys, s.KnownHosts, s.Home, s.SSHD, s.SSHDConfig}, s.HostKeys...)
	for _, f := range files {
		if f != "" && !filepath.IsAbs(f) {
			return fmt.Errorf("ssh: %q is not an absolute path", f)
		}
	}
	return nil
}

// world fills in this machine.
func (c *Config) world() {
	if c.Listen == nil {
		c.Listen = rpc.Listen
	}
	if c.ListenLocal == nil {
		c.ListenLocal = paths.ListenUnix
	}
	if c.DialLocal == nil {
		c.DialLocal = paths.DialUnix
	}
	if c.Program == "" {
		c.Program = programPath()
	}
	if c.ReloadSSHD == nil {
		own := c.Paths.Root == "" // otherwise other nodes' sshd runs here too
		c.ReloadSSHD = func(_ context.Context, pidFile string) error { return reloadSSHD(pidFile, own) }
	}
	if c.FileTime == nil {
		c.FileTime = fileTime
	}
}

func fileTime(path string) (time.Time, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

func (c *Config) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *Config) clocks() func() candmap.Clocks {
	if c.Clocks != nil {
		return c.Clocks
	}
	return candmap.SystemClocks
}

// bindAddress is where calls come from, so that other nodes' sshd and
// firewalls see it. Invalid: the system's choice.
func (c *Config) bindAddress() netip.Addr {
	if len(c.Addresses) > 0 {
		return c.Addresses[0]
	}
	return netip.Addr{}
}
