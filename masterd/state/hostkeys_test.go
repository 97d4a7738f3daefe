package state_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
)

func hostLab(t *testing.T) *statetest.Lab {
	t.Helper()
	l := statetest.New(t)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
	l.Add(2)
	l.Add(3)
	return l
}

// hostClaim is a statement of node i, one second after the last command.
func hostClaim(l *statetest.Lab, i int, keys ...cluster.SSHKey) state.HostKeysClaim {
	slices.SortFunc(keys, pki.CompareHostKeys)
	n := l.S.Node(statetest.ID(i))
	return state.HostKeysClaim{Node: n.UUID, Incarnation: n.Incarnation, Issued: l.Now, Keys: keys, Port: n.Ports.SSH}
}

func hostKeyOf(i int, use string) cluster.SSHKey { return statetest.SSHKey(i, use) }

func shows(t *testing.T, l *statetest.Lab, i int, keys ...cluster.SSHKey) {
	t.Helper()
	slices.SortFunc(keys, pki.CompareHostKeys)
	got := l.S.Roster().Node(statetest.ID(i)).HostKeys
	if !slices.EqualFunc(got, keys, func(a, b cluster.SSHKey) bool { return pki.CompareHostKeys(a, b) == 0 }) {
		t.Errorf("the roster has %d host keys of node %d, want others", len(got), i)
	}
}

func TestHostKeysOfANormalNode(t *testing.T) {
	l := hostLab(t)
	c := hostClaim(l, 2, hostKeyOf(2, "host"), hostKeyOf(2, "new"))
	c.Port = 2222
	l.Do(state.KindHostKeysClaim, c)
	shows(t, l, 2, c.Keys...)
	n := l.S.Node(statetest.ID(2))
	if n.Ports.SSH != 2222 || !n.HostKeysIssued.Equal(c.Issued) || n.PendingHostKeys != nil {
		t.Errorf("%+v", n)
	}
	old := hostClaim(l, 2, hostKeyOf(2, "host"))
	old.Issued = c.Issued
	if _, err := l.Try(state.KindHostKeysClaim, old); code(err) != cluster.CodeConflict {
		t.Errorf("a statement that is no newer: %v", err)
	}
	same := hostClaim(l, 2, c.Keys...)
	same.Port = 2222
	if v, err := l.S.JudgeHostKeys(&same); v != state.HostKeysCurrent || err != nil {
		t.Errorf("%s, %v", v, err)
	}
	if _, err := l.Try(state.KindHostKeysClaim, same); err == nil {
		t.Error("a command that changes nothing is committed")
	}
}

// TestHostKeysOfACandidate: they wait for the administrator, who accepts what
// he saw and nothing else.
func TestHostKeysOfACandidate(t *testing.T) {
	l := hostLab(t)
	l.Promote(2)
	id, head := statetest.ID(2), l.S.Head().Hash
	pending := func() *state.PendingHostKeys { return l.S.Node(id).PendingHostKeys }
	judge := func(c state.HostKeysClaim, want state.HostKeysVerdict) {
		t.Helper()
		if v, err := l.S.JudgeHostKeys(&c); v != want || err != nil {
			t.Errorf("%s, %v, want %s", v, err, want)
		}
	}
	decide := func(p *state.PendingHostKeys, accept bool) error {
		digest, err := p.Digest()
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Try(state.KindHostKeysDecide, state.HostKeysDecision{Node: id, Digest: digest, Accept: accept})
		return err
	}
	l.Do(state.KindHostKeysClaim, hostClaim(l, 2, hostKeyOf(2, "first")))
	first := pending()
	if first == nil || l.S.Head().Hash != head {
		t.Fatal("it does not wait, or changes the map")
	}
	judge(hostClaim(l, 2, hostKeyOf(2, "first")), state.HostKeysWaits)
	l.Do(state.KindHostKeysClaim, hostClaim(l, 2, hostKeyOf(2, "second")))
	if err := decide(first, true); code(err) != cluster.CodeConflict {
		t.Errorf("keys were accepted that nobody saw: %v", err)
	}
	if err := decide(pending(), false); err != nil || !pending().Rejected {
		t.Fatalf("rejected: %v", err)
	}
	shows(t, l, 2, hostKeyOf(2, "host"))
	judge(hostClaim(l, 2, hostKeyOf(2, "second")), state.HostKeysRejected)
	snap, err := state.DecodeSnapshot(snapshot(t, l.S))
	if err != nil || !snap.Node(id).PendingHostKeys.Rejected || !snap.Node(id).HostKeysIssued.Equal(l.S.Node(id).HostKeysIssued) {
		t.Fatalf("the snapshot: %v", err)
	}
	judge(hostClaim(l, 2, hostKeyOf(2, "third")), state.HostKeysPending)
	judge(hostClaim(l, 2, hostKeyOf(2, "host")), state.HostKeysWithdraw)
	if err := decide(pending(), true); err != nil {
		t.Fatal(err)
	}
	shows(t, l, 2, hostKeyOf(2, "second"))
	if pending() != nil {
		t.Error("it waits still")
	}
	l.Do(state.KindHostKeysClaim, hostClaim(l, 1, hostKeyOf(1, "master's")))
	if l.S.Node(statetest.ID(1)).PendingHostKeys == nil {
		t.Error("the master's own host keys do not wait")
	}
	l.Do(state.KindHostKeysClaim, hostClaim(l, 1, hostKeyOf(1, "host")))
	if l.S.Node(statetest.ID(1)).PendingHostKeys != nil {
		t.Error("what is said no more waits still")
	}
}

