package rapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func TestAcceptHostKeys(t *testing.T) {
	b := newBench(t, 2)
	digest := strings.Repeat("ab", 32)
	body := fmt.Sprintf(`{"digest":%q,"reject":true}`, digest)
	b.refuse("POST", "/2/nodes/node2/host-keys", body, 409) // the master may be of an earlier release
	b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
	var d wire.NodeDetails
	if b.want("GET", "/2/nodes/node2/details", "", &d); d.PendingHostKeys != nil {
		t.Errorf("pending: %+v", d.PendingHostKeys)
	}
	b.Do(state.KindHostKeysClaim, state.HostKeysClaim{
		Node: statetest.ID(1), Incarnation: 1, Issued: statetest.Epoch.Add(time.Hour), Keys: []cluster.SSHKey{statetest.SSHKey(1, "new")}, Port: 2222,
	})
	b.want("GET", "/2/nodes/node1/details", "", &d)
	if p := d.PendingHostKeys; p == nil || p.SSHPort != 2222 || len(p.HostKeys) != 1 || p.Rejected || p.Digest.IsZero() || len(d.Pending) == 0 {
		t.Errorf("pending: %+v, %q", p, d.Pending)
	}
	var id int64
	b.want("POST", "/2/nodes/node2/host-keys", body, &id)
	s, _ := b.State()
	want := fmt.Sprintf(`{"OP_ID":"OP_NODE_ACCEPT_HOST_KEYS","node_name":"node2.lab.test","digest":%q,"reject":true}`, digest)
	if j := s.Jobs[id]; j.Summary[0] != "NODE_ACCEPT_HOST_KEYS(node2.lab.test)" || !sameJSON(t, string(j.Ops[0]), want) {
		t.Errorf("%s: %s, want %s", j.Summary, j.Ops, want)
	}
	b.refuse("POST", "/2/nodes/node2/host-keys", `{"fingerprint":"SHA256:x"}`, 400)
}
