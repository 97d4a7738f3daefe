package state_test

import (
	"bytes"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// reread is the state after a snapshot.
func reread(t *testing.T, s *state.State) *state.State {
	t.Helper()
	text, err := state.EncodeSnapshot(s)
	if err != nil {
		t.Fatal(err)
	}
	out, err := state.DecodeSnapshot(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCAChange: nodes trust an authority before it issues and while its
// certificates are replaced, and the roster tells them.
func TestCAChange(t *testing.T) {
	l := statetest.New(t)
	next := &state.NextCA{Cert: []byte("next CA"), Key: cluster.NewSecret([]byte("next key"))}
	propose := func(c state.CAChange) error {
		_, err := state.Propose(l.S, state.KindCAChange, c, state.Meta{Time: l.Now})
		return err
	}
	if propose(state.CAChange{Step: state.CAPrepare, Next: next}) == nil {
		t.Error("it is emitted although some nodes cannot read it")
	}
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelRenew})
	for _, step := range []string{state.CASwitch, state.CARetire, state.CAAbort, "", "x"} {
		if propose(state.CAChange{Step: step}) == nil {
			t.Errorf("step %q at first", step)
		}
	}
	roots := func() int { return len(l.S.Roster().Settings().CA) }
	first := l.S.CA.Cert
	l.Do(state.KindCAChange, state.CAChange{Step: state.CAPrepare, Next: next})
	if s := reread(t, l.S); roots() != 2 || !bytes.Equal(s.CA.Next.Key.Reveal(), []byte("next key")) || propose(state.CAChange{Step: state.CAPrepare, Next: next}) == nil {
		t.Errorf("prepared: %d roots", roots())
	}
	l.Do(state.KindCAChange, state.CAChange{Step: state.CAAbort})
	l.Do(state.KindCAChange, state.CAChange{Step: state.CAPrepare, Next: next})
	l.Do(state.KindCAChange, state.CAChange{Step: state.CASwitch})
	if s := reread(t, l.S); roots() != 2 || !bytes.Equal(s.CA.Cert, next.Cert) || string(s.CA.Key.Reveal()) != "next key" || !bytes.Equal(s.CA.Old[0], first) {
		t.Errorf("switched: %d roots", roots())
	}
	l.Do(state.KindCAChange, state.CAChange{Step: state.CARetire})
	if roots() != 1 || len(reread(t, l.S).CA.Old) != 0 {
		t.Errorf("retired: %d roots", roots())
	}
}

// TestGossipKeysOverlap: nobody sends with a key that the others lack.
func TestGossipKeysOverlap(t *testing.T) {
	l := statetest.New(t)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelRenew})
	old, next := l.S.Gossip, cluster.NewSecret(bytes.Repeat([]byte{9}, 32))
	propose := func(keys ...cluster.Secret) error {
		_, err := state.Propose(l.S, state.KindGossipKeys, state.GossipKeys{Keys: keys}, state.Meta{Time: l.Now})
		return err
	}
	if propose(next) == nil || propose(next, old) == nil || propose() == nil || propose(old, old) == nil {
		t.Error("a first key that nobody has, none, or one twice")
	}
	for _, keys := range [][]cluster.Secret{{old, next}, {next, old}, {next}} {
		l.Do(state.KindGossipKeys, state.GossipKeys{Keys: keys})
		s := reread(t, l.S)
		for i, k := range s.GossipKeys() {
			if !bytes.Equal(k.Reveal(), keys[i].Reveal()) || l.S.Roster().Settings().Gossip[i] != cluster.DigestOf(keys[i].Reveal()) {
				t.Errorf("key %d of %d", i, len(keys))
			}
		}
	}
}

// TestNodesCerts: many nodes in one map, and a mark for those that were not
// reached.
func TestNodesCerts(t *testing.T) {
	l := statetest.New(t)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelRenew})
	a, b := l.Add(2), l.Add(3)
	before := l.S.Head().Version.Version
	pin := func(s string) cluster.Digest { return cluster.DigestOf([]byte(s)) }
	l.Do(state.KindNodesCerts, state.NodesCerts{
		Certs: []state.NodeCerts{{Node: a, Kind: state.CertServer, Cert: []byte("cert"), Pins: []cluster.Digest{l.S.Node(a).Server[0], pin("a")}}},
		Stale: []state.StaleNode{{Node: b, Since: l.Now}},
	})
	s := reread(t, l.S)
	if got := l.S.Head().Version.Version; got != before+1 || len(s.Node(a).Server) != 2 || s.Node(b).RenewBefore.IsZero() {
		t.Errorf("%d maps, %+v", got-before, s.Node(a).Server)
	}
	l.Do(state.KindNodesCerts, state.NodesCerts{
		Certs: []state.NodeCerts{{Node: a, Kind: state.CertServer, Pins: []cluster.Digest{pin("a")}}},
		Stale: []state.StaleNode{{Node: b}},
	})
	if !l.S.Node(b).RenewBefore.IsZero() || len(l.S.Node(a).Server) != 1 {
		t.Error("after the retirement")
	}
	for what, body := range map[string]state.NodesCerts{
		"nothing": {}, "a job": {Certs: []state.NodeCerts{{Node: a, Kind: state.CertServer, Pins: l.S.Node(a).Server, Job: &state.JobUpdate{ID: 1}}}},
		"a lost pin": {Certs: []state.NodeCerts{{Node: a, Kind: state.CertServer, Pins: []cluster.Digest{pin("z")}}}},
	} {
		if _, err := state.Propose(l.S, state.KindNodesCerts, body, state.Meta{Time: l.Now}); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

// A candidate whose signing key a renewal missed is marked until it has another.
func TestSigningMark(t *testing.T) {
	l := statetest.New(t)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelRenew})
	normal, id := l.Add(2), l.S.Candidates()[0].UUID
	mark := state.NodesCerts{Stale: []state.StaleNode{{Node: id, Signing: true}}}
	l.Do(state.KindNodesCerts, mark)
	if s := reread(t, l.S); !s.Node(id).Keys.RenewSigning || !s.Node(id).RenewBefore.IsZero() {
		t.Error("the mark is lost, or is one of certificates")
	}
	for what, stale := range map[string]state.StaleNode{
		"of a normal node": {Node: normal, Signing: true}, "with a date": {Node: id, Signing: true, Since: l.Now},
	} {
		if _, err := state.Propose(l.S, state.KindNodesCerts, state.NodesCerts{Stale: []state.StaleNode{stale}}, state.Meta{Time: l.Now}); err == nil {
			t.Errorf("a mark %s is accepted", what)
		}
	}
	l.Do(state.KindNodesCerts, state.NodesCerts{Certs: []state.NodeCerts{{Node: id, Kind: state.CertSigning, Signing: statetest.Keys(1, 7).Signing}}})
	if l.S.Node(id).Keys.RenewSigning {
		t.Error("a node with a new key is still marked")
	}
}
