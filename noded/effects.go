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

// Apply implements candmap.Effects: authorized_keys and masterd follow before
// the map is acknowledged, and what is derived from it for convenience after.
// The two do not wait for one another.
func (m *member) Apply(ctx context.Context, next *candmap.View) error {
	m.dropEvictions(next)
	var wg sync.WaitGroup
	var keysErr, sessionsErr, masterdErr error
	wg.Go(func() {
		// In this order: a login that comes between the two fails, or is found.
		keysErr = m.ssh.authorize(ctx, next, m.trust())
		sessionsErr = m.logins.settle(ctx)
	})
	wg.Go(func() { masterdErr = m.tellMasterd(ctx, next) })
	wg.Wait()
	if keysErr != nil {
		keysErr = fmt.Errorf("authorized_keys does not follow the map: %w", keysErr)
	}
	if err := m.derive(ctx, next); err != nil {
		m.log.Warn("derived files are not up to date", zap.Error(err))
	}
	return errors.Join(m.finishRevoke(next), keysErr, sessionsErr, masterdErr)
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
	for {
		news, repairs := m.news.wait(), m.ssh.repairsMade()
		v := m.keeper.View()
		if v.Map != nil {
			if err := m.ssh.authorize(ctx, v, m.trust()); err != nil && ctx.Err() == nil {
				m.log.Warn("authorized_keys does not follow the map", zap.Error(err))
			}
			if err := m.derive(ctx, v); err != nil && ctx.Err() == nil {
				m.log.Warn("derived files are not up to date", zap.Error(err))
			}
			m.endExpired(v)
			if m.ssh.repairsMade() != repairs {
				calm.answered()
			}
			if m.watch != nil {
				m.watch.Set(m.ssh.files())
			}
		}
		every := sshRound
		if v.Map != nil {
			every = min(every, v.Map.SSHLease()/8)
		}
		if err := calm.wait(ctx, every, news); err != nil {
			return err
		}
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

// masterdRound is how often noded looks whether masterd was started anew.
const masterdRound = time.Second

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
	}
}

func (m *member) tellMasterd(ctx context.Context, v *candmap.View) error {
	return m.masterd.tell(ctx, v, func(full bool) rpc.LocalViewReply { return m.localView(v, full) })
}
