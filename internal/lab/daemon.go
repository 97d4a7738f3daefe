package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// stopLimit is how long a daemon has to end after SIGTERM.
const stopLimit = 30 * time.Second

// daemon is one daemon of a node, running or not. The node's lock covers it.
type daemon struct {
	name string
	proc atomic.Pointer[process] // nil before the first start; read without the lock
	// sessions are processes that a killed sshd left behind: the SSH
	// sessions, which live on as they would on a real machine.
	sessions []procID
}

func (d *daemon) running() bool { return d.livePID() != 0 }

// livePID returns 0 for a daemon that does not run.
func (d *daemon) livePID() int {
	if p := d.proc.Load(); p != nil && !p.ended() {
		return p.pid
	}
	return 0
}

// startDaemon starts a daemon and returns when it is ready. sshd is ready when
// it greets, the others say so (sd_notify(3)).
func (h *holder) startDaemon(ctx context.Context, n *node, d *daemon) error {
	log, err := os.OpenFile(n.Log(d.name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("open null device: %w", err)
	}
	defer null.Close()
	c := h.daemonCommand(n, d.name)
	c.files = []*os.File{null, log, log}
	var ready *notifySocket
	if d.name != SSHD {
		if ready, err = listenNotify(n, d.name); err != nil {
			return err
		}
		c.env = append(c.env, "NOTIFY_SOCKET="+ready.address)
	}
	p, err := h.spawn.start(c)
	if err != nil {
		if ready != nil {
			ready.conn.Close()
		}
		return err
	}
	d.proc.Store(p)
	h.watch(p, ready)
	return h.awaitReady(ctx, n, d, ready)
}

func (h *holder) daemonCommand(n *node, name string) command {
	if n.machine != nil {
		return h.machineCommand(n, name)
	}
	if name == SSHD {
		// In the foreground; stderr is the log.
		argv := []string{h.tools.SSHD, "-D", "-e", "-f", filepath.Join(n.Root, "etc/ssh/sshd_config")}
		env := h.nodeEnv(n, os.Environ())
		if h.tools.SSHDLib != "" {
			env = append(env, "LD_LIBRARY_PATH="+h.tools.SSHDLib)
		}
		return command{path: h.tools.SSHD, argv: argv, env: env, dir: n.Root}
	}
	path := filepath.Join(h.state.Bin, name)
	return command{path: path, argv: []string{path, "--root", n.Root}, env: h.nodeEnv(n, os.Environ()), dir: n.Root}
}

// watch publishes the pid of p now and its end later, and reads the daemon's
// notifications as long as it lives.
func (h *holder) watch(p *process, ready *notifySocket) {
	h.publish()
	h.group.Go(func() {
		if ready != nil {
			ready.read()
		}
	})
	h.group.Go(func() {
		<-p.done
		if ready != nil {
			ready.conn.Close()
		}
		h.publish()
	})
}

func (h *holder) awaitReady(ctx context.Context, n *node, d *daemon, ready *notifySocket) error {
	p := d.proc.Load()
	ctx, cancel := context.WithTimeout(ctx, h.spec.readyLimit())
	defer cancel()
	var said <-chan struct{}
	if ready != nil {
		said = ready.ready
	} else {
		said = greeting(ctx, n.Address, n.SSHPort)
	}
	select {
	case <-said:
		return nil
	case <-p.done:
		return fmt.Errorf("start %s on %s: it ended with %v; its log ends with:\n%s", d.name, n.Name, p, tail(n.Log(d.name), 8))
	case <-ctx.Done():
		return fmt.Errorf("start %s on %s: not ready after %v; its log ends with:\n%s", d.name, n.Name, h.spec.readyLimit(), tail(n.Log(d.name), 8))
	}
}

// notifySocket hears one daemon. It lies in the abstract namespace, where the
// length of DIR does not matter; but in a file where the daemon has a network
// namespace, and so abstract names, of its own.
type notifySocket struct {
	address string
	conn    *net.UnixConn
	ready   chan struct{}
}

func listenNotify(n *node, daemon string) (*notifySocket, error) {
	address := "@rolekey-lab-" + randomText()
	local := address
	if n.machine != nil {
		address = "/run/devcluster/" + daemon + ".notify"
		path := filepath.Join(n.Root, address)
		if err := removeIfThere(path); err != nil {
			return nil, err
		}
		short, dir, err := viaDir(path)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		local = short
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: local, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for notifications: %w", err)
	}
	if n.machine != nil {
		if err := os.Chmod(local, 0o666); err != nil { // masterd is not root
			conn.Close()
			return nil, fmt.Errorf("open notifications to all: %w", err)
		}
	}
	return &notifySocket{address: address, conn: conn, ready: make(chan struct{})}, nil
}

// read reads until the socket is closed, so that no daemon ever blocks on it.
func (s *notifySocket) read() {
	buf := make([]byte, 8192)
	said := false
	for {
		n, err := s.conn.Read(buf)
		if err != nil {
			return
		}
		for line := range bytes.SplitSeq(buf[:n], []byte("\n")) {
			if string(line) == "READY=1" && !said {
				said = true
				close(s.ready)
			}
		}
	}
}

// greeting returns a channel that is closed when sshd answers at the address.
func greeting(ctx context.Context, address string, port int) <-chan struct{} {
	up := make(chan struct{})
	go func() {
		for wait := 5 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 500*time.Millisecond) {
			if greets(ctx, net.JoinHostPort(address, itoa(port))) {
				close(up)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	}()
	return up
}

func greets(ctx context.Context, address string) bool {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	if limit, ok := ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(limit) // fails only on a closed connection
	}
	buf := make([]byte, 4)
	_, err = io.ReadFull(conn, buf)
	return err == nil && string(buf) == "SSH-"
}

// stopDaemons ends the named daemons of a node in order: SIGTERM, and SIGKILL
// for what has not ended in time, which is an error.
func (h *holder) stopDaemons(n *node) error {
	var errs []error
	for _, d := range []*daemon{n.daemons[Masterd], n.daemons[Noded], n.daemons[SSHD]} {
		tree := d.sessions
		if pid := d.livePID(); pid != 0 {
			tree = append(tree, descendants(pid)...)
		}
		if err := h.stopOne(d); err != nil {
			errs = append(errs, fmt.Errorf("stop %s on %s: %w", d.name, n.Name, err))
		}
		killTree(tree, syscall.SIGKILL)
		d.sessions = nil
	}
	killTree(n.machine.orphans(), syscall.SIGKILL)
	return errors.Join(errs...)
}

func (h *holder) stopOne(d *daemon) error {
	p := d.proc.Load()
	if p == nil {
		return nil
	}
	if err := h.spawn.signal(p, syscall.SIGTERM, false); err != nil {
		return ignoreDone(err)
	}
	// A paused daemon would not see it.
	_ = h.spawn.signal(p, syscall.SIGCONT, false)
	select {
	case <-p.done:
		return nil
	case <-time.After(stopLimit):
	}
	if err := h.spawn.signal(p, syscall.SIGKILL, true); err != nil {
		return ignoreDone(err)
	}
	<-p.done
	return fmt.Errorf("it ignored SIGTERM for %v and was killed", stopLimit)
}

// signalDaemon sends sig to one daemon of a node. A killed daemon has ended
// when this returns.
func (h *holder) signalDaemon(d *daemon, sig syscall.Signal) error {
	p := d.proc.Load()
	if p == nil {
		return nil
	}
	if sig == syscall.SIGKILL && d.name == SSHD {
		d.sessions = append(d.sessions, descendants(p.pid)...)
	}
	if err := h.spawn.signal(p, sig, false); err != nil {
		return ignoreDone(err)
	}
	if sig == syscall.SIGKILL {
		<-p.done
	}
	return nil
}

// signalAll sends sig to every process of a node, as a power cut or a frozen
// machine would.
func (h *holder) signalAll(n *node, sig syscall.Signal) error {
	var errs []error
	for _, name := range daemonNames {
		d := n.daemons[name]
		var tree []procID
		if pid := d.livePID(); pid != 0 {
			tree = descendants(pid)
		}
		errs = append(errs, h.signalDaemon(d, sig))
		killTree(append(tree, d.sessions...), sig)
		if sig == syscall.SIGKILL {
			d.sessions = nil
		}
	}
	killTree(n.machine.orphans(), sig)
	return errors.Join(errs...)
}

// killTree signals what is still the process that was listed.
func killTree(tree []procID, sig syscall.Signal) {
	for _, p := range tree {
		if p.running() {
			_ = syscall.Kill(p.pid, sig) // it may end at any time
		}
	}
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// tail returns the last lines of a log.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > 64<<10 {
		_, _ = f.Seek(-64<<10, io.SeekEnd)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return "    " + strings.Join(all[max(0, len(all)-lines):], "\n    ")
}
