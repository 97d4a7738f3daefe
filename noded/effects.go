package noded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/rpc"
)

// Revoke implements candmap.Effects: it closes the sockets of all whose tier
// changed, in both directions, and waits for their handlers in flight.
func (m *member) Revoke(ctx context.Context, old, next *candmap.View) {
	defer m.auditView(ctx, old, next) // words come after deeds
	m.ssh.revoked(old, next)
	m.address.Poke()
	if lostNode(old.Roster, next.Roster) || newEpoch(old.Map, next.Map) {
		poke(m.rekeyNow)
	}
	m.logins.add(unauthorized(old, next))
	if m.candidate(old) && !m.candidate(next) {
		m.demoted.Store(true)
	}
	if m.server == nil {
		return // the first map, before anything is served
	}
	err := m.server.Revoke(old, next)
	m.undone.Store(err != nil)
	if err != nil {
		m.log.Error("calls of a revoked peer still run", zap.Error(err))
	}
	m.client.Recheck()
}

// Apply implements candmap.Effects: authorized_keys, and masterd if it acts for
// a candidate, follow before the map is acknowledged, and do not wait for one
// another. So do ssh's client files, but only when they change: whoever ordered
// the change may want to log in next.
func (m *member) Apply(ctx context.Context, next *candmap.View) error {
	m.dropEvictions(next)
	rootsErr := m.followRoots(next) // masterd is told of them, too
	var wg sync.WaitGroup
	var keysErr, sessionsErr, masterdErr error
	wg.Go(func() {
		// In this order: a login that comes between the two fails, or is found.
		keysErr = m.authorize(ctx)
		sessionsErr = m.logins.settle(ctx)
	})
	if m.candidate(next) || !m.masterd.idle() {
		wg.Go(func() { masterdErr = m.tellMasterd(ctx, next) })
	} // else followMasterd tells it
	wg.Wait()
	if err := m.ssh.derive(ctx, next, false); err != nil {
		m.log.Warn("SSH's client files do not follow the roster", zap.Error(err))
	}
	return errors.Join(m.finishRevoke(next), rootsErr, keysErr, sessionsErr, masterdErr)
}

// finishRevoke looks again for calls that outlived their revocation.
func (m *member) finishRevoke(next *candmap.View) error {
	if !m.undone.Load() {
		return nil
	}
	if err := m.server.Revoke(nil, next); err != nil {
		return err
	}
	m.undone.Store(false)
	return nil
}

// authorize makes authorized_keys follow the view in force, asked for in its
// turn: of two calls the later one must not write the older view.
func (m *member) authorize(ctx context.Context) error {
	m.authorizing.Lock()
	defer m.authorizing.Unlock()
	v, t := m.keeper.View(), m.trust()
	if err := m.ssh.authorize(ctx, v, t); err != nil {
		m.followed.Store(nil)
		return fmt.Errorf("authorized_keys does not follow the map: %w", err)
	}
	m.followed.Store(&followed{v, t.fresh})
	return nil
}

// followed is what authorized_keys follows.
type followed struct {
	view  *candmap.View
	fresh bool
}

func (m *member) trust() trust {
	return trust{fresh: m.keeper.Fresh(), last: m.keeper.Lease().Last()}
}

// sshRound bounds how long a change by others in SSH's files stays, where the
// kernel does not tell of it.
const sshRound = 25 * time.Second

// maintainSSH renews the expiry of authorized keys while the map is fresh, and
// puts right what others changed in our block and in the derived files.
func (m *member) maintainSSH(ctx context.Context) error {
	var events <-chan struct{}
	if m.watch != nil {
		events = m.watch.News()
	}
	calm := newCalm(events)
	var due time.Time // for the look at all files
	for onlyNews := false; ; {
		news, repairs := m.news.wait(), m.ssh.repairsMade()
		v := m.keeper.View()
		check := m.lookNow.Swap(false) || !onlyNews || m.followed.Load() == nil
		if v.Map != nil {
			m.followSSH(ctx, v, check)
			if m.ssh.repairsMade() != repairs {
				calm.answered()
			}
		}
		if check {
			due = time.Now().Add(sshRound)
			if v.Map != nil {
				due = time.Now().Add(min(sshRound, v.Map.SSHLease()/8))
			}
		}
		var err error
		if onlyNews, err = calm.wait(ctx, time.Until(due), news); err != nil {
			return err
		}
	}
}

// followSSH makes SSH's files follow a view. Without check it believes that they
// are as they were left, and Apply that it has done its part.
func (m *member) followSSH(ctx context.Context, v *candmap.View, check bool) {
	if f := m.followed.Load(); check || f == nil || *f != (followed{v, m.keeper.Fresh()}) {
		if err := m.authorize(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("SSH's files are not up to date", zap.Error(err))
		}
	}
	if err := m.ssh.derive(ctx, v, check); err != nil && ctx.Err() == nil {
		m.log.Warn("SSH's client files do not follow the roster", zap.Error(err))
	}
	m.endExpired(v)
	if m.watch != nil {
		m.watch.Set(m.ssh.files())
	}
}

// endExpired ends the sessions that outlived the expiry of their keys: sshd
// looks at it at the login only.
func (m *member) endExpired(v *candmap.View) {
	until := m.sessionsUntil()
	if until.IsZero() || m.cfg.now().Before(until) {
		return
	}
	var expired revocation
	for _, a := range authorized(v.Map.Map) {
		expired.From = append(expired.From, a.From...)
		for _, k := range a.Keys {
			expired.Keys = append(expired.Keys, keyText(k))
		}
	}
	m.logins.add(expired)
	poke(m.logins.wake)
}

// watched is whose sessions are ended, and on which port.
func (m *member) watched(ctx context.Context) (sshd, error) {
	set, err := m.ssh.finder.get(ctx)
	if err != nil {
		return sshd{}, err
	}
	port := m.id.Ports.SSH
	if n := m.self(); n != nil {
		port = n.Ports.SSH
	}
	return sshd{set.account.Name, set.account.UID, port}, nil
}

const (
	// masterdRound is how often noded looks whether masterd was started anew.
	masterdRound = time.Second
	// masterdRest is how long news wait for more of them while masterd has
	// nothing to do but to know.
	masterdRest = 500 * time.Millisecond
)

// followMasterd tells masterd of everything that changes between deliveries:
// beacons, freshness, and all of it to a masterd that was just started.
func (m *member) followMasterd(ctx context.Context) error {
	var told uint64
	for {
		news := m.news.wait()
		serial, v := m.serial.Load(), m.keeper.View()
		m.dropEvictions(v)
		if v.Map != nil && (serial != told || m.masterd.untold(v)) {
			if err := m.tellMasterd(ctx, v); err == nil {
				told = serial
			} else if ctx.Err() == nil {
				m.log.Warn("masterd does not follow the map", zap.Error(err))
			}
		}
		m.takeOffered(ctx)
		if err := pause(ctx, masterdRound, news); err != nil {
			return err
		}
		if m.masterd.idle() && !m.candidate(m.keeper.View()) {
			if err := pause(ctx, masterdRest, nil); err != nil {
				return err
			}
		}
	}
}

func (m *member) tellMasterd(ctx context.Context, v *candmap.View) error {
	acts := m.candidate(v)
	if acts {
		m.masterd.mayAct()
	}
	err := m.masterd.tell(ctx, v, func(since *candmap.View) rpc.LocalViewReply { return m.localView(v, since) })
	if err == nil && !acts {
		m.masterd.rests(func() bool { return m.keeper.View() == v })
	}
	return err
}
