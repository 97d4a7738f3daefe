package state_test

import (
	"bytes"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func shared(i int) state.SharedKey {
	return state.SharedKey{Public: statetest.SSHKey(i, "shared"), Private: cluster.NewSecret([]byte{byte(i), 7, 7, 7})}
}

// lists gives every candidate the same list.
func lists(s *state.State, keys func(old []cluster.SSHKey) []cluster.SSHKey) state.SSHKeysChange {
	var c state.SSHKeysChange
	for _, n := range s.Candidates() {
		c.Lists = append(c.Lists, state.NodeSSHKeys{Node: n.UUID, SSH: keys(n.Keys.SSH)})
	}
	return c
}

// TestSharedKeyComesAndGoes: the overlap and the retirement are one map each,
// and the private half is in the snapshot and nowhere else.
func TestSharedKeyComesAndGoes(t *testing.T) {
	l := statetest.New(t)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
	l.Add(2)
	l.Promote(2)
	one := shared(1)
	l.Do(state.KindSharedKeys, state.SharedKeysChange{Keys: []state.SharedKey{one}})
	before := l.S.Head().Version.Version
	l.Do(state.KindSSHKeys, lists(l.S, func(old []cluster.SSHKey) []cluster.SSHKey { return append(old[:1:1], one.Public) }))
	l.Do(state.KindSSHKeys, lists(l.S, func(old []cluster.SSHKey) []cluster.SSHKey { return old[1:] }))
	if got := l.S.Head().Version.Version; got != before+2 {
		t.Errorf("%d maps for two phases", got-before)
	}
	for _, c := range l.S.HeadMap().Candidates {
		if len(c.SSH) != 1 || !bytes.Equal(c.SSH[0].Blob, one.Public.Blob) {
			t.Errorf("candidate %s has %d keys", c.Name, len(c.SSH))
		}
	}
	text, err := state.EncodeSnapshot(l.S)
	if err != nil {
		t.Fatal(err)
	}
	s, err := state.DecodeSnapshot(text)
	if err != nil || len(s.Shared) != 1 || !bytes.Equal(s.Shared[0].Private.Reveal(), one.Private.Reveal()) {
		t.Fatalf("the snapshot: %v", err)
	}
	l.Do(state.KindSharedKeys, state.SharedKeysChange{})
	if len(l.S.Shared) != 0 {
		t.Error("the key stays")
	}
}

// TestSSHKeysRefused: no phase locks a node out, and one node's key is no
// other's.
func TestSSHKeysRefused(t *testing.T) {
	l := statetest.New(t)
	id := l.Add(2)
	l.Promote(2)
	fresh := func([]cluster.SSHKey) []cluster.SSHKey { return []cluster.SSHKey{statetest.SSHKey(9, "x")} }
	propose := func(kind string, body any) error {
		_, err := state.Propose(l.S, kind, body, state.Meta{Time: l.Now})
		return err
	}
	if propose(state.KindSSHKeys, lists(l.S, func(old []cluster.SSHKey) []cluster.SSHKey { return old })) == nil {
		t.Error("it is emitted although some nodes cannot read it")
	}
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
	one := state.NodeSSHKeys{Node: id, SSH: fresh(nil)}
	if propose(state.KindSSHKeys, state.SSHKeysChange{Lists: []state.NodeSSHKeys{one}}) == nil {
		t.Error("a list without one of the old keys")
	}
	one.Lost = true
	if err := propose(state.KindSSHKeys, state.SSHKeysChange{Lists: []state.NodeSSHKeys{one}}); err != nil {
		t.Error(err)
	}
	master := l.S.Node(l.S.Master).Keys.SSH[0]
	l.Add(3)
	l.Promote(3)
	steal := state.NodeSSHKeys{Node: id, SSH: append([]cluster.SSHKey{master}, l.S.Node(id).Keys.SSH[0])}
	if propose(state.KindSSHKeys, state.SSHKeysChange{Lists: []state.NodeSSHKeys{steal}}) == nil {
		t.Error("one node's key in the entry of another")
	}
	three := []state.SharedKey{shared(1), shared(2), shared(3)}
	if propose(state.KindSharedKeys, state.SharedKeysChange{Keys: three}) == nil || propose(state.KindSharedKeys, state.SharedKeysChange{Keys: []state.SharedKey{{Public: one.SSH[0]}}}) == nil {
		t.Error("three shared keys, or one without its private half")
	}
}
