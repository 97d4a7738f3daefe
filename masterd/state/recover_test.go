package state_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
)

var newGossip = []byte("another-SECRET-of-gossip-of-32-b")

// revival recovers on node i, with the newest map of a Lab.
func revival(l *statetest.Lab, i int) state.Revival {
	r := state.Revival{
		Self: statetest.ID(i), Roster: l.S.Roster(), Gossip: cluster.NewSecret(newGossip), Issued: l.Now.Add(time.Minute), Term: 7,
	}
	for _, e := range l.S.Chain {
		r.Maps = append(r.Maps, e.Payload)
	}
	return r
}

// three is a cluster of three voters and a regular node 4.
func three(t statetest.TB) *statetest.Lab {
	l := statetest.New(t)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSettings})
	for i := 2; i <= 4; i++ {
		l.Add(i)
	}
	l.Promote(2)
	l.Promote(3)
	l.Do(state.KindSetVoters, state.SetVoters{Voters: []cluster.NodeID{statetest.ID(1), statetest.ID(2), statetest.ID(3)}})
	return l
}

func mustRecover(t statetest.TB, s *state.State, r state.Revival) *state.State {
	t.Helper()
	next, err := state.Recover(s, r)
	if err != nil {
		t.Fatalf("recover: %v", err)
	}
	return next
}

func TestRecoverOfOwnState(t *testing.T) {
	l := three(t)
	l.Do(state.KindJobSubmit, state.JobSubmit{Ops: []json.RawMessage{json.RawMessage(`{"OP_ID":"X"}`)}, Summary: []string{"X"}})
	open := l.Record(9)
	l.Do(state.KindAdmissionCreate, state.AdmissionCreate{Record: open})
	s := mustRecover(t, l.S, revival(l, 2))
	before := l.S.Head()
	m := s.HeadMap()
	if want := (cluster.Version{Epoch: 2, Version: before.Version.Version + 1}); m.At() != want || m.Previous != before.Hash {
		t.Errorf("map %s after %s, want %s", m.At(), m.Previous.Short(), want)
	}
	if len(m.Candidates) != 1 || m.Candidates[0].UUID != statetest.ID(2) || !m.Candidates[0].Voter || m.Master != statetest.ID(2) {
		t.Errorf("candidates %+v, master %s", m.Candidates, m.Master)
	}
	if !s.Head().Authority || s.MasterTerm != 7 {
		t.Error("the new epoch is no change of authority, or the term is not noted")
	}
	if again := s.Again(); len(again) != 2 || again[0].UUID != statetest.ID(1) || again[1].UUID != statetest.ID(3) {
		t.Errorf("again: %v", again)
	}
	if j := s.Jobs[1]; j.Status != state.JobError || j.Error != state.ErrorInterrupted || j.OpStatus[0] != state.JobError || j.End.IsZero() {
		t.Errorf("job %+v", j)
	}
	if !bytes.Equal(s.Gossip.Reveal(), newGossip) || s.Admissions[open.ID].State != pki.RecordOpen {
		t.Error("the gossip key must change, and strings stay good: their map leads here")
	}
	if l.S.Jobs[1].Status == state.JobError || l.S.Node(statetest.ID(1)).Keys == nil {
		t.Error("the state before was written to")
	}
}

// TestG3RecoverFollowsTheNewestMap: node 1 fell behind while node 4 was removed,
// 3 demoted, 5 added, and a string may have been used.
func TestG3RecoverFollowsTheNewestMap(t *testing.T) {
	l := three(t)
	open := l.Record(9)
	l.Do(state.KindAdmissionCreate, state.AdmissionCreate{Record: open})
	own := l.S
	l.Add(5)
	l.Do(state.KindNodeChange, state.NodeChange{
		Node: statetest.ID(3), Flags: &state.FlagPatch{MasterCandidate: new(false)}, Voters: &[]cluster.NodeID{statetest.ID(1)},
	})
	l.Do(state.KindNodeRemove, state.NodeRemove{Node: statetest.ID(4)})
	l.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(uint32(33))}})
	s := mustRecover(t, own, revival(l, 1))
	if s.Node(statetest.ID(4)) != nil || s.Node(statetest.ID(5)) == nil {
		t.Error("the nodes are not those of the roster")
	}
	if _, ok := s.WasRemoved(statetest.ID(4)); !ok || s.NextIncarnation(statetest.ID(4)) != 2 {
		t.Error("the removed node is not remembered")
	}
	if again := s.Again(); len(again) != 1 || again[0].UUID != statetest.ID(2) {
		t.Errorf("a candidate that the newest map dropped comes back: %v", again)
	}
	if s.Params.LeaseSeconds != 33 || s.Admissions[open.ID].State != pki.RecordRevoked {
		t.Error("parameters do not follow the map, or a string that may be used up is good")
	}
	if got, want := s.Head().Version, l.S.Head().Version; got.Epoch != 2 || got.Version != want.Version+1 {
		t.Errorf("map %s after %s", got, want)
	}
	if _, ok := s.Entry(l.S.Head().Version); !ok {
		t.Error("the map recovered from is not in the chain")
	}
}

