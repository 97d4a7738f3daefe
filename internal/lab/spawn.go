package lab

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawner starts the holder's children and reaps them, together with the
// orphans that the kernel hands to a subreaper. It calls wait4(-1), so nothing
// else in the holder may wait for a child.
type spawner struct {
	// mu covers fork and reap: while it is held no pid is recycled, so that a
	// signal meets the process that was meant.
	mu    sync.Mutex
	alive map[int]*process

	forks chan func() // run on the thread without capabilities
}

// process is one child. status is valid when done is closed.
type process struct {
	pid    int
	done   chan struct{}
	status syscall.WaitStatus
}

// command is what to start.
type command struct {
	path       string
	argv, env  []string
	dir        string
	files      []*os.File // stdin, stdout, stderr
	privileged bool       // keep the capabilities in the holder's namespaces

	in      *machine             // where; nil: the holder's namespaces
	cred    *syscall.Credential  // nil: the holder's own user
	spaces  uintptr              // new namespaces, by their flags of clone(2)
	prepare func(*command) error // runs first, where the command will run
}

// newSpawner starts the two goroutines that live as long as the process.
func newSpawner() (*spawner, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
	s := &spawner{alive: map[int]*process{}, forks: make(chan func())}
	childEnded := make(chan os.Signal, 1)
	signal.Notify(childEnded, syscall.SIGCHLD)
	ready := make(chan error)
	go s.forkLoop(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	go func() {
		for range childEnded {
			s.reap()
		}
	}()
	return s, nil
}

// timerSlack is that of the daemons, in nanoseconds, as their units set it.
const timerSlack = 1_000_000

// forkLoop forks on one thread that never ends: PR_SET_PDEATHSIG fires when
// the thread that forked ends, and dropping the ambient capabilities of this
// thread alone keeps them from the daemons.
func (s *spawner) forkLoop(ready chan<- error) {
	runtime.LockOSThread()
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil {
		err = fmt.Errorf("drop ambient capabilities: %w", err)
	}
	if err == nil {
		if err = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0); err != nil {
			err = fmt.Errorf("set timer slack: %w", err)
		}
	}
	ready <- err
	for fork := range s.forks {
		fork()
	}
}

// start forks and executes c in a session of its own.
func (s *spawner) start(c command) (*process, error) {
	if c.privileged {
		return s.fork(c, 0)
	}
	forks, pdeathsig := s.forks, syscall.SIGKILL
	if c.in != nil {
		// These end with their namespaces' first process, which has the signal.
		// Go's check for a parent that is gone already would kill them: from
		// inside, the parent has no process id.
		forks, pdeathsig = c.in.forks, 0
	}
	var p *process
	var err error
	done := make(chan struct{})
	forks <- func() {
		defer close(done)
		if c.prepare != nil {
			if err = c.prepare(&c); err != nil {
				return
			}
		}
		p, err = s.fork(c, pdeathsig)
	}
	<-done
	return p, err
}

func (s *spawner) fork(c command, pdeathsig syscall.Signal) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fds := make([]uintptr, len(c.files))
	for i, f := range c.files {
		fds[i] = f.Fd()
	}
	pid, err := syscall.ForkExec(c.path, c.argv, &syscall.ProcAttr{
		Dir:   c.dir,
		Env:   c.env,
		Files: fds,
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: pdeathsig, Credential: c.cred, Cloneflags: c.spaces},
	})
	if err != nil && c.in != nil && c.in.init.ended() {
		return nil, fmt.Errorf("start %s: the node's first process, and its namespaces with it, are gone", c.path)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.path, err)
	}
	p := &process{pid: pid, done: make(chan struct{})}
	s.alive[pid] = p
	return p, nil
}

// reap collects every child that has ended.
func (s *spawner) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if p := s.alive[pid]; p != nil {
			delete(s.alive, pid)
			p.status = st
			close(p.done)
		}
	}
}

// signal sends sig to the process, or with group to its whole session's
// first process group. It answers os.ErrProcessDone when it has ended.
func (s *spawner) signal(p *process, sig syscall.Signal, group bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alive[p.pid] != p {
		return os.ErrProcessDone
	}
	pid := p.pid
	if group {
		pid = -pid
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// code is the exit code as a shell shows it.
func (p *process) code() int {
	if p.status.Signaled() {
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}

// String says how the process ended.
func (p *process) String() string {
	if !p.ended() {
		return fmt.Sprintf("process %d", p.pid)
	}
	if p.status.Signaled() {
		return fmt.Sprintf("killed by %s", unix.SignalName(p.status.Signal()))
	}
	return fmt.Sprintf("exit code %d", p.status.ExitStatus())
}
