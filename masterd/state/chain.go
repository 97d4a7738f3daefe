package state

import (
	"slices"

	"rolekey/candmap"
	"rolekey/cluster"
)

// ChainEntry is one committed version of the candidate map.
type ChainEntry struct {
	Version   cluster.Version `json:"version"`
	Hash      cluster.Digest  `json:"hash"` // of Payload
	Payload   []byte          `json:"payload"`
	Authority bool            `json:"authority"` // it changes the authority, so it is kept for ever
	Term      uint64          `json:"term"`      // raft term of the entry
}

// Head returns the newest committed map; the zero entry before there is one.
func (s *State) Head() ChainEntry {
	if len(s.Chain) == 0 {
		return ChainEntry{}
	}
	return s.Chain[len(s.Chain)-1]
}

// Entry returns the chain entry of a version, if it is still kept.
func (s *State) Entry(v cluster.Version) (ChainEntry, bool) {
	i, ok := slices.BinarySearchFunc(s.Chain, v, func(e ChainEntry, v cluster.Version) int { return e.Version.Compare(v) })
	if !ok {
		return ChainEntry{}, false
	}
	return s.Chain[i], true
}

// After returns the entries newer than v that are kept, oldest first.
func (s *State) After(v cluster.Version) []ChainEntry {
	i := slices.IndexFunc(s.Chain, func(e ChainEntry) bool { return e.Version.Newer(v) })
	if i < 0 {
		return nil
	}
	return slices.Clone(s.Chain[i:])
}

// extend appends a version to the chain and forgets old ones. The slice of the
// receiver is shared with older states and is not written to.
func extend(chain []ChainEntry, e ChainEntry) []ChainEntry {
	out := make([]ChainEntry, 0, len(chain)+1)
	surplus := 1 - ChainRecent // of versions that do not change the authority
	for _, c := range chain {
		if !c.Authority {
			surplus++
		}
	}
	for _, c := range chain {
		if c.Authority || surplus <= 0 {
			out = append(out, c)
			continue
		}
		surplus--
	}
	return append(out, e)
}

// newEntry makes the chain entry of a map that follows prev.
func newEntry(m *candmap.Map, payload []byte, prev *candmap.Map, term uint64) ChainEntry {
	changes := prev == nil || prev.Epoch != m.Epoch || !prev.Authority().Equal(m.Authority())
	return ChainEntry{m.At(), cluster.DigestOf(payload), payload, changes, term}
}
