package state_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

const maxNode = 9

// request draws a command that may or may not fit the state.
func request(t *rapid.T, l *statetest.Lab) (string, any) {
	i := rapid.IntRange(1, maxNode).Draw(t, "node")
	id := statetest.ID(i)
	switch rapid.IntRange(0, 22).Draw(t, "kind") {
	case 0, 1:
		return state.KindAdmissionCreate, state.AdmissionCreate{Record: l.Record(i)}
	case 2, 3, 4:
		n := statetest.Node(i)
		for _, r := range l.S.LiveAdmissions(l.Now) {
			if r.Node == id {
				n.Record = r.ID
			}
		}
		n.Incarnation = l.S.NextIncarnation(id)
		return state.KindNodeAdmit, n
	case 5:
		for _, r := range l.S.Admissions.List() {
			if r.Node == id {
				return state.KindAdmissionSpent, state.AdmissionSpent{ID: r.ID, Identity: statetest.Node(i).Identity}
			}
		}
		return state.KindAdmissionRevoke, state.AdmissionRevoke{ID: id}
	case 6, 7, 8:
		gen := int(l.Index)
		keys := statetest.Keys(i, gen)
		return state.KindNodeChange, state.NodeChange{Node: id, Flags: &state.FlagPatch{MasterCandidate: new(true), Drained: new(false), Offline: new(false)}, Keys: &keys, Candidate: statetest.Cert(i, gen)}
	case 9, 10:
		return state.KindNodeChange, anyChange(t, l, id)
	case 11:
		return state.KindSetVoters, state.SetVoters{Voters: someVoters(t, l)}
	case 12:
		return state.KindSetMaster, state.SetMaster{Node: id}
	case 13:
		return state.KindNodeRemove, state.NodeRemove{Node: id, Voters: maybeVoters(t, l)}
	case 14:
		return state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(rapid.Uint32Range(0, 200).Draw(t, "lease"))}}
	case 15:
		return state.KindJobSubmit, state.JobSubmit{Ops: []json.RawMessage{json.RawMessage(`{"OP_ID":"X"}`)}, Summary: []string{"X"}}
	case 16:
		return state.KindJobArchive, state.JobArchive{IDs: []int64{int64(i), int64(maxNode - i)}}
	case 17:
		return state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH}
	case 18, 19:
		return state.KindHostKeysClaim, anyClaim(t, l, i)
	case 20:
		d := state.HostKeysDecision{Node: id, Accept: rapid.Bool().Draw(t, "accept")}
		if n := l.S.Node(id); n != nil && n.PendingHostKeys != nil {
			d.Digest, _ = n.PendingHostKeys.Digest() // what is there can be named
		}
		return state.KindHostKeysDecide, d
	default:
		status := rapid.SampledFrom([]state.JobStatus{"", state.JobRunning, state.JobSuccess, state.JobCanceled}).Draw(t, "status")
		return state.KindJobUpdate, state.JobUpdate{ID: int64(i), Status: status, Log: []state.LogLine{{Text: rapid.String().Draw(t, "text")}}}
	}
}

func anyClaim(t *rapid.T, l *statetest.Lab, i int) state.HostKeysClaim {
	key := statetest.SSHKey(rapid.IntRange(i-1, i).Draw(t, "whose"), rapid.SampledFrom([]string{"host", "new"}).Draw(t, "which"))
	c := state.HostKeysClaim{Node: statetest.ID(i), Incarnation: 1, Issued: l.Now, Keys: []cluster.SSHKey{key}, Port: 22}
	if n := l.S.Node(c.Node); n != nil && rapid.Bool().Draw(t, "present") {
		c.Incarnation = n.Incarnation
	}
	return c
}

func anyChange(t *rapid.T, l *statetest.Lab, id cluster.NodeID) state.NodeChange {
	var p state.FlagPatch
	for _, f := range []**bool{&p.MasterCandidate, &p.Drained, &p.Offline, &p.MasterCapable, &p.VMCapable} {
		if rapid.IntRange(0, 2).Draw(t, "set") == 0 {
			*f = new(rapid.Bool().Draw(t, "flag"))
		}
	}
	return state.NodeChange{Node: id, Flags: &p, Voters: maybeVoters(t, l), AddTags: []string{"t"}}
}

func someVoters(t *rapid.T, l *statetest.Lab) []cluster.NodeID {
	ids := []cluster.NodeID{l.S.Master}
	for _, n := range l.S.Candidates() {
		if n.UUID != l.S.Master && rapid.Bool().Draw(t, "votes") {
			ids = append(ids, n.UUID)
		}
	}
	return ids
}

func maybeVoters(t *rapid.T, l *statetest.Lab) *[]cluster.NodeID {
	if rapid.Bool().Draw(t, "voters") {
		return nil
	}
	return new(someVoters(t, l))
}

