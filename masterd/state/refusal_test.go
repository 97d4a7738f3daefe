package state_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// TestRefusals provokes what no plan should ever propose; each leaves the
// state as it was.
func TestRefusals(t *testing.T) {
	l := statetest.New(t)
	l.Add(2)
	l.Add(3)
	l.Promote(3)
	keys := statetest.Keys(2, 7)
	one, two, three := statetest.ID(1), statetest.ID(2), statetest.ID(3)
	long := time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)
	job := submit(l, 1)
	params := func(p state.ParamsPatch) state.ParamsChange { return state.ParamsChange{Params: p} }
	for name, c := range map[string]struct {
		kind string
		body any
	}{
		"pool of none":           {state.KindParamsChange, params(state.ParamsPatch{CandidatePoolSize: new(0)})},
		"lease of none":          {state.KindParamsChange, params(state.ParamsPatch{LeaseSeconds: new(uint32(0))})},
		"ssh lease of a second":  {state.KindParamsChange, params(state.ParamsPatch{SSHLeaseSeconds: new(uint32(1))})},
		"level falls":            {state.KindFeatureLevel, state.FeatureLevel{Level: 1}},
		"keys without role":      {state.KindNodeChange, state.NodeChange{Node: two, Keys: &keys}},
		"certificate, no keys":   {state.KindNodeChange, state.NodeChange{Node: two, Candidate: []byte("x")}},
		"another certificate":    {state.KindNodeChange, state.NodeChange{Node: two, Flags: &state.FlagPatch{MasterCandidate: new(true)}, Keys: &keys, Candidate: []byte("x")}},
		"another node's keys":    {state.KindNodeChange, state.NodeChange{Node: two, Flags: &state.FlagPatch{MasterCandidate: new(true)}, Keys: l.S.Node(three).Keys}},
		"draining a candidate":   {state.KindNodeChange, changeFlags(3, "drained", true)}, // without taking the other flag
		"tag with a space":       {state.KindNodeChange, state.NodeChange{Node: two, AddTags: []string{"a b"}}},
		"tag too long":           {state.KindNodeChange, state.NodeChange{Node: two, AddTags: []string{strings.Repeat("x", state.MaxTag+1)}}},
		"voter twice":            {state.KindSetVoters, state.SetVoters{Voters: []cluster.NodeID{one, one, one}}},
		"voter unknown":          {state.KindSetVoters, state.SetVoters{Voters: []cluster.NodeID{statetest.ID(9)}}},
		"even voters":            {state.KindSetVoters, state.SetVoters{Voters: []cluster.NodeID{one, three}}},
		"kind of certificate":    {state.KindNodeCerts, state.NodeCerts{Node: three, Kind: "warp"}},
		"keys of a regular node": {state.KindNodeCerts, state.NodeCerts{Node: two, Kind: state.CertCandidate}},
		"ssh without overlap":    {state.KindNodeCerts, state.NodeCerts{Node: three, Kind: state.CertSSH, SSH: []cluster.SSHKey{statetest.SSHKey(8, "x")}}},
		"signing key of none":    {state.KindNodeCerts, state.NodeCerts{Node: three, Kind: state.CertSigning}},
		"no addresses":           {state.KindNodeAddress, state.NodeAddress{Node: two, Ports: new(cluster.Ports{})}},
		"unknown node":           {state.KindNodeRemove, state.NodeRemove{Node: statetest.ID(9)}},
		"unknown admission":      {state.KindAdmissionRevoke, state.AdmissionRevoke{ID: one}},
		"time of no era":         {state.KindJobUpdate, state.JobUpdate{ID: job, Unreachable: &[]state.Unreachable{{RPCUntil: &long}}}},
		"step too long":          {state.KindJobUpdate, state.JobUpdate{ID: job, Step: new(strings.Repeat("x", state.MaxStep+1))}},
		"body of another kind":   {state.KindSetMaster, state.SetVoters{Voters: []cluster.NodeID{one}}},
		"job of a change gone":   {state.KindParamsChange, state.ParamsChange{Job: &state.JobUpdate{ID: 99}}},
	} {
		before := snapshot(t, l.S)
		if _, err := l.Try(c.kind, c.body); err == nil {
			t.Errorf("%s was accepted", name)
		} else if cluster.CodeOf(err) == cluster.CodeInternal {
			t.Errorf("%s: %v has no code", name, err)
		}
		if !slices.Equal(before, snapshot(t, l.S)) {
			t.Errorf("%s changed the state", name)
		}
	}
}

