package noded

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/sshkeys"
)

// sshd asks noded
//
// With ssh_authorize=command sshd runs `noded authorized-keys` at each login to
// the account, and the block in authorized_keys is empty. Whether the sshd that
// runs really does so is not believed, but tried: noded offers it a key that
// nobody has, and sees whether it is asked about that key. Only then is the
// block taken away; and it is back before sshd is told not to ask. So at each
// moment the keys of the map in force work, and no others.
//
// A note lies beside the identity from before the drop-in is changed until sshd
// is known to have read it, so that a later run completes the change. A drop-in
// without the note is what sshd follows.

const (
	reloadNote  = "sshd-reload"
	proveTries  = 4                      // since 9.8 sshd shuts out who fails often
	provePause  = 100 * time.Millisecond // before the first try is repeated; it grows
	commandTime = 10 * time.Second       // of a whole change
)

// sshCommand tells sshd to ask noded, or not to. Its changes are made by
// sshFiles alone, one at a time.
type sshCommand struct {
	cfg    *Config
	finder *sshFinder
	log    *zap.Logger
	step   func(name string) error // where tests make a crash
	probes askProbes

	pidFile string // of sshd, as it was told to ask

	mu      sync.Mutex
	loaded  bool
	set     *sshSettings // of the last look; others make it look anew
	asks    bool         // sshd asks, and follows the drop-in
	proven  bool         // in this run
	problem error        // why it does not ask as it should, or does as it should not
	retry   time.Time    // not before
}

// errForeignCommand says that the administrator uses AuthorizedKeysCommand.
var errForeignCommand = errors.New("sshd_config has an AuthorizedKeysCommand of its own")

// wanted reports whether sshd is to ask. Without a roster all stays as it is.
func (c *sshCommand) wanted(v *candmap.View) bool {
	if v.Roster == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.asks
	}
	return wantsSSH(v) && v.Roster.SSH().Authorize == cluster.AuthorizeCommand
}

// answers reports whether sshd asks noded, and is to: then nothing is to stand
// in authorized_keys.
func (c *sshCommand) answers(v *candmap.View, set *sshSettings) bool {
	if !c.wanted(v) {
		return false
	}
	kc := c.command(set)
	text, err := kc.Render()
	c.mu.Lock()
	defer c.mu.Unlock()
	right := err == nil && sshkeys.HasDropIn(c.cfg.Paths.SSHDDropIn(), text)
	if set != c.set {
		c.set, c.proven, c.retry = set, false, time.Time{}
	}
	if !c.loaded {
		c.loaded, c.asks = true, right && !exists(c.note())
	}
	if c.asks && !right {
		c.asks, c.proven, c.retry = false, false, time.Time{}
		c.log.Warn("the drop-in that has sshd ask noded was changed; it is put right")
	}
	return c.asks
}

// asked reports what was found last, for what noded tells of itself.
func (c *sshCommand) state() (asks bool, problem error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asks, c.problem
}

// forget has everything looked at anew.
func (c *sshCommand) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proven, c.retry = false, time.Time{}
}

func (c *sshCommand) note() string { return filepath.Join(c.cfg.Paths.NodeDir(), reloadNote) }

func (c *sshCommand) command(set *sshSettings) sshkeys.KeyCommand {
	k := sshkeys.KeyCommand{Account: set.account.Name, Program: c.cfg.Program}
	if root := c.cfg.Paths.Root; root != "" {
		k.Args = append(k.Args, "--root", root)
	}
	k.Args = append(k.Args, "authorized-keys", "--")
	return k
}

