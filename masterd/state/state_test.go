package state_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func code(err error) cluster.Code { return cluster.CodeOf(err) }

func snapshot(t statetest.TB, s *state.State) []byte {
	t.Helper()
	b, err := state.EncodeSnapshot(s)
	if err != nil {
		t.Fatalf("encode snapshot: %v", err)
	}
	return b
}

func TestGenesisYieldsVersionOne(t *testing.T) {
	l := statetest.New(t)
	m := l.S.HeadMap()
	if m.At() != (cluster.Version{Epoch: 1, Version: 1}) || !m.Previous.IsZero() {
		t.Fatalf("head is %s with previous %s", m.At(), m.Previous)
	}
	if len(m.Candidates) != 1 || !m.Candidates[0].Voter || m.Master != statetest.ID(1) {
		t.Fatalf("candidates %+v, master %s: want node 1 alone as master and voter", m.Candidates, m.Master)
	}
	if e := l.S.Head(); !e.Authority || e.Hash != cluster.DigestOf(e.Payload) || m.Roster != l.S.Roster().Hash() {
		t.Fatalf("head entry %+v does not fit the map", e.Version)
	}
	if _, err := l.Try(state.KindGenesis, statetest.Genesis()); code(err) != cluster.CodeConflict {
		t.Fatalf("a second genesis: %v, want a conflict", err)
	}
}

func TestAdmissionBindsOnce(t *testing.T) {
	l := statetest.New(t)
	r := l.Record(2)
	l.Do(state.KindAdmissionCreate, state.AdmissionCreate{Record: r})
	admit := statetest.Node(2)
	admit.Record = r.ID
	first := l.Do(state.KindNodeAdmit, admit)
	if first.Version != (cluster.Version{Epoch: 1, Version: 2}) || first.Node != statetest.ID(2) {
		t.Fatalf("admission gave %+v, want map 1.2 for node 2", first)
	}
	if n := l.S.Node(statetest.ID(2)); n.Joined || n.Flags.MasterCandidate || n.Keys != nil {
		t.Fatalf("a new node is %+v, want a regular one not yet joined", n)
	}
	if again := l.Do(state.KindNodeAdmit, admit); again.Node != first.Node || !again.Version.IsZero() {
		t.Fatalf("the same request again gave %+v, want the same node and no new map", again)
	}
	thief := statetest.Node(2)
	thief.Record, thief.Identity = r.ID, cluster.DigestOf([]byte("thief"))
	if _, err := l.Try(state.KindNodeAdmit, thief); code(err) != cluster.CodeTokenUsed {
		t.Fatalf("another key on the bound record: %v", err)
	}
	l.Do(state.KindAdmissionSpent, state.AdmissionSpent{ID: r.ID, Identity: admit.Identity})
	if _, err := l.Try(state.KindNodeAdmit, admit); code(err) != cluster.CodeTokenUsed {
		t.Fatalf("a spent record: %v", err)
	}
	if !l.S.Node(statetest.ID(2)).Joined {
		t.Fatal("the node did not become joined")
	}
}

func TestAdmissionRefusals(t *testing.T) {
	l := statetest.New(t)
	l.Add(2)
	r := l.Record(2)
	r.Node = statetest.ID(77)
	if _, err := l.Try(state.KindAdmissionCreate, state.AdmissionCreate{Record: r}); code(err) != cluster.CodeAlreadyExists {
		t.Fatalf("a string for a name that exists: %v", err)
	}
	r3 := l.Record(3)
	l.Do(state.KindAdmissionCreate, state.AdmissionCreate{Record: r3})
	admit := statetest.Node(3)
	admit.Record, admit.Addresses = r3.ID, statetest.Node(2).Addresses
	if _, err := l.Try(state.KindNodeAdmit, admit); code(err) != cluster.CodeConflict {
		t.Fatalf("an address of another node: %v", err)
	}
	admit = statetest.Node(3)
	admit.Record, admit.Incarnation = r3.ID, 9
	if _, err := l.Try(state.KindNodeAdmit, admit); code(err) != cluster.CodeConflict {
		t.Fatalf("a wrong incarnation: %v", err)
	}
	l.Do(state.KindAdmissionRevoke, state.AdmissionRevoke{ID: r3.ID})
	admit = statetest.Node(3)
	admit.Record = r3.ID
	if _, err := l.Try(state.KindNodeAdmit, admit); code(err) != cluster.CodeTokenUnknown {
		t.Fatalf("a revoked string: %v", err)
	}
	if len(l.S.LiveAdmissions(l.Now)) != 0 {
		t.Fatal("a revoked or spent string counts as live")
	}
}

