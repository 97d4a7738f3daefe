package masterd

import (
	"context"
	"crypto/ed25519"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

func TestG3SignsWhatItsOwnLogYields(t *testing.T) {
	lab := statetest.New(t)
	lease(lab, 60)
	k := newVoterKit(t, lab)
	e := lab.S.Head()
	sig, err := k.askMap(e)
	mustSign(t, "the head", sig, err)
	env := candmap.Envelope{PayloadType: candmap.MapType, Payload: e.Payload, Signatures: []candmap.Signature{sig}}
	if env.Signers([]candmap.SigningKey{candmap.SigningKey(k.key.Public().(ed25519.PublicKey))}) != 1 {
		t.Error("the signature is not on the payload of the log")
	}
	forged := e
	forged.Hash = cluster.DigestOf([]byte("what the leader would like"))
	sig, err = k.askMap(forged)
	mustRefuse(t, "another payload than the log's", cluster.CodeMapFork, sig, err)
}

func TestG3WaitsForItsOwnLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := statetest.New(t)
		before := lab.S
		lease(lab, 60)
		k := newVoterKit(t, lab)
		k.raft.set(before, 1, 1)

		start := time.Now()
		sig, err := k.askMap(lab.S.Head())
		mustRefuse(t, "what the log does not hold", cluster.CodeNotFound, sig, err)
		if took := time.Since(start); took != signWait {
			t.Errorf("refused after %s, want %s", took, signWait)
		}

		type answer struct {
			sig candmap.Signature
			err error
		}
		done := make(chan answer, 1)
		ask := func() {
			sig, err := k.askMap(lab.S.Head())
			done <- answer{sig, err}
		}
		go ask()
		synctest.Wait()
		k.raft.set(lab.S, 1, 1)
		a := <-done
		mustSign(t, "what the log holds by now", a.sig, a.err)

		k.raft.set(before, 1, 1)
		go ask()
		synctest.Wait()
		k.raft.set(lab.S, 2, 2) // it arrives with another leader
		a = <-done
		mustRefuse(t, "a request of a leader that was deposed meanwhile", cluster.CodeNotMaster, a.sig, a.err)
	})
}

// TestG3NeverTwoFormsOfOneVersion: the log is replaced by one that goes
// another way, as the copy of a disk, or a bug in raft, would make it.
func TestG3NeverTwoFormsOfOneVersion(t *testing.T) {
	lab := statetest.New(t)
	fork := other(t, lab, 1)
	lease(lab, 60)
	lease(fork, 61)
	for name, restart := range map[string]func(*voterKit){"running on": func(*voterKit) {}, "after a restart": (*voterKit).restart} {
		k := newVoterKit(t, lab)
		sig, err := k.askMap(lab.S.Head())
		mustSign(t, name+": the first form", sig, err)
		restart(k)
		k.raft.set(fork.S, 1, 1)
		sig, err = k.askMap(fork.S.Head())
		mustRefuse(t, name+": the second form", cluster.CodeMapFork, sig, err)
		k.raft.set(lab.S, 1, 1)
		sig, err = k.askMap(lab.S.Head())
		mustSign(t, name+": the first form again", sig, err)
	}
}

// TestG3OlderVersionOfAnotherHistory: only the newest version signed is kept,
// so an older one may be signed only from the log that led to it.
func TestG3OlderVersionOfAnotherHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := statetest.New(t)
		fork := other(t, lab, 1)
		lease(lab, 60)
		older := lab.S.Head()
		lease(lab, 90)
		lease(fork, 61)
		k := newVoterKit(t, lab)
		sig, err := k.askMap(older)
		mustSign(t, "the older version", sig, err)
		sig, err = k.askMap(lab.S.Head())
		mustSign(t, "the newer version", sig, err)
		k.restart()
		sig, err = k.askMap(older)
		mustSign(t, "the older version again", sig, err)

		k.raft.set(fork.S, 1, 1)
		sig, err = k.askMap(fork.S.Head())
		mustRefuse(t, "the older version in another form, from a shorter log", cluster.CodeNotFound, sig, err)
		lease(fork, 91)
		k.raft.set(fork.S, 1, 1)
		e, _ := fork.S.Entry(older.Version)
		sig, err = k.askMap(e)
		mustRefuse(t, "the older version in another form", cluster.CodeMapFork, sig, err)
	})
}