// follow makes sshd ask, or not, as the roster says. It is called when
// authorized_keys is right for how things stand, and reports whether that has
// changed, so that authorized_keys is to be written again.
func (c *sshCommand) follow(ctx context.Context, v *candmap.View, self cluster.NodeID) (changed bool) {
	want := c.wanted(v)
	c.mu.Lock()
	due, asks, proven := !c.cfg.now().Before(c.retry), c.asks, c.proven
	c.mu.Unlock()
	if !due || want && asks && proven {
		return false
	}
	if !want && !c.leftover() {
		c.settle(false, false, nil)
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTime)
	defer cancel()
	if !want {
		c.settle(false, false, c.withdraw(ctx))
		return false
	}
	if set, err := c.finder.get(ctx); err == nil {
		_ = c.enable(ctx, set, sshdAt(v, self, set), asks) // which notes what became of it
	}
	now, _ := c.state()
	return now != asks
}

// leftover reports whether sshd has been told to ask, or may have been.
func (c *sshCommand) leftover() bool { return exists(c.cfg.Paths.SSHDDropIn()) || exists(c.note()) }

// settle notes how things stand. After a problem the next attempt waits.
func (c *sshCommand) settle(asks, proven bool, problem error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if problem != nil {
		c.retry = c.cfg.now().Add(sshRound)
		c.log.Warn("sshd does not follow the cluster's ssh_authorize", zap.Error(problem))
	}
	if asks != c.asks {
		c.log.Info("how sshd learns the cluster's keys has changed", zap.Bool("asks noded", asks))
	}
	c.loaded, c.asks, c.proven, c.problem = true, asks, proven, problem
}

// enable has sshd ask, and proves it. One that asked before goes on being
// believed as long as nothing proves the contrary.
func (c *sshCommand) enable(ctx context.Context, set *sshSettings, at netip.AddrPort, asked bool) error {
	if !asked {
		if err := c.install(ctx, set); err != nil {
			err = errors.Join(fmt.Errorf("authorized_keys stays in use: %w", err), c.withdraw(ctx))
			c.settle(false, false, err)
			return err
		}
	}
	conclusive, err := c.recheck(ctx, set, at, asked)
	switch {
	case err == nil:
		if !asked {
			drainLogins(ctx, c.listeners(), set.account.Name)
		}
		err = c.unmark()
		c.settle(err == nil, err == nil, err)
	case !conclusive:
		c.settle(asked, false, fmt.Errorf("cannot find out whether sshd asks noded: %w", err))
	case asked: // authorized_keys first; the next attempt installs it anew
		c.settle(false, false, fmt.Errorf("sshd is not to ask noded any more: %w", err))
		c.forget()
	default:
		err = errors.Join(fmt.Errorf("authorized_keys stays in use: %w", err), c.withdraw(ctx))
		c.settle(false, false, err)
	}
	return err
}

// recheck proves that sshd asks, and that nothing else is to be asked.
func (c *sshCommand) recheck(ctx context.Context, set *sshSettings, at netip.AddrPort, asked bool) (conclusive bool, err error) {
	if asked {
		if err := c.checkForeign(ctx, set); err != nil {
			return errors.Is(err, errForeignCommand), err
		}
	}
	return c.prove(ctx, set, at)
}

// install writes the drop-in, unless something else is configured, and has sshd
// read it.
func (c *sshCommand) install(ctx context.Context, set *sshSettings) error {
	kc := c.command(set)
	text, err := kc.Render()
	if err == nil {
		err = sshkeys.CheckProgram(kc.Program)
	}
	if err != nil {
		return err
	}
	if err := c.checkForeign(ctx, set); err != nil {
		return err
	}
	path := c.cfg.Paths.SSHDDropIn()
	if sshkeys.MissingDir(path) {
		return notIncluded(path)
	}
	if err := c.mark(); err != nil {
		return err
	}
	if err := c.step("sshd drop-in"); err != nil {
		return err
	}
	if err := sshkeys.WriteDropIn(path, text); err != nil {
		return err
	}
	own, err := sshkeys.ProbeKeySource(ctx, c.sshd(), set.account.Name, true, c.sshdArgs()...)
	if line, _ := kc.Line(); err == nil && own.Command != line {
		err = notIncluded(path)
	}
	if err != nil {
		return err
	}
	c.pidFile = own.PidFile
	return c.reload(ctx, own.PidFile)
}