func TestRemovedNodeLeavesTombstoneAndNoWayBack(t *testing.T) {
	l := statetest.New(t)
	r := l.Record(2)
	l.Do(state.KindAdmissionCreate, state.AdmissionCreate{Record: r})
	admit := statetest.Node(2)
	admit.Record = r.ID
	l.Do(state.KindNodeAdmit, admit)
	l.Do(state.KindNodeRemove, state.NodeRemove{Node: statetest.ID(2)})
	if _, gone := l.S.ByIdentity(admit.Identity); gone == nil || gone.Name != statetest.Name(2) {
		t.Fatalf("the tombstone is %+v", gone)
	}
	if l.S.Roster().Node(statetest.ID(2)) != nil {
		t.Fatal("a removed node is in the roster")
	}
	if _, err := l.Try(state.KindNodeAdmit, admit); code(err) != cluster.CodeTokenUnknown {
		t.Fatalf("the bound string of a removed node: %v, want it revoked", err)
	}
	if _, err := l.Try(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2)}); code(err) != cluster.CodeNotFound {
		t.Fatalf("a change of a removed node: %v", err)
	}
	l.Add(2)
	if n := l.S.Node(statetest.ID(2)); n.Incarnation != 2 {
		t.Fatalf("incarnation %d after coming back, want 2", n.Incarnation)
	}
}

func TestReaddKeepsIdentityAndRaisesIncarnation(t *testing.T) {
	l := statetest.New(t)
	l.Add(2)
	l.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), Flags: &state.FlagPatch{Offline: new(true)}, AddTags: []string{"rack:1"}})
	created := l.S.Node(statetest.ID(2)).CTime
	l.Add(2)
	n := l.S.Node(statetest.ID(2))
	if n.Incarnation != 2 || n.Flags.Offline || !n.CTime.Equal(created) || len(n.Tags) != 1 {
		t.Fatalf("readded node %+v", n)
	}
}

func TestDemotionDropsKeysAndVote(t *testing.T) {
	l := statetest.New(t)
	for i := 2; i <= 3; i++ {
		l.Add(i)
		l.Promote(i)
	}
	all := []cluster.NodeID{statetest.ID(1), statetest.ID(2), statetest.ID(3)}
	l.Do(state.KindSetVoters, state.SetVoters{Voters: all})
	if !l.S.Head().Authority {
		t.Fatal("a change of voters is not marked as a change of authority")
	}
	demote := state.NodeChange{Node: all[2], Flags: &state.FlagPatch{MasterCandidate: new(false)}}
	if _, err := l.Try(state.KindNodeChange, demote); code(err) != cluster.CodeConflict {
		t.Fatalf("two voters left: %v, want a conflict", err)
	}
	demote.Voters = &[]cluster.NodeID{all[0]}
	l.Do(state.KindNodeChange, demote)
	if n := l.S.Node(all[2]); n.Keys != nil || n.Voter || len(n.Certs.Candidate) != 0 {
		t.Fatalf("a demoted node keeps %+v", n)
	}
	if v := l.S.Voters(); len(v) != 1 || v[0] != all[0] {
		t.Fatalf("voters %v", v)
	}
}

