package noded

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/internal/audit"
	"rolekey/sshkeys"
)

// Sessions of sshd
//
// sshd asks authorized_keys at the login only, so a session outlives the key
// that opened it. What is ended are the account's sessions by a key that lost
// its authorization, where sshd tells the key (sessionkeys.go), and those from
// the addresses of its node, unless sshd tells that they were opened by what
// would open one now. A connection is a session here, with or without a
// channel on it, and also while its login is not decided yet.
//
// A login may pass the key check right before authorized_keys is replaced, and
// become a session after a sweep. Therefore sweeps go on until two in a row,
// some time apart, find none. Until then what is revoked stands in a file, which
// is written before the map is: a node that crashes does not load the map from
// before, and so would not see once more that somebody lost authorization.

const (
	sessionPause = time.Second           // between sweeps that find none
	sessionRetry = 10 * time.Millisecond // after a sweep that found some
	sessionLimit = 2 * time.Second       // a map's acknowledgement waits no longer
)

// sshd is whose sessions are looked for, and where.
type sshd struct {
	account string
	uid     int
	port    uint16
}

// revocation is what opened the sessions that are to be ended.
type revocation struct {
	From []netip.Prefix `json:"from"`
	Keys []string       `json:"keys,omitempty"` // blobs of public keys, in base64
}

func (r revocation) empty() bool { return len(r.From)+len(r.Keys) == 0 }

func (r revocation) equal(o revocation) bool {
	return slices.Equal(r.From, o.From) && slices.Equal(r.Keys, o.Keys)
}

func (r revocation) clone() revocation {
	return revocation{slices.Clone(r.From), slices.Clone(r.Keys)}
}

// sessions ends sshd's sessions of those who lost their authorization.
type sessions struct {
	proc   string       // /proc
	local  []netip.Addr // where this node's sshd answers; empty: wherever this machine does
	log    *zap.Logger
	audit  *audit.Log
	sshd   func(ctx context.Context) (sshd, error)
	admits func(ctx context.Context) access // who may log in now
	file   string                           // of what is left to sweep
	step   func(name string) error          // where tests make a crash

	sweeping sync.Mutex
	filing   sync.Mutex
	filed    revocation // what the file holds; under filing
	unread   bool       // the file holds something else; under filing

	mu      sync.Mutex
	pending revocation
	clean   int // sweeps in a row that found none
	wake    chan struct{}
}

// add has these sessions ended by the next sweeps.
func (s *sessions) add(r revocation) {
	if r.empty() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.From = union(s.pending.From, r.From)
	s.pending.Keys = union(s.pending.Keys, r.Keys)
	s.clean = 0
}

func union[T comparable](have, more []T) []T {
	for _, v := range more {
		if !slices.Contains(have, v) {
			have = append(have, v)
		}
	}
	return have
}

// unauthorized lists what the old map authorized of nodes that the next one does
// not authorize at all: from where, and by which keys, but for those that other
// nodes have or had in common with them. Where all candidates share one key, the
// one that lost the role is told by its addresses alone.
func unauthorized(old, next *candmap.View) (r revocation) {
	if old.Map == nil {
		return r
	}
	still, shared := map[cluster.NodeID]bool{}, map[string]bool{}
	share := func(a sshkeys.Authorized) {
		for _, k := range a.Keys {
			shared[keyText(k)] = true
		}
	}
	for _, a := range authorized(next.Map.Map) {
		still[a.Node] = true
		share(a)
	}
	var lost []sshkeys.Authorized
	for _, a := range authorized(old.Map.Map) {
		if still[a.Node] {
			share(a)
		} else {
			lost = append(lost, a)
		}
	}
	for _, a := range lost {
		r.From = append(r.From, a.From...)
		for _, k := range a.Keys {
			if !shared[keyText(k)] {
				r.Keys = append(r.Keys, keyText(k))
			}
		}
	}
	return r
}

