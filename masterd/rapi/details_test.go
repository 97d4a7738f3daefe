package rapi_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
)

// TestNodeDetails: certificates are read, and what is pending is named.
func TestNodeDetails(t *testing.T) {
	b := newBench(t, 2)
	s, _ := b.State()
	n := s.Node(statetest.ID(2))
	ca, err := pki.NewCA(s.Cluster.UUID, s.Cluster.Name, statetest.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Issue(pki.Request{Kind: pki.KindServer, Node: n.UUID, Name: "old.lab.test", Addresses: n.Addresses, PublicKey: key.Public()}, statetest.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	pin, err := pki.PinOfKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	held := s.Head()
	b.Do(state.KindNodeCerts, state.NodeCerts{Node: n.UUID, Kind: state.CertServer, Cert: der, Pins: []cluster.Digest{n.Server[0], pin}})
	b.Confirm(rapi.NodeStatus{Node: n.UUID, Version: held.Version, Hash: held.Hash, Age: time.Second, LeaseUntil: b.Now().Add(time.Minute)})
	var id int64
	b.want("PUT", "/2/nodes/node2/role", `"drained"`, &id)
	var d wire.NodeDetails
	b.want("GET", "/2/nodes/node2/details", "", &d)
	if len(d.Certificates) != 1 {
		t.Fatalf("%+v", d)
	}
	c := d.Certificates[0]
	if c.Kind != "server" || c.Digest != cluster.DigestOf(der) || !slices.Contains(c.Pins, pin) || !c.RenewAt.Before(c.NotAfter) || d.LastContact == nil || d.RPCUntil == nil {
		t.Errorf("%+v", d)
	}
	text := strings.Join(d.Pending, "\n")
	for _, want := range []string{"it has confirmed map 1.", "its server certificate is for its former name", "NODE_SET_PARAMS(node2.lab.test), is queued"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %q", want, text)
		}
	}
	b.refuse("GET", "/2/nodes/nosuch/details", "", 404)
}
