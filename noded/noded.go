package noded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/buildinfo"
	"rolekey/internal/paths"
	"rolekey/internal/task"
	"rolekey/rpc"
)

// retryStart is how long a member waits that could not start.
const retryStart = time.Second

// Daemon is noded. Without an identity it only serves its socket.
type Daemon struct {
	cfg     Config
	log     *zap.Logger
	audit   *audit.Log
	ssh     *sshFinder
	command *sshCommand
	keys    keyDir
	masterd *localMasterd

	// turn is held by whoever changes what this node belongs to.
	turn chan struct{}

	mu      sync.Mutex
	member  *running // nil: in no cluster, or not started
	problem error    // why it is not started
	phase   string   // "initializing" or "joining" while that is under way
	changed bell     // member or problem changed

	starting chan struct{}             // held while a member is being started
	leaving  atomic.Bool               // none is to be
	first    atomic.Pointer[firstNews] // of the next one
	wake     chan struct{}

	crash func(step string) error // nil, or a test's failure before a step
}

// running is a member and the end of its run.
type running struct {
	*member
	stop  context.CancelFunc
	ended chan struct{}
}

// New makes a daemon; Run runs it once.
func New(cfg Config) (*Daemon, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("configure noded: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	cfg.world()
	d := &Daemon{cfg: cfg, log: cfg.Log, turn: make(chan struct{}, 1), starting: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	d.audit = audit.New(audit.Config{Path: cfg.Paths.NodedAudit(), Daemon: "noded", Now: cfg.now, Log: d.log.Named("audit")}).
		With(d.nodeName, d.heldVersion)
	d.ssh = &sshFinder{cfg: &d.cfg, log: d.log}
	d.command = &sshCommand{cfg: &d.cfg, finder: d.ssh, log: d.log, step: d.step}
	d.keys, d.masterd = newKeyDir(cfg.Paths, cfg.now, d.step), newLocalMasterd(cfg.Paths, cfg.DialLocal)
	return d, nil
}

// Run serves until ctx ends. Ready is called when the socket answers and, on a
// node of a cluster, the first attempt to serve it has been made.
func (d *Daemon) Run(ctx context.Context, ready func()) error {
	defer d.masterd.client.Close()
	defer d.keys.made.running.Wait()
	for _, dir := range []string{d.cfg.Paths.StateDir(), d.cfg.Paths.RunDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	l, err := d.cfg.ListenLocal(d.cfg.Paths.NodedSock(), 0o600)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	agents, err := d.cfg.ListenLocal(d.cfg.Paths.SSHAgentSock(), 0o600)
	if err != nil {
		return errors.Join(fmt.Errorf("listen: %w", err), l.Close())
	}
	defer d.audit.Start(ctx, buildinfo.Version())()
	watched, err := d.newMonitor()
	if err != nil {
		return errors.Join(err, l.Close(), agents.Close())
	}
	d.keys.serveAt(paths.Reach(agents))
	g := task.New(ctx)
	g.Go("monitor", watched.Run)
	g.Go("member", func(ctx context.Context) error { return d.follow(ctx, ready) })
	g.Go("ssh agent", func(ctx context.Context) error { return d.serveAgent(ctx, agents) })
	g.Go("socket", func(ctx context.Context) error { return rpc.ServeLocal(ctx, l, d.localRoutes()) })
	return g.Wait()
}

// Reload opens the audit log anew, which may have been renamed. It asks sshd anew what it is and how it is configured, after an upgrade
// or a change of sshd_config, and writes SSH's files by the answer.
func (d *Daemon) Reload() {
	d.audit.Reopen()
	d.ssh.forget()
	d.command.forget()
	if m := d.current(); m != nil {
		m.lookNow.Store(true)
		m.news.ring()
		poke(m.hostsNow)
	}
}

// follow runs the member as long as there is an identity. A member that fails
// is started again: nothing else on this machine enforces revocations.
func (d *Daemon) follow(ctx context.Context, ready func()) error {
	for {
		err := d.live(ctx, ready)
		ready = func() {}
		if ctx.Err() != nil {
			return nil // a start that failed is no failure of the end
		}
		wait := time.Duration(1<<63 - 1) // for d.wake
		if err != nil {
			d.log.Error("this node does not take part in its cluster; trying again", zap.Error(err))
			wait = retryStart
		}
		d.set(nil, err)
		if err := pause(ctx, wait, d.wake); err != nil {
			return err
		}
	}
}

// live runs one member; nil without an identity, or when it was stopped.
func (d *Daemon) live(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := d.start(ctx, cancel)
	if r == nil {
		d.set(nil, err)
	}
	ready()
	if r == nil {
		return err
	}
	defer close(r.ended)
	err = r.run(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	d.set(nil, err)
	return err
}

// start makes a member of the identity on disk; nil if there is none, or if
// that is about to be removed.
func (d *Daemon) start(ctx context.Context, stop context.CancelFunc) (*running, error) {
	d.starting <- struct{}{}
	defer func() { <-d.starting }()
	if d.leaving.Load() {
		return nil, nil
	}
	id, err := readIdentity(d.cfg.Paths.NodeDir())
	if err != nil || id == nil {
		return nil, err
	}
	m, err := d.newMember(ctx, *id)
	if err != nil {
		return nil, fmt.Errorf("start as %s: %w", id.Name, err)
	}
	if n := d.first.Swap(nil); n != nil {
		m.hear(ctx, *n)
	}
	r := &running{member: m, stop: stop, ended: make(chan struct{})}
	d.set(r, nil)
	return r, nil
}

func (d *Daemon) set(r *running, problem error) {
	d.mu.Lock()
	d.member, d.problem = r, problem
	d.mu.Unlock()
	d.changed.ring()
}

// current returns the member that runs, or nil.
func (d *Daemon) current() *running {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.member
}

// startUp has the member of a new identity started, and waits for it. It is
// fresh before it serves: the master's first order follows at once.
func (d *Daemon) startUp(ctx context.Context, n firstNews) (*running, error) {
	d.first.Store(&n)
	poke(d.wake)
	for {
		changed := d.changed.wait()
		d.mu.Lock()
		m, problem := d.member, d.problem
		d.mu.Unlock()
		if m != nil {
			return m, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), problem)
		}
	}
}

// shutDown ends the member, if one runs, waits for its end, and keeps it from
// being started again until resume is called.
func (d *Daemon) shutDown() (resume func()) {
	d.leaving.Store(true)
	d.starting <- struct{}{} // whoever starts one now does not see the order
	m := d.current()
	<-d.starting
	if m != nil {
		m.stop()
		<-m.ended
	}
	return func() {
		d.leaving.Store(false)
		poke(d.wake)
	}
}

// begin takes the turn to change what this node belongs to.
func (d *Daemon) begin(phase string) (end func(), err error) {
	select {
	case d.turn <- struct{}{}:
	default:
		return nil, cluster.Errorf(cluster.CodeBusy, "another init, join, leave or trust is under way on this node")
	}
	d.setPhase(phase)
	if phase != "" {
		d.ssh.forget() // a node joins with the host keys that sshd has now
	}
	return func() { d.setPhase(""); <-d.turn }, nil
}

func (d *Daemon) setPhase(phase string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.phase = phase
}

// step is where tests make a crash.
func (d *Daemon) step(name string) error {
	if d.crash == nil {
		return nil
	}
	return d.crash(name)
}