// TestG3CrashWhileSigning: what is signed is on disk before the signature
// leaves, whatever fails.
func TestG3CrashWhileSigning(t *testing.T) {
	lab := statetest.New(t)
	fork := other(t, lab, 1)
	lease(lab, 60)
	lease(fork, 61)
	crash := errors.New("power is gone")

	k := newVoterKit(t, lab)
	k.disk.before = crash
	sig, err := k.askMap(lab.S.Head())
	if len(sig.Sig) > 0 || !errors.Is(err, crash) {
		t.Fatalf("a signature left before it was noted: %v", err)
	}
	k.disk.before = nil
	k.restart()
	k.raft.set(fork.S, 1, 1)
	sig, err = k.askMap(fork.S.Head())
	mustSign(t, "a version of which nothing left", sig, err)

	k = newVoterKit(t, lab)
	k.disk.after = crash
	sig, err = k.askMap(lab.S.Head())
	if len(sig.Sig) > 0 || !errors.Is(err, crash) {
		t.Fatalf("a signature left although its note is uncertain: %v", err)
	}
	k.disk.after = nil
	k.restart()
	k.raft.set(fork.S, 1, 1)
	sig, err = k.askMap(fork.S.Head())
	mustRefuse(t, "a version that may have been signed", cluster.CodeMapFork, sig, err)
}

func TestG3DamagedNoteStopsTheSigner(t *testing.T) {
	lab := statetest.New(t)
	k := newVoterKit(t, lab)
	for name, b := range map[string]string{"junk": "x", "empty": "", "another shape": "[]", "no version": "{}"} {
		if err := k.disk.InmemStore.Set(signedKey, []byte(b)); err != nil {
			t.Fatal(err)
		}
		if _, err := newSigner(k.raft, statetest.ID(1), nil, k.disk, time.Now); err == nil {
			t.Errorf("%s: a signer that forgot what it signed goes on", name)
		}
	}
}

func TestG3SignsForTheLeaderOfTheTermOnly(t *testing.T) {
	lab := statetest.New(t)
	lab.Add(2)
	lab.Promote(2)
	k := newVoterKit(t, lab)
	e := lab.S.Head()
	b := beaconFor(lab.S, e, k.now)
	payload, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	forMap := rpc.SignRequest{PayloadType: candmap.MapType, Version: e.Version, Hash: e.Hash, Term: 5}
	forBeacon := rpc.SignRequest{PayloadType: candmap.BeaconType, Version: e.Version, Hash: e.Hash, Payload: payload, Term: 5}
	for _, c := range []struct {
		name   string
		peer   int
		term   uint64
		leader int
		code   cluster.Code
	}{
		{"the leader", 1, 5, 1, ""},
		{"another candidate", 2, 5, 1, cluster.CodeNotMaster},
		{"the leader, of an earlier term", 1, 4, 1, cluster.CodeNotMaster},
		{"the leader, of a later term", 1, 6, 1, cluster.CodeNotMaster},
		{"the leader, of no term", 1, 0, 1, cluster.CodeNotMaster},
		{"a former leader", 1, 5, 2, cluster.CodeNotMaster},
		{"somebody while nobody leads", 1, 5, 0, cluster.CodeNotMaster},
		{"nobody while nobody leads", 0, 5, 0, cluster.CodeNotMaster},
	} {
		k.raft.set(lab.S, 5, c.leader)
		var peer cluster.NodeID
		if c.peer > 0 {
			peer = statetest.ID(c.peer)
		}
		for _, req := range []rpc.SignRequest{forMap, forBeacon} {
			req.Term = c.term
			sig, err := first(k.sign(t.Context(), peer, req))
			if c.code == "" {
				mustSign(t, c.name+": "+req.PayloadType, sig, err)
			} else {
				mustRefuse(t, c.name+": "+req.PayloadType, c.code, sig, err)
			}
		}
	}
}