// load takes up what a run before this one left to do.
func (s *sessions) load() {
	var left revocation
	_, err := readStrict(s.file, &left)
	if err != nil { // an older release noted addresses alone
		left = revocation{}
		_, old := readStrict(s.file, &left.From)
		if old == nil {
			err = nil
		}
	}
	if err != nil {
		s.log.Error("SSH sessions of a revoked node may still run: what an earlier run left to end cannot be read", zap.Error(err))
		s.unread = true // the next save replaces it
		return
	}
	s.filed = left.clone()
	s.add(left)
}

// save makes the file hold what is left to do.
func (s *sessions) save() error {
	s.filing.Lock()
	defer s.filing.Unlock()
	s.mu.Lock()
	left := s.pending.clone()
	s.mu.Unlock()
	if left.equal(s.filed) && !s.unread {
		return nil
	}
	var err error
	if left.empty() {
		err = atomicfile.Remove(s.file)
	} else {
		err = writeJSON(s.file, left)
	}
	if err != nil {
		return fmt.Errorf("note whose SSH sessions are to be ended: %w", err)
	}
	s.filed, s.unread = left, false
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
		found, err := s.sweep(ctx, false)
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
	found, err := s.sweep(ctx, len(s.local) == 0)
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
		s.pending = revocation{}
	}
	return s.pending.empty()
}

// sweep ends what it finds, and returns how many sessions that were. Other
// network namespaces are looked for on request: that takes a walk through all
// processes, and no acknowledgement of a map waits for it.
func (s *sessions) sweep(ctx context.Context, elsewhere bool) (found int, err error) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.mu.Lock()
	gone := s.pending.clone()
	s.mu.Unlock()
	if gone.empty() {
		return 0, nil
	}
	if err := s.step("sweep"); err != nil {
		return 0, err
	}
	d, err := s.sshd(ctx)
	if err != nil {
		return 0, err
	}
	open, err := s.connections(d.port)
	if err != nil || len(open) == 0 && !elsewhere {
		return 0, err
	}
	list, err := s.processes()
	if err == nil && elsewhere {
		err = s.addElsewhere(list, d.account, d.port, open)
	}
	if err != nil {
		return 0, err
	}
	now := access{}
	if s.admits != nil {
		now = s.admits(ctx)
	}
	logins := s.logins(list, d.account, open)
	s.askSSHD(logins, list, d.uid)
	for _, l := range logins {
		if why := gone.of(l, now); why != "" {
			found++
			s.end(l, list, why)
		}
	}
	return found, nil
}

// of tells why a login is to be ended; "": it stays. Whatever names a revoked
// key ends, from wherever. From a revoked address only what sshd would let in
// now stays, and that only if what tells so can be believed.
func (r revocation) of(l *login, now access) string {
	if slices.ContainsFunc(l.tells.keys, func(k cluster.SSHKey) bool { return slices.Contains(r.Keys, keyText(k)) }) {
		return "key"
	}
	from := l.conn.remote.Addr()
	if !slices.ContainsFunc(r.From, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return ""
	}
	if l.tells.believed && !slices.ContainsFunc(l.tells.keys, func(k cluster.SSHKey) bool { return !now.lets(k, from) }) {
		return ""
	}
	return "address"
}

// end hangs up on a session: what runs in it hears so, as from a terminal that
// was closed, and sshd itself is killed.
func (s *sessions) end(l *login, list []process, why string) {
	for _, p := range l.serves {
		s.log.Warn("ending an SSH session of a node that lost its authorization",
			zap.Int("pid", p.pid), zap.String("title", p.title), zap.Stringer("from", l.conn.remote), zap.String("told_by", why))
		s.audit.Write(audit.Event{Act: audit.SessionsEnded, Target: fmt.Sprintf("pid %d", p.pid), Before: audit.Values{"process": p.title}})
	}
	if l.tells.believed { // sshd, killed, does not
		_ = os.Remove(s.seenBy(l.serves[0].pid, l.tells.files[0]))
	}
	for _, p := range l.serves {
		for _, child := range descendants(p.pid, list) {
			sig := syscall.SIGHUP
			if sshdTitle.MatchString(child.title) {
				sig = syscall.SIGKILL
			}
			_ = syscall.Kill(child.pid, sig) // it may end by itself at any time
		}
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
}