func TestGenesisRefusals(t *testing.T) {
	for name, spoil := range map[string]func(*state.Genesis){
		"no CA key":        func(g *state.Genesis) { g.CA.Key = cluster.Secret{} },
		"no gossip key":    func(g *state.Genesis) { g.Gossip = cluster.Secret{} },
		"no cluster UUID":  func(g *state.Genesis) { g.Cluster.UUID = cluster.UUID{} },
		"no keys":          func(g *state.Genesis) { g.Node.Keys = nil },
		"bad policy":       func(g *state.Genesis) { g.Params.Policy = "loose" },
		"bad mode":         func(g *state.Genesis) { g.Params.SSHKeyMode = "none" },
		"no addresses":     func(g *state.Genesis) { g.Node.Addresses = nil },
		"foreign cert":     func(g *state.Genesis) { g.Node.Certs.Candidate = []byte("x") },
		"huge certificate": func(g *state.Genesis) { g.CA.Cert = make([]byte, state.MaxCertificate+1) },
		"recovery of none": func(g *state.Genesis) { g.Recovery.Threshold = 9 },
	} {
		g := statetest.Genesis()
		spoil(&g)
		if _, err := state.Propose(state.New(), state.KindGenesis, g, state.Meta{Time: statetest.Epoch}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestCommandHeadIsChecked(t *testing.T) {
	l := statetest.New(t)
	good, err := state.Propose(l.S, state.KindSetMaster, state.SetMaster{Node: statetest.ID(1)}, state.Meta{Time: l.Now})
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*state.Command){
		"version":    func(c *state.Command) { c.V = 7 },
		"zone":       func(c *state.Command) { c.Time = c.Time.In(time.FixedZone("x", 3600)) },
		"microtime":  func(c *state.Command) { c.Time = c.Time.Add(time.Microsecond) },
		"era":        func(c *state.Command) { c.Time = time.Time{} },
		"actor":      func(c *state.Command) { c.Actor = strings.Repeat("x", state.MaxActor+1) },
		"request id": func(c *state.Command) { c.RequestID = strings.Repeat("x", state.MaxRequestID+1) },
		"no body":    func(c *state.Command) { c.Body = nil },
	} {
		c := good
		spoil(&c)
		if next, res := l.S.Apply(c, 3, 1); res.Err == nil || next != l.S {
			t.Errorf("%s: was applied", name)
		}
	}
	if _, err := state.EncodeCommand(state.Command{Body: make([]byte, state.MaxCommand)}); err == nil {
		t.Error("a huge or invalid command was encoded")
	}
}

func TestSmallChanges(t *testing.T) {
	l := statetest.New(t)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	key := []byte("another gossip key of 32 bytes..")
	l.Do(state.KindGossipChange, state.GossipChange{Key: cluster.NewSecret(key)})
	if l.S.FeatureLevel != 2 || !slices.Equal(l.S.Gossip.Reveal(), key) {
		t.Fatalf("level %d", l.S.FeatureLevel)
	}
	l.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(1), AddTags: []string{"b", "a", "b"}})
	l.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(1), AddTags: []string{"c"}, DelTags: []string{"a"}})
	if tags := l.S.Node(statetest.ID(1)).Tags; !slices.Equal(tags, []string{"b", "c"}) {
		t.Fatalf("tags %v", tags)
	}
	if n, gone := l.S.ByIdentity(statetest.Node(1).Identity); n == nil || gone != nil {
		t.Fatal("a member's identity is not found")
	}
	if n, gone := l.S.ByIdentity(cluster.DigestOf(nil)); n != nil || gone != nil {
		t.Fatal("a stranger's identity is found")
	}
	for i := range 3 {
		submit(l, i+1)
	}
	for i, j := range l.S.SortedJobs() {
		if j.ID != int64(i+1) {
			t.Fatalf("job %d at %d", j.ID, i)
		}
	}
}

// TestManyNodesJoinInADay: records of those that joined make room for others,
// those that are live do not.
func TestManyNodesJoinInADay(t *testing.T) {
	l := statetest.New(t)
	for i := 2; i < 310; i++ {
		l.Add(i)
	}
	if len(l.S.Nodes) != 309 {
		t.Fatalf("%d nodes", len(l.S.Nodes))
	}
	var err error
	for i := 400; err == nil && i < 800; i++ {
		_, err = l.Try(state.KindAdmissionCreate, state.AdmissionCreate{Record: l.Record(i)})
	}
	live := len(l.S.LiveAdmissions(l.Now))
	if code(err) != cluster.CodeBusy || live != len(l.S.Admissions) {
		t.Fatalf("with %d live strings of %d records: %v", live, len(l.S.Admissions), err)
	}
}