// TestG3RecoverDropsTheLosingSide: node 1 committed nothing of what its log has
// after an election that it lost.
func TestG3RecoverDropsTheLosingSide(t *testing.T) {
	l := three(t)
	lost := &statetest.Lab{TB: t, S: l.S, Now: l.Now, Index: l.Index, Term: 1}
	lost.Promote(4)
	lost.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(uint32(99))}})
	l.Do(state.KindNodeRemove, state.NodeRemove{Node: statetest.ID(4)})
	s := mustRecover(t, lost.S, revival(l, 1))
	if s.Node(statetest.ID(4)) != nil || s.Params.LeaseSeconds == 99 {
		t.Error("what the losing side wanted is in force")
	}
	for _, e := range s.Chain[:len(s.Chain)-1] {
		if want, ok := l.S.Entry(e.Version); !ok || want.Hash != e.Hash {
			t.Errorf("map %s of the losing side is in the chain", e.Version)
		}
	}
	if got := s.Head().Version; !got.Newer(lost.S.Head().Version) || got.Version <= lost.S.Head().Version.Version {
		t.Errorf("map %s: a version of the losing side is used again", got)
	}
}

func TestRecoverRefuses(t *testing.T) {
	l := three(t)
	other := statetest.New(t)
	next := &statetest.Lab{TB: t, S: l.S, Now: l.Now, Index: l.Index, Term: 1}
	next.Promote(4)
	for name, c := range map[string]struct {
		change func(*state.Revival)
		code   cluster.Code
	}{
		"no candidate": {func(r *state.Revival) { r.Self = statetest.ID(4) }, cluster.CodeNotInMap},
		"unknown node": {func(r *state.Revival) { r.Self = statetest.ID(8) }, cluster.CodeNotInRoster},
		"another roster": {func(r *state.Revival) {
			r.Maps, r.Roster = append(r.Maps, next.S.Head().Payload), other.S.Roster()
		}, ""},
		"no map":           {func(r *state.Revival) { r.Maps = nil }, ""},
		"maps not in turn": {func(r *state.Revival) { r.Maps[0], r.Maps[1] = r.Maps[1], r.Maps[0] }, ""},
	} {
		r := revival(l, 1)
		c.change(&r)
		if _, err := state.Recover(l.S, r); err == nil || c.code != "" && cluster.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRecoverOnANewMachine puts machine 7 into the place of node 2, which is in
// the state under its old keys, and beside all of them.
func TestRecoverOnANewMachine(t *testing.T) {
	for name, as := range map[string]int{"in place of node 2": 2, "beside": 7} {
		t.Run(name, func(t *testing.T) {
			l := three(t)
			a, keys := statetest.Node(7), statetest.Keys(7, 0)
			r := revival(l, as)
			r.Old = true
			r.Replace = &state.Node{
				UUID: statetest.ID(as), Incarnation: l.S.NextIncarnation(statetest.ID(as)), Name: statetest.Name(as), Addresses: a.Addresses,
				Ports: a.Ports, HostKeys: a.HostKeys, Server: []cluster.Digest{a.Server}, Identity: []cluster.Digest{a.Identity}, Keys: &keys,
			}
			s := mustRecover(t, l.S, r)
			n := s.Node(statetest.ID(as))
			if n.Identity[0] != a.Identity || s.Master != n.UUID || len(s.HeadMap().Candidates) != 1 {
				t.Errorf("node %+v", n)
			}
			if back := snapshot(t, s); !bytes.Equal(back, snapshot(t, mustDecode(t, back))) {
				t.Error("a snapshot does not survive")
			}
			r.Replace.Incarnation++
			if _, err := state.Recover(l.S, r); err == nil {
				t.Error("any incarnation is good")
			}
		})
	}
}

func mustDecode(t statetest.TB, b []byte) *state.State {
	t.Helper()
	s, err := state.DecodeSnapshot(b)
	if err != nil {
		t.Fatalf("decode snapshot: %v", err)
	}
	return s
}

// TestG3RecoverHoldsForEveryHistory takes any moment of any history as what the
// node has, and the end of it as what the cluster had.
func TestG3RecoverHoldsForEveryHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := statetest.New(t)
		states := []*state.State{l.S}
		for range rapid.IntRange(1, 40).Draw(t, "commands") {
			kind, body := request(t, l)
			if _, err := l.Try(kind, body); err == nil {
				states = append(states, l.S)
			}
		}
		own := rapid.SampledFrom(states).Draw(t, "own")
		i := rapid.IntRange(1, maxNode).Draw(t, "self")
		s, err := state.Recover(own, revival(l, i))
		if l.S.HeadMap() == nil || !candidateOf(l.S, i) {
			if err == nil {
				t.Fatalf("node %d is no candidate of the newest map, and recovers", i)
			}
			return
		}
		if err != nil {
			t.Fatalf("recover: %v", err)
		}
		checkRecovered(t, l.S, s, i)
	})
}

