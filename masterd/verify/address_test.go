package verify

import (
	"net/netip"
	"slices"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

func TestClusterAddress(t *testing.T) {
	address := &cluster.MasterAddress{Address: netip.MustParsePrefix("192.0.2.9/24"), Netdev: "eth0"}
	held := func() *rpc.AddressState {
		return &rpc.AddressState{Address: "192.0.2.9/24", Netdev: "eth0", Held: true}
	}
	const n1, n4 = "  - ERROR:ENODENET:node:node1.lab.test:", "  - ERROR:ENODENET:node:node4.lab.test:"
	for name, c := range map[string]struct {
		edit func(f *field)
		want []string
	}{
		"as it should be":     {func(*field) {}, nil},
		"master lacks it":     {func(f *field) { f.at(1).MasterAddress.Held = false }, []string{n1 + "the master node does not hold the cluster address 192.0.2.9/24 on eth0"}},
		"an older one":        {func(f *field) { f.at(1).MasterAddress.Netdev = "eth1" }, []string{n1 + "the master node does not hold the cluster address 192.0.2.9/24 on eth0"}},
		"master knows nought": {func(f *field) { f.at(1).MasterAddress = nil }, []string{n1 + "the master node does not know of the cluster address 192.0.2.9/24 yet"}},
		"another holds it":    {func(f *field) { f.at(4).MasterAddress = held() }, []string{n4 + "holds the cluster address 192.0.2.9/24, and is not the master"}},
		"another has trouble": {func(f *field) { f.at(4).MasterAddress = &rpc.AddressState{Problem: "busy"} }, []string{n4 + "cluster address: busy"}},
	} {
		f := newField(t)
		f.lab.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSettings})
		f.lab.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{MasterAddress: address}})
		f.publish()
		f.at(1).MasterAddress = held()
		c.edit(f)
		if ok, got := f.run(); ok != (c.want == nil) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %t, %q, want %q", name, ok, got, c.want)
		}
	}
}
