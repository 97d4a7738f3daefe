package noded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// createKey has this node's candidate keys in place: the SSH key here, the
// others with masterd.
func (m *member) createKey(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.KeyCreateRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	if req.Incarnation != m.id.Incarnation {
		return nil, cluster.Errorf(cluster.CodeConflict, "the order is for incarnation %d of this node, this is %d", req.Incarnation, m.id.Incarnation).
			WithHint("the node was removed and added again: the order is from before that")
	}
	if err := checkOrder(req.SSHKey); err != nil {
		return nil, err
	}
	d, err := m.keys.prepare(ctx, req.SSHKey, m.id.Node)
	if err != nil {
		return nil, err
	}
	var keys rpc.CandidateKeys
	err = rpc.Effect(ctx, func() (err error) {
		keys, err = m.makeKeys(ctx, req, d)
		return err
	})
	m.auditKeys(ctx, audit.KeysCreated, nil, err)
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// makeKeys never takes up keys of a role that was lost: those are about to be
// destroyed, and whoever stole them would be a candidate again.
func (m *member) makeKeys(ctx context.Context, req rpc.KeyCreateRequest, d *draft) (rpc.CandidateKeys, error) {
	if err := m.takeKeyTurn(ctx); err != nil {
		return rpc.CandidateKeys{}, err
	}
	defer m.giveKeyTurn()
	if m.hasLostKeys(m.keeper.View()) {
		reply, err := m.destroyKeys(ctx)
		if err == nil && len(reply.Problems) > 0 {
			err = cluster.Errorf(cluster.CodeBusy, "%q", reply.Problems) // all of it is tried again with the order
		}
		if err != nil {
			return rpc.CandidateKeys{}, fmt.Errorf("destroy the keys of the role that was lost: %w", err)
		}
		m.demoted.Store(false)
	}
	keys, err := m.masterd.createKeys(ctx, rpc.LocalKeysRequest{
		Cluster: m.id.Cluster, Node: m.id.Node, Incarnation: m.id.Incarnation, Name: m.name(), Certificate: req.Certificate, Signing: req.Signing,
	})
	ssh := wantsSSH(m.keeper.View())
	if req.SSHSetup != nil {
		ssh = *req.SSHSetup // the map follows, with these very keys
	}
	if err != nil || !ssh {
		return keys, err
	}
	return keys, m.makeSSHKey(&keys, req.SSHKey, d)
}

// checkOrder refuses what no key can be.
func checkOrder(o *rpc.SSHKeyOrder) error {
	if o == nil {
		return nil
	}
	if spec, err := cluster.ParseSSHKeySpec(o.Type, o.Bits); err != nil || spec != o.SSHKeySpec {
		return badRequest("order of an SSH key: no such kind of key: %.40q of %d bits", o.Type, o.Bits)
	}
	if _, err := cluster.ParseSSHKeyStorage(string(o.Storage)); err != nil {
		return badRequest("order of an SSH key: %v", err)
	}
	if o.Shared != nil && !sshkeys.IsOf(*o.Shared, o.SSHKeySpec) {
		return badRequest("order of an SSH key: the shared key is not %s", o.SSHKeySpec)
	}
	return nil
}

// makeSSHKey has the SSH key in place that is ordered, or tells to whom the
// shared one is to be sealed.
func (m *member) makeSSHKey(keys *rpc.CandidateKeys, o *rpc.SSHKeyOrder, d *draft) error {
	if o == nil {
		key, err := m.keys.ensure(m.id.Node)
		if err == nil {
			keys.SSH = []cluster.SSHKey{key}
		}
		return err
	}
	c := sshkeys.SealContext{Cluster: m.id.Cluster, Node: m.id.Node, Incarnation: m.id.Incarnation}
	key, recipient, err := m.keys.order(*o, c, m.entryKeys(m.keeper.View()), d)
	if err != nil {
		return err
	}
	if keys.Recipient = recipient; key != nil {
		keys.SSH = []cluster.SSHKey{*key}
	}
	m.news.ring() // ssh's configuration names the keys
	return nil
}

// entryKeys are the SSH keys that the map lists of this node.
func (m *member) entryKeys(v *candmap.View) []cluster.SSHKey {
	if v.Map == nil {
		return nil
	}
	if c := v.Map.Candidate(m.id.Node); c != nil {
		return c.SSH
	}
	return nil
}

// sshMissing reports whether the map lists SSH keys of this node, and it holds
// none of them.
func (m *member) sshMissing(v *candmap.View) bool {
	entry := m.entryKeys(v)
	for _, h := range m.keys.held() {
		if hasKey(entry, h.key) {
			return false
		}
	}
	return len(entry) > 0
}

// retireKeys destroys SSH keys that the map does not list any more.
func (m *member) retireKeys(ctx context.Context, v *candmap.View) bool {
	fresh, limit := m.keeper.Fresh(), m.cfg.now().Add(-strayAge)
	removed, remains := m.keys.follow(m.entryKeys(v), m.id.Node, func(h heldKey) bool {
		made := h.changed
		if h.path != "" {
			if t, err := m.cfg.FileTime(h.path); err == nil {
				made = t
			}
		}
		return fresh && made.Before(limit)
	})
	if len(removed)+len(remains) == 0 {
		return true
	}
	err := errors.Join(remains...)
	m.auditKeys(ctx, audit.KeysDestroyed, removed, err)
	m.log.Info("an SSH key that was replaced is destroyed", zap.Strings("keys", removed), zap.Error(err))
	m.news.ring()
	return err == nil
}

// destroyKey destroys the keys of a node that is no candidate any more.
func (m *member) destroyKey(ctx context.Context, q *rpc.Request) (any, error) {
	var req struct{}
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	var reply rpc.KeyDestroyReply
	err := rpc.Effect(ctx, func() (err error) {
		if err := m.takeKeyTurn(ctx); err != nil {
			return err
		}
		defer m.giveKeyTurn()
		if m.candidate(m.keeper.View()) {
			return cluster.Errorf(cluster.CodeConflict, "the map still names this node as a candidate")
		}
		reply, err = m.destroyKeys(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// destroyKeys destroys the SSH key and all that masterd holds. One failure
// does not spare the other. masterd hears first that the role is over, and so
// ends its use of them: a map in force is on its way to it for a moment.
func (m *member) destroyKeys(ctx context.Context) (rpc.KeyDestroyReply, error) {
	if v := m.keeper.View(); v.Map != nil {
		if err := m.tellMasterd(ctx, v); err != nil && ctx.Err() == nil {
			m.log.Warn("masterd does not follow the map", zap.Error(err))
		}
	}
	reply, err := destroyAll(ctx, m.keys, m.masterd)
	if len(reply.Removed) > 0 || err != nil {
		failed := err
		if len(reply.Problems) > 0 {
			failed = errors.Join(err, fmt.Errorf("%q", reply.Problems))
		}
		m.auditKeys(ctx, audit.KeysDestroyed, reply.Removed, failed)
	}
	if len(reply.Removed) > 0 {
		m.log.Info("keys of the candidate role are destroyed", zap.Strings("files", reply.Removed))
	}
	return reply, err
}

func destroyAll(ctx context.Context, keys keyDir, masterd *localMasterd) (rpc.KeyDestroyReply, error) {
	ssh := rpc.Destroyed(keys.destroy())
	reply, err := masterd.destroyKeys(ctx)
	reply.Removed = append(ssh.Removed, reply.Removed...)
	reply.Problems = append(ssh.Problems, reply.Problems...)
	return reply, err
}

const (
	// strayAge is how long keys may lie on a node that the map does not name:
	// a promotion is under way for seconds, and interrupted ones are repeated.
	strayAge = 10 * time.Minute
	// sweepRound is how often noded looks for such keys, and sweepRetry how
	// soon it first tries again to destroy what it could not.
	sweepRound = time.Minute
	sweepRetry = 2 * time.Second
)

// sweepKeys destroys this node's keys when it loses the role, and those that
// an interrupted promotion, or a crash before their destruction, left.
func (m *member) sweepKeys(ctx context.Context) error {
	retry := sweepRetry
	for {
		wait := sweepRound
		if m.sweepOnce(ctx) {
			retry = sweepRetry
		} else {
			wait, retry = retry, min(2*retry, sweepRound)
		}
		if err := pause(ctx, wait, m.sweepNow); err != nil {
			return err
		}
	}
}

// sweepOnce reports whether no key is left that should not be there.
func (m *member) sweepOnce(ctx context.Context) bool {
	if m.takeKeyTurn(ctx) != nil {
		return false
	}
	defer m.giveKeyTurn()
	if v := m.keeper.View(); m.candidate(v) {
		m.demoted.Store(false)
		return m.retireKeys(ctx, v)
	}
	if !m.hasStrayKeys() {
		return true
	}
	reply, err := m.destroyKeys(ctx)
	if err == nil && len(reply.Problems) == 0 {
		m.demoted.Store(false)
		return true
	}
	if ctx.Err() == nil {
		m.log.Warn("keys of the lost role are not destroyed yet", zap.Strings("problems", reply.Problems), zap.Error(err))
	}
	return false
}

// takeKeyTurn waits until nobody else makes or destroys keys.
func (m *member) takeKeyTurn(ctx context.Context) error {
	select {
	case m.keyTurn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *member) giveKeyTurn() { <-m.keyTurn }

// hasLostKeys reports whether keys may lie here of a role that the map does not
// give this node any more. A certificate is installed only after a map that
// names it, so where a later map does not, the role was lost; keys without one
// may be those of a promotion that is under way.
func (m *member) hasLostKeys(v *candmap.View) bool {
	return !m.candidate(v) && (m.demoted.Load() || exists(m.cfg.Paths.CandidateCert()))
}

// hasStrayKeys goes by a map that is fresh, unless this run has seen the role
// go: a stale one may not tell of a promotion.
func (m *member) hasStrayKeys() bool {
	v := m.keeper.View()
	switch {
	case v.Map == nil:
		return false
	case m.candidate(v):
		m.demoted.Store(false)
		return false
	case m.demoted.Load():
		return true
	default:
		return m.keeper.Fresh() && (m.hasLostKeys(v) || m.oldKeys(m.cfg.now().Add(-strayAge)))
	}
}

// oldKeys reports whether there are keys, all of them older than the time.
func (m *member) oldKeys(than time.Time) bool {
	found := false
	for _, h := range m.keys.inMemory() {
		if h.changed.After(than) {
			return false
		}
		found = true
	}
	for _, p := range m.keyFiles() {
		changed, err := m.cfg.FileTime(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || changed.After(than) {
			return false
		}
		found = true
	}
	return found
}

// keyFiles lists what lies here of a candidate's role, and could not be looked
// for.
func (m *member) keyFiles() []string {
	m.keys.mu.Lock()
	defer m.keys.mu.Unlock()
	ssh, _ := m.keys.dir.Present()
	masterd, _ := m.masterd.present()
	return append(ssh, masterd...)
}
