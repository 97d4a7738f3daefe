package jobs

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/sshkeys"
)

// stepRoll brings the SSH keys of all candidates to what the parameters want,
// and takes those away that must go.
const stepRoll roles.StepKind = "ssh-roll"

// A roll replaces SSH keys in phases, each of which is one entry of the log and
// one map: keys are made everywhere; the map lists old and new; it lists the new
// ones alone. Every phase is computed from the state and what the nodes answer,
// which is the same when they are asked again. So whoever goes on with a roll
// just begins it anew.
type roll struct {
	*run
	left   *resume
	old    []cluster.SSHKey // that must go
	shared *cluster.SSHKey  // that all are to have; nil: each its own, or none at all
	fresh  map[cluster.NodeID]cluster.SSHKey
	missed map[cluster.NodeID]error
}

// Limits of the first phase. RSA keys take their time.
const (
	prepareLimit    = 10 * time.Second
	prepareLimitRSA = time.Minute
)

func (r *run) roll(ctx context.Context, left *resume) error {
	s := r.c.State()
	if s.FeatureLevel < state.LevelSSH {
		return nil
	}
	g := &roll{run: r, left: left, old: left.retires(s), fresh: map[cluster.NodeID]cluster.SSHKey{}, missed: map[cluster.NodeID]error{}}
	if s.Params.SSHSetup {
		if err := g.prepare(ctx); err != nil {
			return fmt.Errorf("the SSH keys of the master candidates are not replaced yet, and the master tries again: %w", err)
		}
	}
	for _, phase := range []func(context.Context) error{g.overlap, g.retire, g.forget} {
		if g.mayGoBack() {
			return g.goBack(ctx)
		}
		if err := phase(ctx); err != nil {
			return fmt.Errorf("the SSH keys of the master candidates are not all replaced yet, and the master tries again: %w", err)
		}
	}
	g.tell()
	return nil
}