// TestG3MasterRoleIsOutOfReach: no change of a node deposes or removes the
// master, and nobody becomes master who is no candidate.
func TestG3MasterRoleIsOutOfReach(t *testing.T) {
	l := statetest.New(t)
	l.Add(2)
	for name, try := range map[string]func() (state.Result, error){
		"demote":    func() (state.Result, error) { return l.Try(state.KindNodeChange, changeFlags(1, "mc", false)) },
		"drain":     func() (state.Result, error) { return l.Try(state.KindNodeChange, changeFlags(1, "drained", true)) },
		"incapable": func() (state.Result, error) { return l.Try(state.KindNodeChange, changeFlags(1, "capable", false)) },
		"remove": func() (state.Result, error) {
			return l.Try(state.KindNodeRemove, state.NodeRemove{Node: statetest.ID(1)})
		},
		"regular": func() (state.Result, error) {
			return l.Try(state.KindSetMaster, state.SetMaster{Node: statetest.ID(2)})
		},
		"unknown": func() (state.Result, error) {
			return l.Try(state.KindSetMaster, state.SetMaster{Node: statetest.ID(9)})
		},
		"no voters": func() (state.Result, error) {
			return l.Try(state.KindSetVoters, state.SetVoters{Voters: []cluster.NodeID{}})
		},
		"flag no keys": func() (state.Result, error) { return l.Try(state.KindNodeChange, changeFlags(2, "mc", true)) },
	} {
		if _, err := try(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func changeFlags(i int, flag string, on bool) state.NodeChange {
	p := &state.FlagPatch{}
	switch flag {
	case "mc":
		p.MasterCandidate = &on
	case "drained":
		p.Drained = &on
	case "offline":
		p.Offline = &on
	case "capable":
		p.MasterCapable = &on
	}
	return state.NodeChange{Node: statetest.ID(i), Flags: p}
}

// TestG3DerivationRefusesForeignMap: a command whose map is not the one that
// the state yields changes nothing, whoever proposed it.
func TestG3DerivationRefusesForeignMap(t *testing.T) {
	l := statetest.New(t)
	l.Add(2)
	c, err := state.Propose(l.S, state.KindNodeChange, changeFlags(2, "offline", true), state.Meta{Time: l.Now})
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, l.S)
	for name, payload := range map[string][]byte{
		"no map":       nil,
		"the head":     l.S.Head().Payload,
		"a bit turned": flip(c.Map),
		"trailing":     append(bytes.Clone(c.Map), ' '),
	} {
		forged := c
		forged.Map = payload
		next, res := l.S.Apply(forged, 100, 1)
		if res.Err == nil || res.Err.Code != cluster.CodeConflict || next != l.S || !bytes.Equal(before, snapshot(t, next)) {
			t.Errorf("%s: %v", name, res.Err)
		}
	}
	tags, err := state.Propose(l.S, state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), AddTags: []string{"a"}}, state.Meta{Time: l.Now})
	if err != nil || len(tags.Map) != 0 {
		t.Fatalf("a change of tags: %v with a map of %d bytes", err, len(tags.Map))
	}
	tags.Map = c.Map
	if _, res := l.S.Apply(tags, 100, 1); res.Err == nil {
		t.Error("a map was accepted where none is due")
	}
}

func flip(b []byte) []byte {
	c := bytes.Clone(b)
	c[len(c)/2] ^= 1
	return c
}

// Clocks that differ a little do not make the time on maps run back; a head
// that was dated by a clock which was wrong does not hold up what follows.
func TestIssuedFollowsClocks(t *testing.T) {
	for name, c := range map[string]struct {
		back  time.Duration
		stays bool
	}{
		"a little behind": {candmap.MaxSkew, true},
		"far behind":      {time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := statetest.New(t)
			l.Add(2)
			issued := l.S.HeadMap().Issued
			l.Now = issued.Add(-c.back)
			l.Do(state.KindNodeChange, changeFlags(2, "offline", true))
			switch got := l.S.HeadMap().Issued; {
			case c.stays && !got.Equal(issued):
				t.Errorf("issued %s after %s", got, issued)
			case !c.stays && got.After(issued.Add(-c.back/2)):
				t.Errorf("issued %s, although the clock says %s", got, l.Now)
			}
		})
	}
}

