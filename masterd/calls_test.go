package masterd

import (
	"errors"
	"slices"
	"testing"

	"rolekey/cluster"
	"rolekey/rpc"
)

// TestOrdersByTheNewestMap: an order that a newer map overtook is given once more,
// by that map; one of a node that has no newer map itself is refused.
func TestOrdersByTheNewestMap(t *testing.T) {
	older := cluster.Errorf(cluster.CodeMapOlder, "the order names an older map")
	other := errors.New("the disk is full")
	for name, c := range map[string]struct {
		maps    []uint64 // of this node, at each look
		answers []error
		by      []uint64
		want    error
	}{
		"taken":                {[]uint64{5, 6}, []error{nil}, []uint64{5}, nil},
		"overtaken":            {[]uint64{5, 6}, []error{older, nil}, []uint64{5, 6}, nil},
		"overtaken twice":      {[]uint64{5, 6}, []error{older, older}, []uint64{5, 6}, older},
		"of a deposed master":  {[]uint64{5, 5}, []error{older}, []uint64{5}, older},
		"fails for its reason": {[]uint64{5, 6}, []error{other}, []uint64{5}, other},
	} {
		var by []uint64
		maps, answers := c.maps, c.answers
		err := byNewest(func() rpc.Stamp {
			v := cluster.Version{Epoch: 1, Version: maps[0]}
			maps = maps[1:]
			return rpc.Stamp{Version: v}
		}, func(s rpc.Stamp) error {
			by = append(by, s.Version.Version)
			err := answers[0]
			answers = answers[1:]
			return err
		})
		if !errors.Is(err, c.want) || !slices.Equal(by, c.by) {
			t.Errorf("%s: by maps %v, %v", name, by, err)
		}
	}
}
