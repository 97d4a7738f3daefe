package state_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// FuzzCommand: what decodes encodes to itself, and applying it neither panics
// nor leaves a state that cannot be restored.
func FuzzCommand(f *testing.F) {
	l := longer(f)
	for _, b := range l.Log {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := state.DecodeCommand(b)
		if err != nil {
			return
		}
		again, err := state.EncodeCommand(c)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("decoded command encodes differently: %v", err)
		}
		for _, s := range []*state.State{state.New(), l.S} {
			next, res := s.Apply(c, 1, 1)
			if res.Err != nil && next != s {
				t.Fatal("a refused command changed the state")
			}
			if _, err := state.DecodeSnapshot(snapshot(t, next)); err != nil {
				t.Fatalf("the state after %v cannot be restored: %v", c, err)
			}
		}
	})
}

// FuzzPropose: whatever Propose accepts, Apply accepts on the same state, and
// the state that results can be stored and restored.
func FuzzPropose(f *testing.F) {
	l := longer(f)
	for _, b := range l.Log {
		c, err := state.DecodeCommand(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.Kind, []byte(c.Body))
	}
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		for _, s := range []*state.State{state.New(), l.S} {
			if !json.Valid(body) {
				return
			}
			c, err := state.Propose(s, kind, json.RawMessage(body), state.Meta{Time: l.Now})
			if err != nil {
				continue
			}
			next, res := s.Apply(c, 1, 1)
			if res.Err != nil {
				t.Fatalf("proposed and refused: %v", res.Err)
			}
			if _, err := state.DecodeSnapshot(snapshot(t, next)); err != nil {
				t.Fatalf("the state after %v cannot be restored: %v", c, err)
			}
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	f.Add(snapshot(f, state.New()))
	f.Add(snapshot(f, longer(f).S))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := state.DecodeSnapshot(b)
		if err == nil && !bytes.Equal(b, snapshot(t, s)) {
			t.Fatal("a decoded snapshot encodes differently")
		}
	})
}

// history is a short life of a cluster, with most kinds of commands.
func history(tb statetest.TB) *statetest.Lab {
	l := statetest.New(tb)
	for i := 2; i <= 4; i++ {
		l.Add(i)
	}
	l.Promote(2)
	l.Promote(3)
	l.Do(state.KindSetVoters, state.SetVoters{Voters: []cluster.NodeID{statetest.ID(1), statetest.ID(2), statetest.ID(3)}})
	id := submit(l, 1)
	l.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobRunning, Log: []state.LogLine{{Text: "hello"}}})
	change := changeFlags(4, "offline", true)
	change.Job = &state.JobUpdate{ID: id, Status: state.JobSuccess}
	l.Do(state.KindNodeChange, change)
	l.Do(state.KindNodeRemove, state.NodeRemove{Node: statetest.ID(4)})
	return l
}

// longer is history at the newest feature level.
func longer(tb statetest.TB) *statetest.Lab {
	l := history(tb)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
	claim := state.HostKeysClaim{Node: statetest.ID(2), Incarnation: 1, Issued: l.Now, Keys: []cluster.SSHKey{statetest.SSHKey(2, "new")}, Port: 2222}
	l.Do(state.KindHostKeysClaim, claim)
	digest, err := l.S.Node(claim.Node).PendingHostKeys.Digest()
	if err != nil {
		tb.Fatalf("digest: %v", err)
	}
	l.Do(state.KindHostKeysDecide, state.HostKeysDecision{Node: claim.Node, Digest: digest})
	return l
}