func TestChainKeepsAuthorityChangesAndRecentMaps(t *testing.T) {
	l := statetest.New(t)
	for i := 2; i <= 3; i++ {
		l.Add(i)
		l.Promote(i)
	}
	l.Do(state.KindSetVoters, state.SetVoters{Voters: []cluster.NodeID{statetest.ID(1), statetest.ID(2), statetest.ID(3)}})
	changed := l.S.Head()
	for i := range 3 * state.ChainRecent {
		l.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(uint32(10 + i))}})
	}
	plain := 0
	for _, e := range l.S.Chain {
		if !e.Authority {
			plain++
		}
	}
	if plain != state.ChainRecent {
		t.Fatalf("%d ordinary maps kept, want %d", plain, state.ChainRecent)
	}
	if _, ok := l.S.Entry(changed.Version); !ok {
		t.Fatal("a change of authority was forgotten")
	}
	if after := l.S.After(changed.Version); len(after) != state.ChainRecent {
		t.Fatalf("%d entries after the change, want %d", len(after), state.ChainRecent)
	}
	prev := l.S.Chain[len(l.S.Chain)-2]
	if l.S.HeadMap().Previous != prev.Hash {
		t.Fatal("the head does not follow the entry before it")
	}
}

func TestSetMasterRecordsTerm(t *testing.T) {
	l := statetest.New(t)
	l.Add(2)
	l.Promote(2)
	l.Term = 7
	if res := l.Do(state.KindSetMaster, state.SetMaster{Node: statetest.ID(2)}); res.Version.IsZero() || l.S.Master != statetest.ID(2) {
		t.Fatalf("%+v", res)
	}
	l.Term = 9
	if res := l.Do(state.KindSetMaster, state.SetMaster{Node: statetest.ID(2)}); !res.Version.IsZero() || l.S.MasterTerm != 9 {
		t.Fatalf("re-election of the same master made map %s, term %d", res.Version, l.S.MasterTerm)
	}
	if l.S.Role(statetest.ID(2)) != cluster.RoleMaster || l.S.Role(statetest.ID(1)) != cluster.RoleCandidate {
		t.Fatal("roles do not follow the master")
	}
}

func TestCertificateRenewalOverlaps(t *testing.T) {
	l := statetest.New(t)
	old := l.S.Node(statetest.ID(1))
	fresh := cluster.DigestOf([]byte("new server key"))
	jump := state.NodeCerts{Node: old.UUID, Kind: state.CertServer, Pins: []cluster.Digest{fresh}}
	if _, err := l.Try(state.KindNodeCerts, jump); code(err) != cluster.CodeConflict {
		t.Fatalf("pins without overlap: %v", err)
	}
	l.Do(state.KindNodeCerts, state.NodeCerts{Node: old.UUID, Kind: state.CertServer, Cert: []byte("new"), Pins: []cluster.Digest{old.Server[0], fresh}})
	if res := l.Do(state.KindNodeCerts, jump); res.Version.IsZero() {
		t.Fatal("retiring a pin made no map")
	}
	cand := statetest.Cert(1, 5)
	both := []cluster.Digest{old.Keys.Client[0], cluster.DigestOf(cand)}
	l.Do(state.KindNodeCerts, state.NodeCerts{Node: old.UUID, Kind: state.CertCandidate, Cert: cand, Pins: both})
	l.Do(state.KindNodeCerts, state.NodeCerts{Node: old.UUID, Kind: state.CertCandidate, Pins: both[1:]})
	if n := l.S.Node(old.UUID); !bytes.Equal(n.Certs.Candidate, cand) || len(n.Keys.Client) != 1 {
		t.Fatalf("after the renewal: %+v", n.Keys)
	}
	ssh := []cluster.SSHKey{old.Keys.SSH[0], statetest.SSHKey(1, "new")}
	l.Do(state.KindNodeCerts, state.NodeCerts{Node: old.UUID, Kind: state.CertSSH, SSH: ssh})
	l.Do(state.KindNodeCerts, state.NodeCerts{Node: old.UUID, Kind: state.CertSigning, Signing: statetest.Keys(1, 9).Signing})
	if !l.S.Head().Authority {
		t.Fatal("a voter's new signing key is not marked as a change of authority")
	}
}