func candidateOf(s *state.State, i int) bool {
	for _, c := range s.HeadMap().Candidates {
		if c.UUID == statetest.ID(i) {
			return true
		}
	}
	return false
}

func checkRecovered(t *rapid.T, was, s *state.State, i int) {
	m, head := s.HeadMap(), was.HeadMap()
	if m.Epoch != head.Epoch+1 || m.Version != head.Version+1 || len(m.Candidates) != 1 || m.Master != statetest.ID(i) {
		t.Fatalf("map %s of %d candidates after %s", m.At(), len(m.Candidates), head.At())
	}
	if m.LeaseSeconds != head.LeaseSeconds || !bytes.Equal(mustRecovery(m), mustRecovery(head)) {
		t.Fatal("parameters differ")
	}
	if len(s.Nodes) != len(was.Nodes) {
		t.Fatalf("%d nodes, and the newest roster has %d", len(s.Nodes), len(was.Nodes))
	}
	for id, n := range s.Nodes {
		w := was.Nodes[id]
		if w == nil || n.Incarnation != w.Incarnation || n.Flags.Offline != w.Flags.Offline || n.Flags.Drained != w.Flags.Drained {
			t.Fatalf("node %s is not what the roster says", n.Name)
		}
	}
	for _, n := range s.Again() {
		if w := was.Nodes[n.UUID]; w.Keys == nil && !w.WasCandidate {
			t.Fatalf("%s was no candidate, and becomes one", n.Name)
		}
	}
	back := mustDecode(t, snapshot(t, s))
	if back.Head().Hash != s.Head().Hash {
		t.Fatal("a snapshot does not survive")
	}
}

func mustRecovery(m *candmap.Map) []byte {
	b, _ := json.Marshal(m.Recovery)
	return b
}

// TestG4RecoveredClusterForgetsTheSharedKey: whoever loses the role by a
// recovery knows it. How keys are handled is taken from the newest roster, where
// the state was behind.
func TestG4RecoveredClusterForgetsTheSharedKey(t *testing.T) {
	l := three(t)
	behind := l.S
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
	l.Do(state.KindSharedKeys, state.SharedKeysChange{Keys: []state.SharedKey{shared(1)}})
	l.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{
		SSHKeyMode: new(cluster.KeyShared), SSHKeyStorage: new(cluster.StorageAgent), SSHKey: &cluster.SSHKeySpec{Type: "ecdsa", Bits: 384},
	}})
	l.Do(state.KindSSHKeys, lists(l.S, func(old []cluster.SSHKey) []cluster.SSHKey { return append(old[:1:1], shared(1).Public) }))
	for name, s := range map[string]*state.State{"whole": l.S, "behind": behind} {
		next := mustRecover(t, s, revival(l, 2))
		if len(next.Shared) > 0 || next.Params.SSH() != l.S.Params.SSH() || next.FeatureLevel != state.LevelSSH || !next.Params.SSHSetup {
			t.Errorf("%s: %d shared keys, settings %+v, level %d", name, len(next.Shared), next.Params.SSH(), next.FeatureLevel)
		}
	}
	l.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{SSHSetup: new(false)}})
	l.Do(state.KindSSHKeys, lists(l.S, func([]cluster.SSHKey) []cluster.SSHKey { return []cluster.SSHKey{} }))
	if next := mustRecover(t, behind, revival(l, 2)); next.Params.SSHSetup {
		t.Error("a cluster that left SSH alone does not any more")
	}
}
