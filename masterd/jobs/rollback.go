package jobs

import (
	"context"
	"slices"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
)

// retires lists the SSH keys that a roll is to take away.
func (left *resume) retires(s *state.State) []cluster.SSHKey {
	old := slices.Clone(left.Retire)
	if left.Renew == nil {
		return old
	}
	known := roles.SharedSSHKeys(s)
	for _, n := range s.Candidates() {
		known = append(known, n.Keys.SSH...)
	}
	for _, k := range known {
		if slices.Contains(left.Renew.SSH, blobDigest(k)) && !roles.HasSSHKey(old, k) {
			old = append(old, k)
		}
	}
	return old
}

// mayGoBack reports whether a renewal is to be given up, and can be: the map
// still lists every key that it replaces.
func (g *roll) mayGoBack() bool {
	return g.left.Renew != nil && g.canceling() && !slices.ContainsFunc(g.c.State().Candidates(), func(n *state.Node) bool {
		return g.left.Renew.about(n.UUID) && len(n.Keys.SSH) > 0 && len(g.kept(n)) == 0
	})
}

// kept are the keys of a node that were there when the renewal began.
func (g *roll) kept(n *state.Node) []cluster.SSHKey {
	return slices.DeleteFunc(slices.Clone(n.Keys.SSH), func(k cluster.SSHKey) bool { return !roles.HasSSHKey(g.old, k) })
}

// goBack lists the old keys alone again, and makes the parameters what they were.
// The new ones are listed before, if they are not yet: nodes destroy what a map
// has listed and does not any more.
func (g *roll) goBack(ctx context.Context) error {
	_, err := g.list(ctx, g.both)
	if err != nil && !unfit(err) {
		return err
	}
	_, err = g.list(ctx, func(_ *state.State, n *state.Node) []cluster.SSHKey {
		if old := g.kept(n); len(old) > 0 {
			return old
		}
		return n.Keys.SSH
	})
	if err != nil {
		return err
	}
	s := g.c.State()
	was := g.left.Renew.SSHWas
	if was != nil && *was != s.Params.SSH().KeySpec() {
		patch := state.ParamsPatch{SSHKey: was}
		if _, err := g.commit(ctx, state.KindParamsChange, func(u *state.JobUpdate) any { return state.ParamsChange{Params: patch, Job: u} }); err != nil {
			return err
		}
	}
	keep := slices.DeleteFunc(slices.Clone(s.Shared), func(k state.SharedKey) bool { return !roles.HasSSHKey(g.old, k.Public) })
	if len(keep) < len(s.Shared) {
		if _, err := g.commit(ctx, state.KindSharedKeys, func(u *state.JobUpdate) any { return state.SharedKeysChange{Keys: keep, Job: u} }); err != nil {
			return err
		}
	}
	return errCanceled
}
