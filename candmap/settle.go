package candmap

import (
	"context"
	"slices"
	"sync"

	"go.uber.org/zap"

	"rolekey/cluster"
)

// unfinished is the problem of an acknowledgement that did not wait for the end.
const unfinished = "apply: not finished yet"

// done is how far files follow the view. Work is left where it differs from
// the view in force, so nothing needs to be remembered when an effect fails,
// panics or is overtaken.
type done struct {
	mu       sync.Mutex
	applied  *View
	current  *Verified
	roster   *Roster
	missing  []cluster.Digest
	problems map[string]string // by kind of work
}

// enforce puts next in force; under turn. It touches no disk.
func (k *Keeper) enforce(ctx context.Context, old, next *View, taken []*Verified) {
	if next.Map == old.Map && next.Roster == old.Roster {
		return
	}
	prev := old.Map
	for _, v := range taken {
		k.chain.add(Link{At: v.At(), Hash: v.Hash, Authority: v.ChangesAuthority(prev)}, v.Envelope)
		prev = v
	}
	k.swap(next)
	k.cfg.Effects.Revoke(context.WithoutCancel(ctx), old, next)
}

// swap makes next the view. From here on every check goes by it.
func (k *Keeper) swap(next *View) {
	k.news.Lock()
	defer k.news.Unlock()
	k.view.Store(next)
	k.hear(next.Map.Issued)
	if k.newest == nil || k.newest.At().Newer(next.At()) {
		return
	}
	if k.newest.Map != next.Map.Hash {
		k.newest = nil // of an older map
		return
	}
	k.hear(k.newest.Time)
}

// settle applies and persists the view in force, and what came into force
// meanwhile. If another is at it and ctx ends first, that one or Run does it.
// What a crash may take is left to Run, unless all is asked for.
func (k *Keeper) settle(ctx context.Context, all bool) {
	if err := k.take(ctx, k.disk); err != nil {
		return
	}
	defer k.giveBack(k.disk)
	ctx = context.WithoutCancel(ctx)
	for {
		view := k.View()
		k.settleOnce(ctx, view)
		if k.View() == view {
			break
		}
	}
	if all || !k.running.Load() || k.cfg.Provides(k.View()) {
		k.saveRest()
		return
	}
	select {
	case k.later <- struct{}{}:
	default:
	}
}

// saveRest saves what no acknowledgement waits for, and what is not synced
// either: maps that changed no authority, and a roster that only adds to the one
// on disk. Both are fetched again if they are lost. It is called under disk.
func (k *Keeper) saveRest() {
	if k.chain.owesAuthority() {
		k.note("chain", k.chain.save())
	}
	k.saveRoster(k.View().Roster)
}

func (k *Keeper) saveRoster(r *Roster) {
	if d := &k.done; d.roster != r && k.note("roster", k.cfg.Store.SaveRoster(r.Hash(), r.Docs())) {
		k.finished(func() { d.roster = r })
	}
}

func (k *Keeper) settleOnce(ctx context.Context, view *View) {
	if view.Map == nil {
		return
	}
	d := &k.done
	if d.applied != view && k.note("apply", k.cfg.Effects.Apply(ctx, view)) {
		k.finished(func() { d.applied = view })
		k.cfg.Log.Info("view in force", zap.Stringer("version", view.At()), zap.Bool("roster_complete", view.Complete()))
	}
	k.note("chain", k.chain.save())
	if d.current != view.Map && k.note("current", k.cfg.Store.SaveCurrent(view.Map.Envelope)) {
		k.finished(func() { d.current = view.Map })
	}
	if view.Roster.lacks(d.roster) {
		k.saveRoster(view.Roster) // a restart must not let them in again
	}
	if k.cfg.OnChange != nil && k.announced != view {
		k.announced = view
		k.cfg.OnChange(view)
	}
}

// finished changes done, which settle alone writes and ack reads.
func (k *Keeper) finished(change func()) {
	k.done.mu.Lock()
	defer k.done.mu.Unlock()
	change()
}

// note records the outcome of one kind of work and reports whether it is done.
func (k *Keeper) note(what string, err error) bool {
	k.done.mu.Lock()
	defer k.done.mu.Unlock()
	if err == nil {
		delete(k.done.problems, what)
		return true
	}
	k.done.problems[what] = err.Error()
	k.cfg.Log.Warn("map is in force, but something is left to do", zap.String("what", what), zap.Error(err))
	return false
}

// Unsaved tells, for people, what is held and could not be written to disk.
func (k *Keeper) Unsaved() (list []string) {
	k.done.mu.Lock()
	defer k.done.mu.Unlock()
	for what, problem := range k.done.problems {
		if what != "apply" {
			list = append(list, problem)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// ack describes what is held now.
func (k *Keeper) ack() Ack {
	v := k.View()
	a := Ack{Version: v.At(), Fresh: k.Fresh(), Age: k.lease.Load().Age(k.cfg.Clocks())}
	if v.Map == nil {
		return a
	}
	a.Hash = v.Map.Hash
	d := &k.done
	d.mu.Lock()
	defer d.mu.Unlock()
	a.Durable, a.Missing = d.current == v.Map, d.missing
	for what, problem := range d.problems {
		a.Problems = append(a.Problems, what+": "+problem)
	}
	if d.applied != v && d.problems["apply"] == "" {
		a.Problems = append(a.Problems, unfinished)
	}
	slices.Sort(a.Problems)
	return a
}
