package candmap

import (
	"go.uber.org/zap"

	"rolekey/cluster"
)

// completeRoster puts the map's roster into the view if all its documents are
// at hand, in memory: nothing here may wait for a disk. Documents that the map
// does not name are dropped; the others are staged until the rest arrives.
func (k *Keeper) completeRoster(next *View, docs [][]byte) {
	missing := k.assemble(next, docs)
	k.finished(func() { k.done.missing = missing })
}

func (k *Keeper) assemble(next *View, docs [][]byte) (missing []cluster.Digest) {
	if next.Complete() {
		return nil
	}
	given := map[cluster.Digest][]byte{}
	for _, d := range docs[:min(len(docs), RosterBuckets+1)] {
		given[cluster.DigestOf(d)] = d
	}
	find := func(d cluster.Digest) []byte {
		if b := given[d]; b != nil {
			return b
		}
		if b := k.staged[d]; b != nil || next.Roster == nil {
			return b
		}
		return next.Roster.Docs()[d]
	}
	want := next.Map.Roster
	r, err := assembleRoster(next.Roster, want, find)
	if err == nil {
		next.Roster = r
		k.staged = nil
		return nil
	}
	if missing = k.stage(want, find); len(missing) == 0 {
		k.cfg.Log.Error("roster named by the map is not valid", zap.Error(err))
	}
	return missing
}

// stage keeps of the documents found those that the roster wants.
func (k *Keeper) stage(want cluster.Digest, find func(cluster.Digest) []byte) (missing []cluster.Digest) {
	staged := map[cluster.Digest][]byte{}
	defer func() { k.staged = staged }()
	index := find(want)
	ri, err := ParseRosterIndex(index, want)
	if err != nil {
		return []cluster.Digest{want}
	}
	staged[want] = index
	for _, d := range ri.Buckets {
		if b := find(d); b != nil {
			staged[d] = b
		}
	}
	return ri.Missing(func(d cluster.Digest) bool { return staged[d] != nil })
}