func TestG3MapTimesAndMaster(t *testing.T) {
	lab := statetest.New(t)
	lab.Add(2)
	lab.Promote(2)
	lease(lab, 60)
	e := lab.S.Head() // of term 1, issued at lab.Now, master is node 1
	for _, c := range []struct {
		name   string
		clock  time.Duration // of the voter, from the time of issue
		term   uint64
		leader int
		code   cluster.Code
	}{
		{"in time", 0, 1, 1, ""},
		{"issued as far ahead as clocks may differ", -candmap.MaxSkew, 1, 1, ""},
		{"issued in the future", -candmap.MaxSkew - time.Millisecond, 1, 1, cluster.CodeBadFormat},
		{"a slow voter", 59 * time.Second, 1, 1, ""},
		{"out of reach for longer than a lease", 61 * time.Second, 1, 1, ""},
		{"names another master than its leader", 0, 1, 2, cluster.CodeNotMaster},
		{"of an earlier term, to be completed", 0, 2, 2, ""},
		{"of an earlier term, long ago", 365 * 24 * time.Hour, 2, 2, ""},
		{"of an earlier term, by its own leader again", 0, 2, 1, ""},
		{"of an earlier term, issued in the future", -time.Hour, 2, 2, cluster.CodeBadFormat},
	} {
		k := newVoterKit(t, lab)
		k.now = lab.Now.Add(c.clock)
		k.raft.set(lab.S, c.term, c.leader)
		sig, err := k.askMap(e)
		if c.code == "" {
			mustSign(t, c.name, sig, err)
		} else {
			mustRefuse(t, c.name, c.code, sig, err)
			if !k.newest().IsZero() {
				t.Errorf("%s: noted as signed", c.name)
			}
		}
	}
}

func TestG3Beacons(t *testing.T) {
	lab := statetest.New(t)
	lease(lab, 60)
	older := lab.S.Head()
	lease(lab, 90)
	head := lab.S.Head()
	good := beaconFor(lab.S, head, lab.Now)
	change := func(f func(*candmap.Beacon)) candmap.Beacon {
		b := good
		f(&b)
		return b
	}
	for _, c := range []struct {
		name   string
		signed state.ChainEntry // before
		b      candmap.Beacon
		code   cluster.Code
	}{
		{"for the head", head, good, ""},
		{"for the head, which is not signed yet", state.ChainEntry{}, good, ""},
		{"for a committed version while nothing newer is signed", older, beaconFor(lab.S, older, lab.Now), ""},
		{"for an older version than signed", head, beaconFor(lab.S, older, lab.Now), cluster.CodeMapOlder},
		{"as late as clocks may differ", head, change(func(b *candmap.Beacon) { b.Time = b.Time.Add(candmap.MaxSkew) }), ""},
		{"as early as clocks may differ", head, change(func(b *candmap.Beacon) { b.Time = b.Time.Add(-candmap.MaxSkew) }), ""},
		{"too late", head, change(func(b *candmap.Beacon) { b.Time = b.Time.Add(candmap.MaxSkew + time.Millisecond) }), cluster.CodeBadFormat},
		{"too early", head, change(func(b *candmap.Beacon) { b.Time = b.Time.Add(-candmap.MaxSkew - time.Millisecond) }), cluster.CodeBadFormat},
		{"of another cluster", head, change(func(b *candmap.Beacon) { b.Cluster = statetest.ID(0xbad) }), cluster.CodeNotFound},
		{"for another map of that version", head, change(func(b *candmap.Beacon) { b.Map = older.Hash }), cluster.CodeNotFound},
		{"for a version that nobody committed", head, change(func(b *candmap.Beacon) { b.Version++ }), cluster.CodeNotFound},
		{"for another epoch", head, change(func(b *candmap.Beacon) { b.Epoch++ }), cluster.CodeNotFound},
	} {
		k := newVoterKit(t, lab)
		if len(c.signed.Payload) > 0 {
			sig, err := k.askMap(c.signed)
			mustSign(t, "what comes before", sig, err)
		}
		k.restart()
		sig, err := k.askBeacon(c.b)
		if c.code == "" {
			mustSign(t, c.name, sig, err)
		} else {
			mustRefuse(t, c.name, c.code, sig, err)
		}
	}
}

