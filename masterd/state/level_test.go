package state_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

var clusterAddress = cluster.MasterAddress{Address: netip.MustParsePrefix("192.0.2.9/24"), Netdev: "eth0"}

// TestNothingNewBeforeItsLevel: while a node of an earlier release is left,
// nothing is committed or published that it could not read.
func TestNothingNewBeforeItsLevel(t *testing.T) {
	l := statetest.New(t)
	for kind, body := range map[string]any{
		state.KindClusterChange: state.ClusterChange{AddTags: []string{"x"}},
		state.KindParamsChange:  state.ParamsChange{Params: state.ParamsPatch{MasterAddress: &clusterAddress}},
	} {
		if _, err := l.Try(kind, body); code(err) != cluster.CodeConflict {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if l.S.Roster().Settings() != nil {
		t.Error("the roster has settings at level 1")
	}
	l.Add(2)
	l.Promote(2)
	l.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), Flags: off()})
	if l.S.Node(statetest.ID(2)).WasCandidate {
		t.Error("a replica of level 1 would not remember the candidate")
	}
}

func off() *state.FlagPatch {
	return &state.FlagPatch{MasterCandidate: new(false), Offline: new(true)}
}

func TestLevelTwo(t *testing.T) {
	l := statetest.New(t)
	before := l.S.Head().Version
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	if !l.S.Head().Version.Newer(before) || l.S.Roster().Settings().Name != "lab.test" {
		t.Fatal("the raised level does not reach the roster")
	}
	l.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{MasterAddress: &clusterAddress}})
	name := cluster.Name("other.test")
	l.Do(state.KindClusterChange, state.ClusterChange{Name: &name, AddTags: []string{"b", "a"}, QueueDrained: new(true)})
	s := l.S.Roster().Settings()
	if s.Name != name || *s.Address != clusterAddress || !slices.Equal(l.S.Cluster.Tags, []string{"a", "b"}) || !l.S.QueueDrained {
		t.Fatalf("settings %+v, tags %v", s, l.S.Cluster.Tags)
	}
	l.Do(state.KindClusterChange, state.ClusterChange{DelTags: []string{"b", "a"}, QueueDrained: new(false)})
	l.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{NoMasterAddress: true}})
	if l.S.Roster().Settings().Address != nil || l.S.Cluster.Tags != nil || l.S.QueueDrained {
		t.Fatal("something stays")
	}
}

func TestOfflineCandidateIsRemembered(t *testing.T) {
	l := statetest.New(t)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	id := l.Add(2)
	l.Promote(2)
	was := func() bool { return l.S.Node(id).WasCandidate }
	l.Do(state.KindNodeChange, state.NodeChange{Node: id, Flags: off()})
	if !was() {
		t.Fatal("it is forgotten")
	}
	l.Do(state.KindNodeChange, state.NodeChange{Node: id, AddTags: []string{"x"}})
	if !was() {
		t.Fatal("a tag makes it forgotten")
	}
	l.Do(state.KindNodeChange, state.NodeChange{Node: id, Flags: &state.FlagPatch{Offline: new(false)}})
	if was() {
		t.Fatal("it is remembered although the node is online")
	}
}

// TestLaterLevelStopsTheReplica: going on would make it depart from the others.
func TestLaterLevelStopsTheReplica(t *testing.T) {
	l := statetest.New(t)
	_, err := state.Propose(l.S, state.KindFeatureLevel, state.FeatureLevel{Level: cluster.FeatureLevel + 1}, state.Meta{Time: l.Now})
	if err == nil {
		t.Fatal("it is proposed")
	}
	c := state.Command{V: 1, Kind: state.KindFeatureLevel, Time: l.Now, Body: fmt.Appendf(nil, `{"level":%d}`, cluster.FeatureLevel+1)}
	b, err := state.EncodeCommand(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.DecodeCommand(b); !errors.Is(err, state.ErrUnknownCommand) {
		t.Fatalf("decoded: %v", err)
	}
}
