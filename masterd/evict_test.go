package masterd

import (
	"context"
	"errors"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// TestG3EvictedGetsNoSignature: a voter signs nothing for an evicted leader. For
// the next one it signs what the evicted one has committed, without which nothing
// newer could be published, and no beacon that names it; of that it confirms the
// clock alone.
func TestG3EvictedGetsNoSignature(t *testing.T) {
	lab := statetest.New(t)
	lease(lab, 60)
	head := lab.S.Head()
	beacon := beaconFor(lab.S, head, lab.Now)
	k := newVoterKit(t, lab)
	k.evicts = func(id cluster.NodeID) bool { return id == statetest.ID(1) }
	sig, err := k.askMap(head)
	mustRefuse(t, "a map for the evicted leader", cluster.CodeEvicted, sig, err)
	sig, err = k.askBeacon(beacon)
	mustRefuse(t, "a beacon for the evicted leader", cluster.CodeEvicted, sig, err)

	k.raft.set(lab.S, lab.Term+1, 2)
	sig, err = k.askBeacon(beacon)
	if !errors.Is(err, errClockOnly) || len(sig.Sig) > 0 {
		t.Fatalf("a beacon that names the evicted master: %v", err)
	}
	late := beacon
	late.Time = late.Time.Add(time.Minute)
	sig, err = k.askBeacon(late)
	mustRefuse(t, "a clock that is wrong", cluster.CodeBadFormat, sig, err)
	sig, err = k.askMap(head)
	mustSign(t, "what the evicted master committed, for the next one", sig, err)

	k.evicts = nil
	sig, err = k.askBeacon(beacon)
	mustSign(t, "a beacon after the eviction is taken back", sig, err)
}

// Nothing is sent to who is evicted: its answers could depose this leader.
func TestEvictedHearsNothing(t *testing.T) {
	s := sender{evicts: func(id cluster.NodeID) bool { return id == statetest.ID(1) }}
	_, err := s.Send(t.Context(), consensus.ServerID(statetest.ID(1), 1), consensus.MessageRequestVote, nil)
	if cluster.CodeOf(err) != cluster.CodeEvicted {
		t.Error(err)
	}
}

// A clock is confirmed by a majority, of whom some may give no signature.
func TestConfirmClock(t *testing.T) {
	clockOnly := func(string, []byte) (candmap.Signature, error) { return candmap.Signature{}, errClockOnly }
	for name, c := range map[string]struct {
		voters voterSet
		code   cluster.Code
	}{
		"two of three without a signature": {voterSet{1: refuses, 2: clockOnly, 3: clockOnly}, ""},
		"one with, one without":            {voterSet{1: refuses, 2: clockOnly, 3: signs(3)}, ""},
		"one alone":                        {voterSet{1: refuses, 2: clockOnly, 3: refuses}, cluster.CodeNoQuorum},
		"the others are silent":            {voterSet{2: clockOnly}, cluster.CodeNoQuorum},
	} {
		env := candmaptest.Seal(candmaptest.Map(1, 2, 3), 1, 2)
		held, err := candmap.Genesis(env, env.Hash())
		if err != nil {
			t.Fatal(err)
		}
		l := &leader{sign: c.voters.sign(nil), clock: newClock(time.Now)}
		b := candmap.Beacon{Time: time.Now()}
		err = l.confirmClock(context.Background(), held, 50*time.Millisecond, b, rpc.SignRequest{PayloadType: candmap.BeaconType})
		if cluster.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %q", name, err, c.code)
		}
		if confirmed := l.clock.confirmed(time.Hour) == nil; confirmed != (c.code == "") {
			t.Errorf("%s: the clock counts as confirmed: %t", name, confirmed)
		}
	}
}