// A node that was rejected as a candidate is not believed because it is none
// any more; one that is offline and will be a candidate again is treated as one.
func TestHostKeysFollowTheRole(t *testing.T) {
	l := hostLab(t)
	l.Promote(2)
	l.Promote(3)
	for _, i := range []int{2, 3} {
		l.Do(state.KindHostKeysClaim, hostClaim(l, i, hostKeyOf(i, "new")))
	}
	p, err := l.S.Node(statetest.ID(2)).PendingHostKeys.Digest()
	if err != nil {
		t.Fatal(err)
	}
	l.Do(state.KindHostKeysDecide, state.HostKeysDecision{Node: statetest.ID(2), Digest: p})
	no := &state.FlagPatch{MasterCandidate: new(false)}
	l.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), Flags: no})
	l.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(3), Flags: no})
	for i, want := range map[int]state.HostKeysVerdict{2: state.HostKeysRejected, 3: state.HostKeysAccepted} {
		c := hostClaim(l, i, hostKeyOf(i, "new"))
		if v, err := l.S.JudgeHostKeys(&c); v != want || err != nil {
			t.Errorf("node %d: %s, %v", i, v, err)
		}
	}
	l.Promote(3)
	l.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(3), Flags: off()})
	c := hostClaim(l, 3, hostKeyOf(3, "other"))
	if v, err := l.S.JudgeHostKeys(&c); v != state.HostKeysPending || err != nil {
		t.Errorf("an offline candidate: %s, %v", v, err)
	}
}

func TestHostKeysRefused(t *testing.T) {
	for name, c := range map[string]struct {
		code  cluster.Code
		spoil func(l *statetest.Lab, c *state.HostKeysClaim)
	}{
		"unknown node": {cluster.CodeNotInRoster, func(_ *statetest.Lab, c *state.HostKeysClaim) { c.Node = statetest.ID(9) }},
		"removed node": {cluster.CodeNotInRoster, func(l *statetest.Lab, _ *state.HostKeysClaim) {
			l.Do(state.KindNodeRemove, state.NodeRemove{Node: statetest.ID(2)})
		}},
		"former incarnation": {cluster.CodeIdentityMismatch, func(l *statetest.Lab, _ *state.HostKeysClaim) { l.Add(2) }},
		"no keys":            {cluster.CodeBadFormat, func(_ *statetest.Lab, c *state.HostKeysClaim) { c.Keys = nil }},
		"too many":           {cluster.CodeBadFormat, func(_ *statetest.Lab, c *state.HostKeysClaim) { c.Keys = slices.Repeat(c.Keys, 9) }},
		"the same twice":     {cluster.CodeBadFormat, func(_ *statetest.Lab, c *state.HostKeysClaim) { c.Keys = slices.Repeat(c.Keys, 2) }},
		"no port":            {cluster.CodeBadFormat, func(_ *statetest.Lab, c *state.HostKeysClaim) { c.Port = 0 }},
		"masterd's port":     {cluster.CodeBadFormat, func(_ *statetest.Lab, c *state.HostKeysClaim) { c.Port = 1812 }},
		"no time":            {cluster.CodeBadFormat, func(_ *statetest.Lab, c *state.HostKeysClaim) { c.Issued = time.Time{} }},
		"another node's key": {cluster.CodeAlreadyExists, func(_ *statetest.Lab, c *state.HostKeysClaim) { c.Keys = []cluster.SSHKey{hostKeyOf(3, "host")} }},
		"another's pending key": {cluster.CodeAlreadyExists, func(l *statetest.Lab, c *state.HostKeysClaim) {
			l.Promote(3)
			l.Do(state.KindHostKeysClaim, hostClaim(l, 3, hostKeyOf(3, "next")))
			c.Keys = []cluster.SSHKey{hostKeyOf(3, "next")}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := hostLab(t)
			claim := hostClaim(l, 2, hostKeyOf(2, "new"))
			c.spoil(l, &claim)
			before := snapshot(t, l.S)
			if _, err := l.Try(state.KindHostKeysClaim, claim); code(err) != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
			if !bytes.Equal(before, snapshot(t, l.S)) {
				t.Error("the state has changed")
			}
		})
	}
	l := statetest.New(t)
	l.Add(2)
	if _, err := l.Try(state.KindHostKeysClaim, hostClaim(l, 2, hostKeyOf(2, "new"))); code(err) != cluster.CodeConflict {
		t.Errorf("below its level: %v", err)
	}
}

// TestClonesKeepTheirKeys: a key that two nodes share from the beginning is no
// reason to refuse another one.
func TestClonesKeepTheirKeys(t *testing.T) {
	l := hostLab(t)
	shared := []cluster.SSHKey{hostKeyOf(7, "image")}
	for _, i := range []int{2, 3} {
		l.Do(state.KindNodeAddress, state.NodeAddress{Node: statetest.ID(i), HostKeys: &shared})
	}
	l.Do(state.KindHostKeysClaim, hostClaim(l, 2, shared[0], hostKeyOf(2, "new")))
	l.Do(state.KindHostKeysClaim, hostClaim(l, 2, hostKeyOf(2, "new")))
	if _, err := l.Try(state.KindHostKeysClaim, hostClaim(l, 2, shared[0])); code(err) != cluster.CodeAlreadyExists {
		t.Errorf("it takes the shared key back: %v", err)
	}
}

// TestReadmissionForgetsHostKeys: a new machine brings its own, whatever waited.
func TestReadmissionForgetsHostKeys(t *testing.T) {
	l := hostLab(t)
	l.Promote(2)
	l.Do(state.KindHostKeysClaim, hostClaim(l, 2, hostKeyOf(2, "new")))
	l.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), Flags: off()})
	l.Add(2)
	if n := l.S.Node(statetest.ID(2)); n.PendingHostKeys != nil || !n.HostKeysIssued.IsZero() || n.Incarnation != 2 {
		t.Errorf("%+v", n)
	}
}