// listeners are the processes of this node's sshd that accept connections.
func (c *sshCommand) listeners() []int {
	return listeners(c.pidFile, c.cfg.Paths.Root == "")
}

// checkForeign finds a command that the administrator has configured.
func (c *sshCommand) checkForeign(ctx context.Context, set *sshSettings) error {
	other, err := sshkeys.ProbeKeySource(ctx, c.sshd(), set.account.Name, false, c.sshdArgs()...)
	if err == nil && other.Command != "" {
		return fmt.Errorf("%w (%.200s), which Rolekey leaves as it is", errForeignCommand, other.Command)
	}
	return err
}

func notIncluded(path string) error {
	return fmt.Errorf("sshd_config does not include %s: put this line at its beginning: Include %s", path, filepath.Join(filepath.Dir(path), "*.conf"))
}

// withdraw has sshd not ask. The block must be in authorized_keys by then.
func (c *sshCommand) withdraw(ctx context.Context) error {
	if !c.leftover() {
		return nil
	}
	if err := c.mark(); err != nil {
		return err
	}
	if err := c.step("sshd withdraw"); err != nil {
		return err
	}
	if err := atomicfile.Remove(c.cfg.Paths.SSHDDropIn()); err != nil {
		return fmt.Errorf("have sshd not ask noded: %w", err)
	}
	if err := c.step("sshd withdrawn"); err != nil {
		return err
	}
	account, err := c.finder.account()
	if err != nil {
		return err
	}
	source, err := sshkeys.ProbeKeySource(ctx, c.sshd(), account.Name, true, c.sshdArgs()...)
	if err == nil {
		err = c.reload(ctx, source.PidFile)
	}
	if err != nil {
		return fmt.Errorf("have sshd not ask noded: %w", err)
	}
	return c.unmark()
}

// reload has the sshd that listens read its configuration again, if that is
// good: otherwise it would end.
func (c *sshCommand) reload(ctx context.Context, pidFile string) error {
	if err := sshkeys.CheckConfig(ctx, c.sshd(), c.sshdArgs()...); err != nil {
		return err
	}
	if err := c.step("sshd reload"); err != nil {
		return err
	}
	if err := c.cfg.ReloadSSHD(ctx, pidFile); err != nil {
		return fmt.Errorf("reload sshd: %w", err)
	}
	return c.step("sshd reloaded")
}

// mark notes that sshd may not have read what is configured; unmark that it has.
func (c *sshCommand) mark() error {
	if exists(c.note()) || !exists(c.cfg.Paths.NodeDir()) {
		return nil
	}
	return atomicfile.Write(c.note(), nil, atomicfile.Durable(0o600))
}

func (c *sshCommand) unmark() error { return atomicfile.Remove(c.note()) }

func (c *sshCommand) sshd() string {
	if c.cfg.SSH.SSHD != "" {
		return c.cfg.SSH.SSHD
	}
	return defaultSSHD
}

func (c *sshCommand) sshdArgs() []string {
	if c.cfg.SSH.SSHDConfig != "" {
		return []string{"-f", c.cfg.SSH.SSHDConfig}
	}
	return nil
}

// sshdAt is where this node's sshd is reached by the others.
func sshdAt(v *candmap.View, self cluster.NodeID, set *sshSettings) netip.AddrPort {
	if v.Roster != nil {
		if n := v.Roster.Node(self); n != nil && len(n.Addresses) > 0 {
			return netip.AddrPortFrom(n.Addresses[0], n.Ports.SSH)
		}
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), set.port)
}

// programPath is where this program lies, as sshd is to start it.
func programPath() string {
	path, err := os.Executable()
	if err != nil {
		return "" // which is no path that sshd is told
	}
	return path
}
