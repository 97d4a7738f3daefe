package noded

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/internal/audit"
)

// Sessions of sshd
//
// sshd asks authorized_keys at the login only, so a session outlives the key
// that opened it. sshd does not tell which key that was; but every key of ours
// works from its node's addresses alone. So what is ended are the sessions of
// the account from the addresses of a node that is no longer authorized:
// possibly also one that somebody opened from there with a key of his own.
//
// A login may pass the key check right before authorized_keys is replaced, and
// become a session after a sweep. Therefore sweeps go on until two in a row,
// some time apart, find none. Until then the addresses stand in a file, which is
// written before the map is: a node that crashes does not load the map from
// before, and so would not see once more that somebody lost authorization.

const (
	sessionPause = time.Second           // between sweeps that find none
	sessionRetry = 10 * time.Millisecond // after a sweep that found some
	sessionLimit = 2 * time.Second       // a map's acknowledgement waits no longer
)

// sessions ends sshd's sessions from addresses that lost their authorization.
type sessions struct {
	proc    string       // /proc
	local   []netip.Addr // where this node's sshd answers; empty: wherever this machine does
	log     *zap.Logger
	audit   *audit.Log
	account func(ctx context.Context) (account string, port uint16, err error)
	file    string                  // of the addresses that are left to sweep
	step    func(name string) error // where tests make a crash

	sweeping sync.Mutex
	filing   sync.Mutex
	filed    []netip.Prefix // what the file holds; under filing

	mu      sync.Mutex
	pending []netip.Prefix
	clean   int // sweeps in a row that found none
	wake    chan struct{}
}

// add has the sessions from these addresses ended by the next sweeps.
func (s *sessions) add(from []netip.Prefix) {
	if len(from) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range from {
		if !slices.Contains(s.pending, p) {
			s.pending = append(s.pending, p)
		}
	}
	s.clean = 0
}

// unauthorized lists from where keys worked by the old map of nodes that the
// next one does not authorize at all.
func unauthorized(old, next *candmap.View) []netip.Prefix {
	if old.Map == nil {
		return nil
	}
	still := map[cluster.NodeID]bool{}
	for _, a := range authorized(next.Map.Map) {
		still[a.Node] = true
	}
	var from []netip.Prefix
	for _, a := range authorized(old.Map.Map) {
		if !still[a.Node] {
			from = append(from, a.From...)
		}
	}
	return from
}

// load takes up what a run before this one left to do.
func (s *sessions) load() {
	var left []netip.Prefix
	if _, err := readStrict(s.file, &left); err != nil {
		s.log.Error("SSH sessions of a revoked node may still run: what an earlier run left to end cannot be read", zap.Error(err))
		s.filed = []netip.Prefix{{}} // differs from whatever is left: the next save replaces it
		return
	}
	s.filed = left
	s.add(left)
}

// save makes the file hold what is left to do.
func (s *sessions) save() error {
	s.filing.Lock()
	defer s.filing.Unlock()
	s.mu.Lock()
	left := slices.Clone(s.pending)
	s.mu.Unlock()
	if slices.Equal(left, s.filed) {
		return nil
	}
	var err error
	if len(left) == 0 {
		err = atomicfile.Remove(s.file)
	} else {
		err = writeJSON(s.file, left)
	}
	if err != nil {
		return fmt.Errorf("note whose SSH sessions are to be ended: %w", err)
	}
	s.filed = left
	return nil
}

// settle sweeps until one sweep finds nothing, before a map is acknowledged;
// run does the rest, in this run of the program or the next. No disk delays the
// sweeps.
func (s *sessions) settle(ctx context.Context) error {
	defer poke(s.wake)
	return errors.Join(s.clear(ctx), s.save())
}

func (s *sessions) clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sessionLimit)
	defer cancel()
	for {
		found, err := s.sweep(ctx)
		if found == 0 || err != nil {
			return err
		}
		if err := pause(ctx, sessionRetry, nil); err != nil {
			return fmt.Errorf("%d SSH sessions of a revoked node still run", found)
		}
	}
}

// run sweeps until two sweeps in a row find nothing, whenever there is cause.
func (s *sessions) run(ctx context.Context) error {
	for {
		if err := pause(ctx, s.round(ctx), s.wake); err != nil {
			return err
		}
	}
}

// round sweeps once, and returns when to do so again.
func (s *sessions) round(ctx context.Context) time.Duration {
	found, err := s.sweep(ctx)
	switch {
	case err != nil:
		if ctx.Err() == nil {
			s.log.Warn("SSH sessions of a revoked node may still run", zap.Error(err))
		}
	case found > 0:
		s.again()
		return sessionRetry
	case s.done():
		if err := s.save(); err != nil {
			s.log.Warn("SSH sessions are ended, but will be looked for again", zap.Error(err))
			return sshRound
		}
		return time.Hour
	}
	return sessionPause
}

// again starts counting anew.
func (s *sessions) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clean = 0
}

// done counts a sweep that found nothing, and reports whether that is enough.
func (s *sessions) done() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clean++; s.clean >= 2 {
		s.pending = nil
	}
	return len(s.pending) == 0
}

// sweep ends what it finds, and returns how many sessions that were.
func (s *sessions) sweep(ctx context.Context) (found int, err error) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.mu.Lock()
	from := slices.Clone(s.pending)
	s.mu.Unlock()
	if len(from) == 0 {
		return 0, nil
	}
	if err := s.step("sweep"); err != nil {
		return 0, err
	}
	account, port, err := s.account(ctx)
	if err != nil {
		return 0, err
	}
	inodes, err := s.connections(port, from)
	if err != nil || len(inodes) == 0 {
		return 0, err
	}
	list, err := s.processes()
	if err != nil {
		return 0, err
	}
	for _, p := range list {
		if !isSession(p.title, account) || !s.holds(p.pid, inodes) {
			continue
		}
		found++
		s.end(p, list)
	}
	return found, nil
}

// end hangs up on a session: what runs in it hears so, as from a terminal that
// was closed, and sshd itself is killed.
func (s *sessions) end(p process, list []process) {
	s.log.Warn("ending an SSH session of a node that lost its authorization", zap.Int("pid", p.pid), zap.String("title", p.title))
	s.audit.Write(audit.Event{Act: audit.SessionsEnded, Target: fmt.Sprintf("pid %d", p.pid), Before: audit.Values{"process": p.title}})
	for _, child := range descendants(p.pid, list) {
		sig := syscall.SIGHUP
		if sshdTitle.MatchString(child.title) {
			sig = syscall.SIGKILL
		}
		_ = syscall.Kill(child.pid, sig) // it may end by itself at any time
	}
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
}