func TestAddressChangeIsUnique(t *testing.T) {
	l := statetest.New(t)
	l.Add(2)
	for _, c := range []state.NodeAddress{
		{Node: statetest.ID(2), Name: new(statetest.Name(1))},
		{Node: statetest.ID(2), Addresses: statetest.Node(1).Addresses},
	} {
		if _, err := l.Try(state.KindNodeAddress, c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	l.Do(state.KindNodeAddress, state.NodeAddress{Node: statetest.ID(2), Name: new(cluster.Name("other.lab.test"))})
	if l.S.NodeByName("other.lab.test") == nil {
		t.Fatal("the name did not change")
	}
}

func TestUnknownCommandsStopTheDaemon(t *testing.T) {
	l := statetest.New(t)
	c, err := state.Propose(l.S, state.KindSetVoters, state.SetVoters{Voters: l.S.Voters()}, state.Meta{Time: l.Now})
	if err != nil {
		t.Fatal(err)
	}
	good, err := state.EncodeCommand(c)
	if err != nil {
		t.Fatal(err)
	}
	newer := c
	newer.Kind = "warp-drive"
	unknown, err := state.EncodeCommand(newer)
	if err != nil {
		t.Fatal(err)
	}
	wider := c
	wider.Body = json.RawMessage(`{"voters":[],"warp":9}`)
	field, err := state.EncodeCommand(wider)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"format": append([]byte{9}, good[1:]...), "kind": unknown, "member": field} {
		if _, err := state.DecodeCommand(b); !errors.Is(err, state.ErrUnknownCommand) {
			t.Errorf("unknown %s: %v", name, err)
		}
	}
	if _, res := l.S.Apply(newer, 9, 9); res.Err == nil || res.Err.Code != cluster.CodeUnsupportedFormat {
		t.Errorf("applying an unknown kind: %v", res.Err)
	}
}

// TestG6NoSecretIsPrinted formats everything that holds a secret in every way.
func TestG6NoSecretIsPrinted(t *testing.T) {
	l := statetest.New(t)
	c, err := state.DecodeCommand(l.Log[0])
	if err != nil {
		t.Fatal(err)
	}
	_, bad := state.Propose(state.New(), state.KindGenesis, state.GossipChange{Key: cluster.NewSecret(statetest.GossipKey)}, state.Meta{Time: l.Now})
	if bad == nil {
		t.Fatal("a body of another kind was accepted")
	}
	_, short := l.Try(state.KindGossipChange, state.GossipChange{Key: cluster.NewSecret(statetest.GossipKey[:7])})
	if short == nil {
		t.Fatal("a short gossip key was accepted")
	}
	for _, v := range []any{l.S, *l.S, c, &c, statetest.Genesis(), l.S.CA, bad, short, state.GossipChange{Key: cluster.NewSecret(statetest.GossipKey)}} {
		shown := fmt.Sprintf("%v %+v %#v %s %x %d", v, v, v, v, v, v)
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%T: %v", v, err)
		}
		for _, secret := range [][]byte{statetest.CAKey, statetest.GossipKey[:7]} {
			for _, form := range []string{string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%d", secret), b64(secret)} {
				if bytes.Contains([]byte(shown), []byte(form)) || bytes.Contains(j, []byte(form)) {
					t.Errorf("%T shows a secret as %q", v, form)
				}
			}
		}
	}
	if !bytes.Contains(snapshot(t, l.S), []byte(b64(statetest.CAKey))) {
		t.Error("the snapshot lost the CA key")
	}
}

// b64 leaves the end off, which depends on what follows.
func b64(b []byte) string {
	j, _ := json.Marshal(b[:len(b)/3*3])
	return string(j[1 : len(j)-1])
}

func TestDeriveRefusesWithoutCluster(t *testing.T) {
	if _, _, err := state.Derive(state.New(), statetest.Epoch); err == nil {
		t.Fatal("a map without a cluster")
	}
	l := statetest.New(t)
	m, _, err := state.Derive(l.S, l.Now)
	if err != nil || m.Version != 2 || m.Previous != l.S.Head().Hash {
		t.Fatalf("derived %+v, %v", m, err)
	}
	if _, err := m.Encode(); err != nil {
		t.Fatal(err)
	}
}
