package candmap_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

var someAddress = cluster.MasterAddress{Address: netip.MustParsePrefix("192.0.2.9/24"), Netdev: "eth0"}

// settled is a roster of format 2.
func settled(t *testing.T, nodes ...int) *candmap.Roster {
	r, err := candmap.NewRoster(ct.Roster(nodes...).Nodes(), &candmap.Settings{Name: "lab.test", Address: &someAddress})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSettingsRoundTrip(t *testing.T) {
	for _, s := range []*candmap.Settings{nil, {Name: "lab.test"}, {Name: "lab.test", Address: &someAddress}} {
		r, err := candmap.NewRoster(ct.Roster(1, 2).Nodes(), s)
		if err != nil {
			t.Fatal(err)
		}
		docs := r.Docs()
		got, err := candmap.AssembleRoster(r.Hash(), func(d cluster.Digest) []byte { return docs[d] })
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Settings(), s) || got.Hash() != r.Hash() {
			t.Errorf("%+v came back as %+v", s, got.Settings())
		}
	}
}

// TestSettingsAreValid: what reaches files and devices is no free text.
func TestSettingsAreValid(t *testing.T) {
	own := cluster.MasterAddress{Address: netip.PrefixFrom(ct.Addr(1), 24), Netdev: "eth0"}
	for name, s := range map[string]candmap.Settings{
		"no name":            {},
		"pattern as name":    {Name: "*"},
		"no device":          {Name: "lab.test", Address: &cluster.MasterAddress{Address: someAddress.Address}},
		"device of a path":   {Name: "lab.test", Address: &cluster.MasterAddress{Address: someAddress.Address, Netdev: "../x"}},
		"address of a node":  {Name: "lab.test", Address: &own},
		"no address":         {Name: "lab.test", Address: &cluster.MasterAddress{Netdev: "eth0"}},
		"address that is no": {Name: "lab.test", Address: &cluster.MasterAddress{Address: netip.MustParsePrefix("0.0.0.0/8"), Netdev: "eth0"}},
	} {
		if _, err := candmap.NewRoster(ct.Roster(1, 2).Nodes(), &s); cluster.CodeOf(err) != cluster.CodeBadFormat {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRosterIndexFormats(t *testing.T) {
	index := string(settled(t, 1).Index())
	for name, c := range map[string]struct {
		from, to string
		want     cluster.Code
	}{
		"later format":         {"roster-index.v2", "roster-index.v3", cluster.CodeUnsupportedFormat},
		"settings missing":     {`"settings":{"name":"lab.test","master_address":{"address":"192.0.2.9/24","netdev":"eth0"}}`, `"settings":null`, cluster.CodeBadFormat},
		"settings in format 1": {"roster-index.v2", "roster-index.v1", cluster.CodeBadFormat},
		"unknown setting":      {`"name":"lab.test"`, `"name":"lab.test","more":1`, cluster.CodeBadFormat},
		"address not plain":    {"192.0.2.9/24", "192.0.2.9/024", cluster.CodeBadFormat},
	} {
		text := strings.Replace(index, c.from, c.to, 1)
		if text == index {
			t.Fatalf("%s: nothing is replaced", name)
		}
		if _, err := candmap.ParseRosterIndex([]byte(text), cluster.DigestOf([]byte(text))); cluster.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