// TestG3DerivationHoldsForEveryHistory applies random commands to one replica,
// and the log that results to a second one.
func TestG3DerivationHoldsForEveryHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := statetest.New(t)
		other := &statetest.Lab{TB: t, S: state.New(), Term: 1}
		other.Apply(l.Log[0])
		made := 0
		for range rapid.IntRange(1, 60).Draw(t, "commands") {
			kind, body := request(t, l)
			before, head := snapshot(t, l.S), l.S.HeadMap()
			stale, res, err := tryWithStale(t, l, kind, body)
			if err != nil {
				if !bytes.Equal(before, snapshot(t, l.S)) {
					t.Fatalf("a refused %s changed the state: %v", kind, err)
				}
				continue
			}
			made++
			invariants(t, l.S, head, res)
			if state.AboutJobs(kind) && l.S.HeadMap() != head {
				t.Fatalf("%s, which is about jobs, made a map", kind)
			}
			other.Apply(l.Log[len(l.Log)-1])
			checkStale(t, l, stale, head)
		}
		a, b := snapshot(t, l.S), snapshot(t, other.S)
		if !bytes.Equal(a, b) {
			t.Fatalf("two replicas differ after %d commands", made)
		}
		back, err := state.DecodeSnapshot(a)
		if err != nil || !bytes.Equal(a, snapshot(t, back)) {
			t.Fatalf("a snapshot does not survive: %v", err)
		}
		if back.HeadMap().At() != l.S.HeadMap().At() || back.Roster().Hash() != l.S.Roster().Hash() || !bytes.Equal(back.CA.Key.Reveal(), statetest.CAKey) {
			t.Fatal("what a snapshot restores is not the state")
		}
	})
}

// tryWithStale also proposes a change of map on the state before.
func tryWithStale(t *rapid.T, l *statetest.Lab, kind string, body any) (state.Command, state.Result, error) {
	lease := uint32(300 + l.Index)
	stale, err := state.Propose(l.S, state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: &lease}}, state.Meta{Time: l.Now})
	if err != nil {
		t.Fatalf("a change of lease: %v", err)
	}
	res, err := l.Try(kind, body)
	return stale, res, err
}

// checkStale: what was proposed before another map was made is refused.
func checkStale(t *rapid.T, l *statetest.Lab, stale state.Command, head *candmap.Map) {
	next, res := l.S.Apply(stale, l.Index+1, l.Term)
	if moved := l.S.HeadMap().At() != head.At(); moved != (res.Err != nil) || moved && next != l.S {
		t.Fatalf("map moved: %t; a stale command gave %v", moved, res.Err)
	}
}

func invariants(t *rapid.T, s *state.State, before *candmap.Map, res state.Result) {
	m := s.HeadMap()
	if payload := s.Head().Payload; s.Head().Hash != cluster.DigestOf(payload) {
		t.Fatal("the head's hash is wrong")
	}
	if !res.Version.IsZero() && (m.Version != before.Version+1 || res.Version != m.At() || m.Issued.Before(before.Issued)) {
		t.Fatalf("map %s follows %s", m.At(), before.At())
	}
	derived, roster, err := state.Derive(s, s.HeadMap().Issued.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := derived.Encode(); err != nil || roster.Hash() != m.Roster {
		t.Fatalf("the state yields another roster than its head names: %v", err)
	}
	masterListed := false
	for _, c := range m.Candidates {
		n := s.Node(c.UUID)
		if n == nil || !n.Flags.MasterCandidate || n.Flags.Offline || n.Flags.Drained || n.Keys == nil || c.Voter != n.Voter {
			t.Fatalf("candidate %s of the map is %+v", c.Name, n)
		}
		masterListed = masterListed || c.UUID == s.Master
	}
	if !masterListed || m.Master != s.Master || len(s.Voters())%2 != 1 {
		t.Fatalf("master %s, voters %v", s.Master, s.Voters())
	}
	for id, n := range s.Nodes {
		if !n.Flags.Valid() || n.Voter && n.Keys == nil || (n.Keys != nil) != n.Flags.MasterCandidate {
			t.Fatalf("node %s: %+v", id, n)
		}
	}
	for _, r := range s.Roster().Nodes() {
		if s.Node(r.UUID) == nil {
			t.Fatalf("%s is in the roster and not in the state", r.Name)
		}
	}
	jobInvariants(t, s)
	if !slices.IsSortedFunc(s.Chain, func(a, b state.ChainEntry) int { return a.Version.Compare(b.Version) }) {
		t.Fatal("the chain is out of order")
	}
}

// jobInvariants looks through all jobs, which the state itself does not.
func jobInvariants(t *rapid.T, s *state.State) {
	var active []*state.Job
	for _, j := range s.SortedJobs() {
		if !j.Status.Ended() {
			active = append(active, j)
		}
	}
	if got := slices.Collect(s.ActiveJobs()); !slices.Equal(got, active) {
		t.Fatalf("active jobs are %v, want %v", got, active)
	}
}

// TestApplySharesNothing: states that were handed out stay what they were.
func TestApplySharesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := statetest.New(t)
		var states []*state.State
		var images [][]byte
		for range 25 {
			states, images = append(states, l.S), append(images, snapshot(t, l.S))
			kind, body := request(t, l)
			_, _ = l.Try(kind, body)
		}
		for i, s := range states {
			if !bytes.Equal(images[i], snapshot(t, s)) {
				t.Fatalf("state %d was changed by a later command", i)
			}
		}
	})
}