// prepare has all candidates hold their new key. Nobody waits for one that does
// not answer; but the master must be able to log in when the old key is gone.
func (g *roll) prepare(ctx context.Context) error {
	s := g.c.State()
	if s.Params.SSHKeyMode == cluster.KeyShared {
		if err := g.chooseShared(ctx); err != nil {
			return err
		}
		s = g.c.State()
	}
	limit := prepareLimit
	if s.Params.SSHKeyType == "rsa" {
		limit = prepareLimitRSA
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, n := range s.Candidates() {
		all.Go(func() {
			key, err := g.ask(bounded, s, n)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				g.missed[n.UUID] = err
			} else {
				g.fresh[n.UUID] = key
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	g.dropCopies(s)
	return g.missed[s.Master]
}

// chooseShared finds the shared key to roll to, or makes one. The state has it
// before any node does.
func (g *roll) chooseShared(ctx context.Context) error {
	s := g.c.State()
	spec := s.Params.SSH().KeySpec()
	if len(s.Shared) > 0 {
		k := s.Shared[len(s.Shared)-1].Public
		if sshkeys.IsOf(k, spec) && !roles.HasSSHKey(g.old, k) {
			g.shared = &k
			return nil
		}
	}
	key, err := NewSharedKey(spec)
	if err != nil {
		return err
	}
	keep := s.Shared[max(0, len(s.Shared)-1):]
	next := append(keep[:len(keep):len(keep)], key)
	if _, err := g.commit(ctx, state.KindSharedKeys, func(u *state.JobUpdate) any { return state.SharedKeysChange{Keys: next, Job: u} }); err != nil {
		return err
	}
	g.shared = &key.Public
	return nil
}

// ask has one candidate hold its new key.
func (g *roll) ask(ctx context.Context, s *state.State, n *state.Node) (key cluster.SSHKey, err error) {
	req := KeyRequest(s, n, n.Certs.Candidate)
	req.SSHKey = sshOrder(s, g.shared, g.avoids(n))
	keys, err := AskKeys(ctx, patient{g.c, notYet}, s, n, req)
	if err == nil {
		err = checkSSH(n, req.SSHKey, keys.SSH)
	}
	if err != nil {
		return key, err
	}
	if g.left.Renew != nil && slices.Contains(g.left.Renew.SSH, blobDigest(keys.SSH[0])) {
		return key, fmt.Errorf("node %s answers with the SSH key that it had before", n.Name)
	}
	return keys.SSH[0], nil
}

// avoids are the keys that a node must not go on with: of those that must go
// the ones that it may have.
func (g *roll) avoids(n *state.Node) []cluster.SSHKey {
	if g.left.Renew == nil {
		return g.old
	}
	return slices.DeleteFunc(slices.Clone(n.Keys.SSH), func(k cluster.SSHKey) bool { return !roles.HasSSHKey(g.old, k) })
}

// dropCopies leaves out keys that a node claims and another one has: no map may
// list them, and one node must not hold up the others.
func (g *roll) dropCopies(s *state.State) {
	if g.shared != nil {
		return
	}
	owners := map[string]cluster.NodeID{}
	for _, n := range s.Candidates() {
		for _, k := range n.Keys.SSH {
			owners[string(k.Blob)] = n.UUID
		}
	}
	for _, n := range s.Candidates() {
		k, ok := g.fresh[n.UUID]
		if owner, taken := owners[string(k.Blob)]; ok && taken && owner != n.UUID {
			g.missed[n.UUID] = fmt.Errorf("it claims the SSH key %s of node %s", sshkeys.Fingerprint(k), g.name(owner))
			delete(g.fresh, n.UUID)
		} else if ok {
			owners[string(k.Blob)] = n.UUID
		}
	}
}

// overlap lists the new keys beside the old ones, in one map.
func (g *roll) overlap(ctx context.Context) error {
	spread, err := g.list(ctx, g.both)
	if unfit(err) { // another change came first
		spread, err = g.list(ctx, g.both)
	}
	if unfit(err) {
		return nil // what an interrupted roll left fits no such map: the next one ends it
	}
	if err != nil || g.left.Now || !g.overlaps() {
		return err
	}
	return g.hold(ctx, spread)
}

// overlaps reports whether the map lists keys that are about to go.
func (g *roll) overlaps() bool {
	s := g.c.State()
	return s.Params.SSHSetup && slices.ContainsFunc(s.Candidates(), func(n *state.Node) bool {
		return len(roles.WithoutSSHKeys(n.Keys.SSH, g.final(s, n))) > 0
	})
}

func unfit(err error) bool {
	c := cluster.CodeOf(err)
	return c == cluster.CodeConflict || c == cluster.CodeBadFormat
}

// retire lists the new keys alone, and says which nodes may not know any of them.
func (g *roll) retire(ctx context.Context) error {
	old := g.overlaps()
	spread, err := g.list(ctx, g.final)
	if err != nil || !old {
		return err
	}
	for _, u := range spread.Unreachable {
		g.say(fmt.Sprintf(" - WARNING: Node %s may accept none but the SSH keys that were replaced: until its node daemon answers, "+
			"it takes a key of your own to log in to it", u.Node))
	}
	return nil
}

// list commits the lists of all candidates as one map, if any of them differs
// from what it is.
func (g *roll) list(ctx context.Context, want func(*state.State, *state.Node) []cluster.SSHKey) (Spread, error) {
	s := g.c.State()
	var body state.SSHKeysChange
	for _, n := range s.Candidates() {
		next, old := want(s, n), n.Keys.SSH
		if slices.EqualFunc(next, old, roles.SameSSHKey) {
			continue
		}
		lost := len(next) > 0 && len(old) > 0 && len(roles.WithoutSSHKeys(next, old)) == len(next)
		body.Lists = append(body.Lists, state.NodeSSHKeys{Node: n.UUID, SSH: next, Lost: lost})
	}
	if len(body.Lists) == 0 {
		return Spread{}, nil
	}
	return g.commit(ctx, state.KindSSHKeys, func(u *state.JobUpdate) any { body.Job = u; return body })
}

// key returns what a candidate is to have in the end; a shared key is for all,
// also for those that get it later.
func (g *roll) key(n *state.Node) (cluster.SSHKey, bool) {
	if g.shared != nil {
		return *g.shared, true
	}
	k, ok := g.fresh[n.UUID]
	return k, ok
}

// both is the list of the second phase. A key that all share stays with all.
func (g *roll) both(s *state.State, n *state.Node) []cluster.SSHKey {
	old := n.Keys.SSH
	key, ok := g.key(n)
	switch {
	case !ok || roles.HasSSHKey(old, key):
		return old
	case len(old) < 2:
		return append(old[:len(old):len(old)], key)
	case roles.HasSSHKey(roles.SharedSSHKeys(s), old[0]):
		return []cluster.SSHKey{old[0], key}
	}
	return []cluster.SSHKey{old[1], key}
}

// final is the list of the last phase. A node that has no new key of its own
// keeps the old one, unless others have that too or it must go.
func (g *roll) final(s *state.State, n *state.Node) []cluster.SSHKey {
	if !s.Params.SSHSetup {
		return []cluster.SSHKey{}
	}
	if key, ok := g.key(n); ok {
		return []cluster.SSHKey{key}
	}
	return roles.WithoutSSHKeys(n.Keys.SSH, append(roles.SharedSSHKeys(s), g.old...))
}

// forget drops shared keys that the map does not list any more.
func (g *roll) forget(ctx context.Context) error {
	s := g.c.State()
	var keep []state.SharedKey
	for _, k := range s.Shared {
		if g.shared != nil && roles.HasSSHKey([]cluster.SSHKey{*g.shared}, k.Public) {
			keep = append(keep, k)
		}
	}
	if len(keep) == len(s.Shared) {
		return nil
	}
	_, err := g.commit(ctx, state.KindSharedKeys, func(u *state.JobUpdate) any { return state.SharedKeysChange{Keys: keep, Job: u} })
	return err
}

// commit makes one phase's change, with what there is to say so far.
func (g *roll) commit(ctx context.Context, kind string, body func(*state.JobUpdate) any) (Spread, error) {
	u := g.update
	spread, err := g.c.Change(ctx, kind, body(&u), g.job.Actor, g.job.RequestID)
	if err != nil {
		return spread, err
	}
	g.drained()
	if spread.All > 0 {
		g.report(spread)
	}
	return spread, nil
}

// tell says what became of each node.
func (g *roll) tell() {
	s := g.c.State()
	for _, n := range s.Candidates() {
		err := g.missed[n.UUID]
		switch {
		case err == nil:
		case g.shared != nil || len(n.Keys.SSH) == 0:
			g.say(fmt.Sprintf(" - WARNING: Node %s has no SSH key until it answers and the master has given it the new one: %v", n.Name, err))
		default:
			g.say(fmt.Sprintf(" - WARNING: Node %s keeps its old SSH key until it answers and the master has given it a new one: %v", n.Name, err))
		}
	}
	switch {
	case !s.Params.SSHSetup:
		g.say(" - INFO: No node accepts SSH keys of the cluster any more")
	case g.shared != nil:
		g.say(fmt.Sprintf(" - INFO: All master candidates share one SSH key: %s, %s", s.Params.SSH().KeySpec(), sshkeys.Fingerprint(*g.shared)))
	default:
		g.say(fmt.Sprintf(" - INFO: %d of %d master candidates have SSH keys of their own: %s", len(g.fresh), len(s.Candidates()), s.Params.SSH().KeySpec()))
	}
}
