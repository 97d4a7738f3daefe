package masterd

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/candmap"
	"rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/rpc"
)

// voterSet answers for voters by number: those in says sign or misbehave,
// the others never answer.
type voterSet map[int]func(payloadType string, payload []byte) (candmap.Signature, error)

func signs(n int) func(string, []byte) (candmap.Signature, error) {
	return func(payloadType string, payload []byte) (candmap.Signature, error) {
		return candmap.Sign(candmaptest.Key(n), payloadType, payload)
	}
}

func refuses(string, []byte) (candmap.Signature, error) {
	return candmap.Signature{}, cluster.Errorf(cluster.CodeNotFound, "this voter's log does not hold it")
}

func (v voterSet) sign(payload []byte) signFunc {
	return func(ctx context.Context, voter cluster.NodeID, req rpc.SignRequest) ([]candmap.Signature, error) {
		for n, answer := range v {
			if candmaptest.NodeID(n) == voter {
				sig, err := answer(req.PayloadType, payload)
				return []candmap.Signature{sig}, err
			}
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// junk is a signature that does not verify, under the key id of node n.
func junk(n int) candmap.Signature {
	s, _ := candmap.Sign(candmaptest.Key(n), candmap.MapType, []byte("something else"))
	return s
}

func answers(s candmap.Signature) func(string, []byte) (candmap.Signature, error) {
	return func(string, []byte) (candmap.Signature, error) { return s, nil }
}

// change makes a map with voters old and its successor with voters next.
func change(t *testing.T, old, next []int) (held, m *candmap.Map, env candmap.Envelope) {
	t.Helper()
	held = candmaptest.Map(old...)
	m = candmaptest.Next(held)
	candmaptest.SetVoters(m, next...)
	payload, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return held, m, candmap.Envelope{PayloadType: candmap.MapType, Payload: payload}
}

func TestCollectNeedsBothMajorities(t *testing.T) {
	other := answers(junk(9))
	for _, c := range []struct {
		name      string
		old, next []int
		voters    voterSet
		ok        bool
	}{
		{"one voter", []int{1}, []int{1}, voterSet{1: signs(1)}, true},
		{"two of three, the third is silent", []int{1, 2, 3}, []int{1, 2, 3}, voterSet{1: signs(1), 2: signs(2)}, true},
		{"one of three, the others refuse", []int{1, 2, 3}, []int{1, 2, 3}, voterSet{1: signs(1), 2: refuses, 3: refuses}, false},
		{"old majority alone", []int{1, 2, 3}, []int{1, 4, 5}, voterSet{1: signs(1), 2: signs(2), 3: signs(3), 4: refuses, 5: refuses}, false},
		{"new majority alone", []int{1, 2, 3}, []int{1, 4, 5}, voterSet{1: signs(1), 2: refuses, 3: refuses, 4: signs(4), 5: signs(5)}, false},
		{"both", []int{1, 2, 3}, []int{1, 4, 5}, voterSet{1: signs(1), 2: signs(2), 3: refuses, 4: signs(4), 5: refuses}, true},
		{"both, no voter in common", []int{1, 2, 3}, []int{4, 5, 6}, voterSet{1: signs(1), 2: signs(2), 4: signs(4), 5: signs(5)}, true},
		{"seven and seven, the most there may be", []int{1, 2, 3, 4, 5, 6, 7}, []int{11, 12, 13, 14, 15, 16, 17}, voterSet{
			1: signs(1), 2: signs(2), 3: signs(3), 4: signs(4), 5: signs(5), 6: signs(6), 7: signs(7),
			11: signs(11), 12: signs(12), 13: signs(13), 14: signs(14), 15: signs(15), 16: signs(16), 17: signs(17),
		}, true},
		{"bad signatures count as none", []int{1, 2, 3}, []int{1, 2, 3}, voterSet{1: signs(1), 2: answers(junk(2)), 3: other}, false},
		{"the same signature twice", []int{1, 2, 3}, []int{1, 2, 3}, voterSet{1: signs(1), 2: signs(1), 3: refuses}, false},
		{"a stranger's signature", []int{1, 2, 3}, []int{1, 2, 3}, voterSet{1: signs(1), 2: signs(9), 3: refuses}, false},
		{"a bad one in the name of a good voter", []int{1, 2, 3}, []int{1, 2, 3}, voterSet{1: answers(junk(2)), 2: signs(2), 3: signs(3)}, true},
		{"an empty signature", []int{1, 2, 3}, []int{1, 2, 3}, voterSet{1: signs(1), 2: answers(candmap.Signature{}), 3: signs(3)}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			held, m, env := change(t, c.old, c.next)
			got, err := collect(t.Context(), c.voters.sign(env.Payload), votersOf(held, m),
				[]candmap.Authority{held.Authority(), m.Authority()}, env, rpc.SignRequest{PayloadType: candmap.MapType, Version: m.At()})
			if (err == nil) != c.ok {
				t.Fatalf("%s: error %v", c.name, err)
			}
			if !c.ok {
				if strings.Contains(err.Error(), "%!") {
					t.Errorf("%s: the error reads %q", c.name, err)
				}
				if cluster.CodeOf(err) != cluster.CodeNoQuorum {
					t.Errorf("%s: error %v, want no_quorum", c.name, err)
				}
				return
			}
			for _, a := range []candmap.Authority{held.Authority(), m.Authority()} {
				if got.Signers(a.Voters) < a.Majority() {
					t.Errorf("%s: the envelope lacks a majority", c.name)
				}
			}
			if _, err := candmap.Follow(verified(t, held, c.old...), got); err != nil {
				t.Errorf("%s: a node does not accept it: %v", c.name, err)
			}
		})
	}
}

func verified(t *testing.T, m *candmap.Map, signers ...int) *candmap.Verified {
	t.Helper()
	env := candmaptest.Seal(m, signers...)
	v, err := candmap.Genesis(env, env.Hash())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestCollectOneBadVoterBlocksNothing: junk kept from one attempt to the next
// would fill the places of an envelope, or take that of a good signature.
func TestCollectOneBadVoterBlocksNothing(t *testing.T) {
	held, m, env := change(t, []int{1, 2, 3}, []int{1, 2, 3})
	empty := env
	authorities := []candmap.Authority{held.Authority(), m.Authority()}
	req := rpc.SignRequest{PayloadType: candmap.MapType, Version: m.At()}
	var err error
	for i := range 2 * candmap.MaxSignatures {
		bad := voterSet{1: signs(1), 2: refuses, 3: answers(junk(2 + i%20))}
		if env, err = collect(t.Context(), bad.sign(env.Payload), votersOf(held, m), authorities, env, req); err == nil {
			t.Fatal("one signature of three passes")
		}
	}
	if n := len(env.Signatures); n != 1 {
		t.Errorf("%d signatures are kept, one is good", n)
	}
	good := voterSet{1: refuses, 2: signs(2), 3: refuses}
	if env, err = collect(t.Context(), good.sign(env.Payload), votersOf(held, m), authorities, env, req); err != nil {
		t.Errorf("two good signatures of three, from two attempts: %v", err)
	}
	if len(empty.Signatures) != 0 {
		t.Error("the caller's envelope was changed")
	}
}

// TestCollectReturnsAtTheMajority: a silent voter costs no time.
func TestCollectReturnsAtTheMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held, m, env := change(t, []int{1, 2, 3, 4, 5}, []int{1, 2, 3, 4, 5})
		start := time.Now()
		_, err := collect(t.Context(), voterSet{1: signs(1), 3: signs(3), 5: signs(5)}.sign(env.Payload), votersOf(held, m),
			[]candmap.Authority{held.Authority()}, env, rpc.SignRequest{PayloadType: candmap.MapType})
		if err != nil || time.Since(start) > 0 {
			t.Errorf("error %v after %s", err, time.Since(start))
		}
	}) // ends only when the questions to the silent voters have ended too
}

func TestCollectEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held, m, env := change(t, []int{1, 2, 3}, []int{1, 2, 3})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := collect(ctx, voterSet{1: signs(1)}.sign(env.Payload), votersOf(held, m),
			[]candmap.Authority{held.Authority()}, env, rpc.SignRequest{PayloadType: candmap.MapType})
		if cluster.CodeOf(err) != cluster.CodeNoQuorum || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if !strings.Contains(err.Error(), candmaptest.NodeID(2).String()) {
			t.Errorf("the error does not say who is missing: %v", err)
		}
	})
}

func TestVotersOf(t *testing.T) {
	a, b := candmaptest.Map(1, 2, 3), candmaptest.Map(3, 4, 5)
	b.Candidates = append(b.Candidates, candmaptest.Candidate(6, false))
	got := votersOf(a, b)
	if len(got) != 5 {
		t.Errorf("%d voters, want each of five once", len(got))
	}
	for _, id := range got {
		if id == candmaptest.NodeID(6) {
			t.Error("a candidate without a vote is asked")
		}
	}
}
