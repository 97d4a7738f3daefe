package masterd

import (
	"net/netip"
	"slices"
	"testing"

	"rolekey/candmap"
	"rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// TestAnchorIsKeptForEver: an admission string must work after many other
// changes, so it pins a map that no candidate forgets.
func TestAnchorIsKeptForEver(t *testing.T) {
	lab := statetest.New(t)
	first := lab.S.Head()
	held := &candmap.Verified{Map: lab.S.HeadMap(), Hash: first.Hash}
	if got := anchor(lab.S, held); got != first.Hash {
		t.Errorf("of a new cluster it is %s", got.Short())
	}
	for i := range 2 * state.ChainRecent {
		lease(lab, uint32(60+i)) // #nosec G115 -- small
	}
	held = &candmap.Verified{Map: lab.S.HeadMap(), Hash: lab.S.Head().Hash}
	if got := anchor(lab.S, held); got != first.Hash {
		t.Errorf("after changes that concern no authority it is %s", got.Short())
	}
	for i := 2; i <= 3; i++ {
		lab.Add(i)
		lab.Promote(i)
	}
	before := &candmap.Verified{Map: lab.S.HeadMap(), Hash: lab.S.Head().Hash}
	lab.Do(state.KindSetVoters, state.SetVoters{Voters: members(1, 3)})
	changed := lab.S.Head()
	if got := anchor(lab.S, before); got != first.Hash {
		t.Errorf("a map that is committed and not published is pinned: %s", got.Short())
	}
	held = &candmap.Verified{Map: lab.S.HeadMap(), Hash: changed.Hash}
	if got := anchor(lab.S, held); got != changed.Hash {
		t.Errorf("after a change of voters it is %s", got.Short())
	}
	if _, ok := lab.S.Entry(cluster.Version{Epoch: 1, Version: 1}); !ok {
		t.Error("the first map is forgotten")
	}
}

// TestDoors: the master comes first, it alone admits.
func TestDoors(t *testing.T) {
	m := candmaptest.Map(3)
	candmaptest.SetVoters(m, 1, 2, 3, 4, 5)
	got := doors(&candmap.Verified{Map: m})
	var want []netip.AddrPort
	for _, n := range []int{3, 1, 2} {
		want = append(want, netip.AddrPortFrom(candmaptest.Addr(n), 1812))
	}
	if !slices.Equal(got, want) {
		t.Errorf("doors %v, want %v", got, want)
	}
}
