package candmap_test

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
)

// players are the numbers of all keys of a run: nodes 1 to 12, recovery keys
// 21 to 23 with threshold 2.
const players = 12

// history is a random honest past, told to one receiver who missed nothing.
type history struct {
	held *candmap.Verified
	past []candmap.Envelope
	now  []int // voters
}

func subset(t *rapid.T, label string, of []int, least, most int) []int {
	perm := rapid.Permutation(of).Draw(t, label)
	return perm[:rapid.IntRange(least, min(most, len(of))).Draw(t, label+" size")]
}

func drawHistory(t *rapid.T) *history {
	h := &history{now: subset(t, "first voters", ints(players), 1, candmap.MaxVoters)}
	m := ct.Map(h.now...)
	ct.SetRecovery(m, 2, 21, 22, 23)
	env := ct.Seal(m, h.now...)
	var err error
	if h.held, err = candmap.Genesis(env, env.Hash()); err != nil {
		t.Fatal(err)
	}
	h.past = []candmap.Envelope{env}
	for range rapid.IntRange(0, 4).Draw(t, "changes") {
		h.change(t)
	}
	return h
}

// change makes one honest change and demands that the receiver takes it.
func (h *history) change(t *rapid.T) {
	m := ct.Next(h.held.Map)
	voters := h.now
	signers := subset(t, "signers", h.now, len(h.now)/2+1, len(h.now))
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		m.LeaseSeconds = uint32(rapid.IntRange(1, 999).Draw(t, "lease"))
	case 1:
		m.Epoch++
		signers = []int{21, 23}
		fallthrough
	default:
		voters = subset(t, "voters", ints(players), 1, candmap.MaxVoters)
		ct.SetVoters(m, voters...)
		signers = append(slices.Clone(signers), subset(t, "new signers", voters, len(voters)/2+1, len(voters))...)
	}
	env := ct.Seal(m, signers...)
	next, err := candmap.Follow(h.held, env)
	if err != nil {
		t.Fatalf("an honest map %s was refused: %v", m.At(), err)
	}
	if !next.At().Newer(h.held.At()) {
		t.Fatalf("%s followed %s", next.At(), h.held.At())
	}
	h.held, h.now = next, voters
	h.past = append(h.past, env)
}

// attackers are everybody but a majority of the present voters: normal nodes,
// former voters, a minority of voters, and one recovery key of the two needed.
func (h *history) attackers(t *rapid.T) []int {
	keep := subset(t, "honest voters", h.now, len(h.now)-(len(h.now)-1)/2, len(h.now))
	keys := []int{22}
	for n := 1; n <= players; n++ {
		if !slices.Contains(keep, n) {
			keys = append(keys, n)
		}
	}
	return keys
}

func TestG3NoForgeryIsAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		keys := h.attackers(t)
		for range 8 {
			env := forge(t, h, keys)
			next, err := candmap.Follow(h.held, env)
			if err == nil {
				t.Fatalf("holding %s, voters %v, a map %s forged with keys %v was accepted", h.held.At(), h.now, next.At(), keys)
			}
			if env.Hash() != h.held.Hash && errors.Is(err, candmap.ErrKnown) {
				t.Fatal("an unknown map passed as known")
			}
		}
	})
}

// forge makes what the attackers can make: a map of their liking, based on any
// map of the past, with all their signatures and those stolen from the past.
func forge(t *rapid.T, h *history, keys []int) candmap.Envelope {
	from := rapid.SampledFrom(h.past).Draw(t, "base")
	if rapid.Bool().Draw(t, "replay") {
		return candmap.Merge(from, sign(t, from, keys)...)
	}
	m, err := candmap.DecodeMap(from.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if rapid.Bool().Draw(t, "as a successor") {
		m = ct.Next(m)
	}
	m.Epoch = h.held.Epoch + uint64(rapid.IntRange(0, 2).Draw(t, "epoch"))
	m.Version = max(2, h.held.Version+uint64(rapid.IntRange(0, 3).Draw(t, "version")))
	m.Previous = h.held.Hash
	if rapid.Bool().Draw(t, "own voters") {
		ct.SetVoters(m, keys[1:min(len(keys), 1+candmap.MaxVoters)]...)
	}
	m.LeaseSeconds = uint32(rapid.IntRange(1000, 2000).Draw(t, "lease"))
	env := ct.Seal(m)
	stolen := rapid.SampledFrom(h.past).Draw(t, "stolen").Signatures
	return candmap.Merge(candmap.Merge(env, sign(t, env, keys)...), stolen...)
}

func sign(t *rapid.T, env candmap.Envelope, keys []int) (sigs []candmap.Signature) {
	for _, n := range keys {
		s, err := candmap.Sign(ct.Key(n), env.PayloadType, env.Payload)
		if err != nil {
			t.Fatal(err)
		}
		sigs = append(sigs, s)
	}
	return sigs
}

// Whatever a node slept through, the authority-changing maps and the current
// one lead it to the present; and it ends where one who missed nothing is.
func TestChainLeadsFromAnyPastToThePresent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		at := rapid.IntRange(0, len(h.past)-1).Draw(t, "slept at")
		held, err := candmap.Genesis(h.past[at], h.past[at].Hash())
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := candmap.FollowChain(held, h.past)
		if got.Hash != h.held.Hash {
			t.Fatalf("from %s reached %s, want %s: %v", held.At(), got.At(), h.held.At(), err)
		}
	})
}