func TestG3SignsNothingElse(t *testing.T) {
	lab := statetest.New(t)
	k := newVoterKit(t, lab)
	e := lab.S.Head()
	for name, c := range map[string]struct {
		req  rpc.SignRequest
		code cluster.Code
	}{
		"no type":             {rpc.SignRequest{Payload: e.Payload}, cluster.CodeUnsupportedFormat},
		"a type of later":     {rpc.SignRequest{PayloadType: "application/vnd.rolekey.map.v2+json", Version: e.Version, Hash: e.Hash}, cluster.CodeUnsupportedFormat},
		"a map as a beacon":   {rpc.SignRequest{PayloadType: candmap.BeaconType, Payload: e.Payload}, cluster.CodeTooLarge},
		"junk as a beacon":    {rpc.SignRequest{PayloadType: candmap.BeaconType, Payload: []byte("{}")}, cluster.CodeBadFormat},
		"nothing as a beacon": {rpc.SignRequest{PayloadType: candmap.BeaconType}, cluster.CodeBadFormat},
	} {
		c.req.Term = 1
		sig, err := first(k.sign(t.Context(), statetest.ID(1), c.req))
		mustRefuse(t, name, c.code, sig, err)
	}
	k.key = nil
	sig, err := k.askMap(e)
	mustRefuse(t, "without a key", cluster.CodeUnavailable, sig, err)
}

// TestG3PropertyOneFormPerVersion lets a leader ask for anything while logs are
// swapped, terms change and the voter restarts or loses power: of no version
// are there ever two signatures on different bytes.
func TestG3PropertyOneFormPerVersion(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits for a log that does not come
	rapid.Check(t, func(t *rapid.T) {
		var labs [2]*statetest.Lab
		labs[0] = statetest.New(t)
		lease(labs[0], 60)
		for i := 1; i < len(labs); i++ {
			labs[i] = other(t, labs[0], rapid.IntRange(1, 2).Draw(t, "common"))
		}
		for i, l := range labs {
			for j := range rapid.IntRange(0, 3).Draw(t, "length") {
				lease(l, uint32(100*i+10*j+7)) // #nosec G115 -- small
			}
		}
		k := newVoterKit(t, labs[0])
		k.ctx = gone
		forms := map[cluster.Version]cluster.Digest{}
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			k.randomStep(t, labs[:], forms)
		}
	})
}

func (k *voterKit) randomStep(t *rapid.T, labs []*statetest.Lab, forms map[cluster.Version]cluster.Digest) {
	lab := labs[rapid.IntRange(0, len(labs)-1).Draw(t, "log")]
	switch rapid.IntRange(0, 5).Draw(t, "step") {
	case 0:
		k.restart()
	case 1:
		k.raft.set(lab.S, uint64(rapid.IntRange(1, 3).Draw(t, "term")), 1) // #nosec G115 -- small
	case 2:
		k.disk.after = errors.New("lost power")
		_, _ = k.askMap(drawVersion(t, k.raft.State()))
		k.disk.after = nil
		k.restart()
	default:
		e := drawVersion(t, lab.S)
		if _, err := k.askMap(e); err != nil {
			return
		}
		if old, ok := forms[e.Version]; ok && old != e.Hash {
			t.Fatalf("version %s is signed in two forms", e.Version)
		}
		forms[e.Version] = e.Hash
	}
}

func drawVersion(t *rapid.T, st *state.State) state.ChainEntry {
	return st.Chain[rapid.IntRange(0, len(st.Chain)-1).Draw(t, "version")]
}
