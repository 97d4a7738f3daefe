package candmap_test

import (
	"errors"
	"slices"
	"testing"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

func TestFollow(t *testing.T) {
	for name, script := range map[string]string{
		"one voter": `
			G: voters=1 sign=1 -> ok
			A: sign=1 -> ok
			B: sign=1 lease=60 -> ok`,
		"the same payload with other signatures is known": `
			G: voters=1,2,3 sign=1,2 -> ok
			A: sign=1,2 -> ok
			A2: again=A sign=2,3 -> known
			A3: again=A sign= -> known`,
		"the version may skip while the authority stands": `
			G: voters=1,2,3 sign=1,2 -> ok
			A: version=+7 prev=other sign=2,3 -> ok`,
		"a change of voters needs old and new majority": `
			G: voters=1,2,3 sign=1,2 -> ok
			A1: voters=1,4,5 sign=1,2 -> bad_signature
			A2: voters=1,4,5 sign=1,4,5 -> bad_signature
			A3: voters=1,4,5 sign=1,2,4 -> ok
			B: sign=2,3 -> bad_signature
			B2: sign=4,5 -> ok`,
		"a standby candidate changes no authority": `
			G: voters=1,2,3 sign=1,2 -> ok
			A: standby=4,5 sign=2,3 aged -> ok`,
		"a skipped change of authority must be fetched": `
			G: voters=1 sign=1 -> ok
			A: voters=2 sign=1,2 -> ok
			X: voters=3 sign=2,3 -> ok
			Y: sign=1 -> bad_signature`,
		"only recovery raises the epoch": `
			G: voters=1,2,3 recovery=2:8,9,10 sign=1,2 -> ok
			A1: epoch=+1 sign=1,2,3 -> bad_signature
			A2: epoch=+1 voters=3 sign=3,8 -> bad_signature
			A3: epoch=+1 voters=3 sign=8,9 -> bad_signature
			A4: epoch=+2 voters=3 sign=3,8,9 -> bad_signature
			A5: epoch=+1 voters=3 sign=3,8,9 prev=lost version=+0 -> ok
			B: sign=1,2 -> bad_signature
			B2: sign=3 -> ok`,
		"recovery rules no epoch": `
			G: voters=1,2,3 recovery=1:8 sign=1,2 -> ok
			A: sign=8 -> bad_signature
			B: voters=7 sign=7,8 -> bad_signature`,
		"without recovery no epoch is raised": `
			G: voters=1,2,3 sign=1,2 -> ok
			A: epoch=+1 voters=3 sign=3 -> bad_signature
			B: epoch=+1 recovery=1:8 sign=1,2,3,8 -> bad_signature`,
		"a change of recovery needs the old recovery": `
			G: voters=1,2,3 recovery=1:8 sign=1,2 -> ok
			A1: recovery=1:9 sign=1,2,9 -> bad_signature
			A2: recovery=0: sign=1,2,3 -> bad_signature
			A3: recovery=1:9 sign=1,2,8 -> ok
			B: epoch=+1 sign=1,2,8 -> bad_signature`,
		"recovery may be set where there was none": `
			G: voters=1,2,3 sign=1,2 -> ok
			A: recovery=2:8,9 sign=1,3 -> ok`,
		"expired trust crosses no change of authority": `
			G: voters=1,2,3 recovery=1:8 sign=1,2 -> ok
			A: voters=1,2,4 sign=1,2,4 aged -> trust_expired
			B: epoch=+1 sign=1,2,8 aged -> trust_expired
			C: recovery=1:9 sign=1,2,8 aged -> trust_expired
			D: master=2 sign=1,2 aged -> ok`,
		"another cluster": `
			G: voters=1,2,3 sign=1,2 -> ok
			A: cluster=other sign=1,2 -> bad_signature`,
	} {
		t.Run(name, func(t *testing.T) { play(t, script) })
	}
}

// G3: neither a minority of voters, nor a normal node, nor former voters, nor
// a replay can make an honest node accept, fork or roll back a map.

func TestG3MinorityOfVoters(t *testing.T) {
	play(t, `
		G: voters=1,2,3,4,5 sign=1,2,3 -> ok
		A: sign= -> bad_signature
		B: master=2 sign=1,2 -> bad_signature
		C: voters=1,2 sign=1,2 -> bad_signature
		D: voters=1 sign=1,2,6,7,8,9 -> bad_signature
		E: epoch=+1 sign=1,2 -> bad_signature`)
}

func TestG3HalfIsNoMajority(t *testing.T) {
	play(t, `
		G: voters=1,2,3,4 sign=1,2,3 -> ok
		A: sign=1,2 -> bad_signature
		B: voters=1,2 sign=1,2,3 -> ok
		C: sign=1 -> bad_signature
		D: voters=1,2,5,6 sign=1,2 -> bad_signature`)
	for voters, want := range []int{1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4, 7: 4} {
		if got := (candmap.Authority{Voters: make([]candmap.SigningKey, voters)}).Majority(); voters > 0 && got != want {
			t.Errorf("majority of %d is %d, want %d", voters, got, want)
		}
	}
}

func TestG3OneVoterSigningTwice(t *testing.T) {
	g := genesis(t, 1, 2, 3)
	env := ct.Seal(ct.Next(g.Map), 1)
	env.Signatures = append(env.Signatures, env.Signatures[0])
	if _, err := candmap.Follow(g, env); cluster.CodeOf(err) != cluster.CodeBadFormat {
		t.Errorf("a signature given twice: %v, want bad_format", err)
	}
	if n := env.Signers(g.Authority().Voters); n != 0 {
		t.Errorf("a signature given twice counts %d times", n)
	}
	env.Signatures[1].KeyID = candmap.KeyIDOf(ct.Public(2).Public())
	if _, err := candmap.Follow(g, env); cluster.CodeOf(err) != cluster.CodeBadSignature {
		t.Errorf("a signature under another's key id: %v, want bad_signature", err)
	}
}

func TestG3NormalNodeAndStandby(t *testing.T) {
	play(t, `
		G: voters=1,2,3 standby=4,5 sign=1,2 -> ok
		A: master=4 sign=4,5,6,7 -> bad_signature
		B: voters=4,5,6 sign=4,5,6 -> bad_signature
		C: sign=1,4,5 -> bad_signature`)
}

func TestG3FormerVoters(t *testing.T) {
	play(t, `
		G: voters=1,2,3 sign=1,2 -> ok
		A: voters=3,4,5 sign=1,2,3,4 -> ok
		B: from=G sign=1,2 -> map_fork
		C: voters=1,2,3 sign=1,2,3 -> bad_signature
		D: from=G version=+9 voters=1,2,3 sign=1,2,3 -> bad_signature
		E: epoch=+1 sign=1,2,3 -> bad_signature`)
}

func TestG3ReplayAndRollback(t *testing.T) {
	play(t, `
		G: voters=1,2,3 sign=1,2 -> ok
		A: sign=1,2 -> ok
		B: master=2 sign=1,2 -> ok
		A2: again=A sign=1,2 -> map_older
		G2: again=G sign=1,2,3 -> map_older
		B2: again=B sign=1,2 -> known
		C: voters=2,3,4 sign=2,3,4 -> ok
		D: sign=3,4 -> ok
		E: again=A sign=1,2 -> bad_signature
		F: again=C sign=1,2,3 -> map_older`)
}

func TestG3RecoveredClusterIgnoresTheOldMajority(t *testing.T) {
	play(t, `
		G: voters=1,2,3 recovery=1:8 sign=1,2 -> ok
		R: epoch=+1 voters=3 sign=3,8 -> ok
		A: from=G version=+90 sign=1,2,3 -> map_older
		B: from=G epoch=+1 version=+90 sign=1,2 -> bad_signature`)
}

func TestG3Fork(t *testing.T) {
	for name, script := range map[string]string{
		"two payloads for one version": `
			G: voters=1,2,3 sign=1,2 -> ok
			A: sign=1,2 -> ok
			B: from=G master=2 sign=2,3 -> map_fork`,
		"two payloads for a version that changed the authority": `
			G: voters=1,2,3 sign=1,2 -> ok
			A: voters=4,5,6 sign=1,2,4,5 -> ok
			B: from=G master=2 sign=2,3 -> map_fork`,
		"the successor of another payload": `
			G: voters=1,2,3 sign=1,2 -> ok
			A: prev=other sign=2,3 -> map_fork`,
		"two recoveries": `
			G: voters=1,2,3 recovery=1:8 sign=1,2 -> ok
			A: epoch=+1 voters=3 sign=3,8 -> ok
			B: from=G epoch=+1 voters=2 sign=2,8 -> map_fork`,
		"a fork that too few signed is no fork": `
			G: voters=1,2,3 sign=1,2 -> ok
			A: sign=1,2 -> ok
			B: from=G master=2 sign=2 -> bad_signature
			C: from=G voters=7 sign=2,3 -> bad_signature`,
	} {
		t.Run(name, func(t *testing.T) { play(t, script) })
	}
}

func TestForkErrorCarriesEvidence(t *testing.T) {
	g := genesis(t, 1)
	a, b := ct.Next(g.Map), ct.Next(g.Map)
	b.LeaseSeconds = 60
	held, err := candmap.Follow(g, ct.Seal(a, 1))
	if err != nil {
		t.Fatal(err)
	}
	_, err = candmap.Follow(held, ct.Seal(b, 1))
	var fork *candmap.ForkError
	if !errors.As(err, &fork) || fork.Held.Hash() != held.Hash || fork.Other.Hash() != ct.Seal(b).Hash() {
		t.Fatalf("Follow = %v, want a fork with both envelopes", err)
	}
	if cluster.CodeOf(err) != cluster.CodeMapFork || cluster.HintOf(err) == "" {
		t.Errorf("code %s, hint %q", cluster.CodeOf(err), cluster.HintOf(err))
	}
}

func TestGenesis(t *testing.T) {
	m := ct.Map(1, 2, 3)
	good := ct.Seal(m, 1, 2)
	tooFew := ct.Seal(m, 1)
	other := ct.Seal(ct.Next(m), 1, 2)
	v2 := good
	v2.PayloadType = "application/vnd.rolekey.map.v2+json"
	foreign := good
	foreign.PayloadType = "application/json"
	for name, c := range map[string]struct {
		env  candmap.Envelope
		pin  cluster.Digest
		want cluster.Code
	}{
		"good":             {good, good.Hash(), ""},
		"later version":    {other, other.Hash(), ""},
		"too few":          {tooFew, good.Hash(), cluster.CodeBadSignature},
		"another pin":      {good, other.Hash(), cluster.CodeBadSignature},
		"later format":     {v2, good.Hash(), cluster.CodeUnsupportedFormat},
		"foreign format":   {foreign, good.Hash(), cluster.CodeBadFormat},
		"no map":           {ct.SealBytes(candmap.MapType, []byte("{}"), 1), cluster.DigestOf([]byte("{}")), cluster.CodeBadFormat},
		"beacon, not map":  {ct.Beacon(m, ct.Epoch0, 1, 2), good.Hash(), cluster.CodeBadFormat},
		"too many signers": {manySignatures(good), good.Hash(), cluster.CodeTooLarge},
	} {
		v, err := candmap.Genesis(c.env, c.pin)
		if cluster.CodeOf(err) != c.want || (err == nil) != (v != nil) {
			t.Errorf("%s: Genesis = %v, %v, want code %q", name, v, err, c.want)
		}
	}
}

func manySignatures(env candmap.Envelope) candmap.Envelope {
	env.Signatures = nil
	for n := range candmap.MaxSignatures + 1 {
		sig, err := candmap.Sign(ct.Key(n), env.PayloadType, env.Payload)
		if err != nil {
			panic(err)
		}
		env.Signatures = append(env.Signatures, sig)
	}
	return env
}

func TestFollowChain(t *testing.T) {
	g := genesis(t, 1)
	a := ct.Next(g.Map)
	ct.SetVoters(a, 2)
	b := ct.Next(a)
	ct.SetVoters(b, 3)
	c := ct.Next(b)
	ea, eb, ec := ct.Seal(a, 1, 2), ct.Seal(b, 2, 3), ct.Seal(c, 3)
	junk := ct.Seal(c, 9)
	for name, x := range map[string]struct {
		envs []candmap.Envelope
		want int // how many are taken
		code cluster.Code
	}{
		"whole":                   {[]candmap.Envelope{ea, eb, ec}, 3, ""},
		"known before":            {[]candmap.Envelope{g.Envelope, ea, eb, ec}, 3, ""},
		"given twice":             {[]candmap.Envelope{ea, ea, eb, ea, ec, ec}, 3, ""},
		"link missing":            {[]candmap.Envelope{ea, ec}, 1, cluster.CodeBadSignature},
		"wrong order":             {[]candmap.Envelope{ec, ea}, 1, ""},
		"junk between":            {[]candmap.Envelope{ea, junk, eb}, 2, ""},
		"junk at the end":         {[]candmap.Envelope{ea, junk}, 1, cluster.CodeBadSignature},
		"nothing":                 {nil, 0, ""},
		"more than one may bring": {slices.Repeat([]candmap.Envelope{ea}, candmap.MaxChain+1), 0, cluster.CodeTooLarge},
	} {
		v, taken, err := candmap.FollowChain(g, x.envs)
		if len(taken) != x.want || cluster.CodeOf(err) != x.code {
			t.Errorf("%s: took %d, %v, want %d, code %q", name, len(taken), err, x.want, x.code)
		}
		if want := g.At().Version + uint64(x.want); v.Version != want {
			t.Errorf("%s: reached %s, want version %d", name, v.At(), want)
		}
	}
	if _, _, err := candmap.FollowChain(g, []candmap.Envelope{g.Envelope}); !errors.Is(err, candmap.ErrKnown) {
		t.Errorf("known alone: %v, want ErrKnown", err)
	}
}

func TestVerifyBeacon(t *testing.T) {
	g := genesis(t, 1, 2, 3)
	next := ct.Next(g.Map)
	held, err := candmap.Follow(g, ct.Seal(next, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	other := ct.Next(g.Map)
	other.LeaseSeconds = 77
	foreign := ct.Next(g.Map)
	foreign.Cluster = ct.NodeID(9)
	for name, c := range map[string]struct {
		env  candmap.Envelope
		want cluster.Code
	}{
		"current":         {ct.Beacon(next, ct.Epoch0, 2, 3), ""},
		"later":           {ct.Beacon(ct.Next(next), ct.Epoch0, 2, 3), ""},
		"older":           {ct.Beacon(g.Map, ct.Epoch0, 1, 2, 3), cluster.CodeMapOlder},
		"minority":        {ct.Beacon(next, ct.Epoch0, 2, 4, 5), cluster.CodeBadSignature},
		"unsigned":        {ct.Beacon(next, ct.Epoch0), cluster.CodeBadSignature},
		"fork":            {ct.Beacon(other, ct.Epoch0, 1, 2), cluster.CodeMapFork},
		"another cluster": {ct.Beacon(foreign, ct.Epoch0, 1, 2), cluster.CodeBadSignature},
		"a map":           {ct.Seal(next, 1, 2), cluster.CodeBadFormat},
	} {
		b, err := candmap.VerifyBeacon(held, c.env)
		if cluster.CodeOf(err) != c.want || (err == nil) != (b != nil) {
			t.Errorf("%s: %v, want code %q", name, err, c.want)
		}
	}
}

func TestSignedBytesAreNotParsedBeforeTheyVerify(t *testing.T) {
	g := genesis(t, 1)
	env := ct.SealBytes(candmap.MapType, []byte("no JSON"), 2)
	if _, err := candmap.Follow(g, env); cluster.CodeOf(err) != cluster.CodeBadSignature {
		t.Errorf("Follow = %v, want bad_signature and not a word on the format", err)
	}
	env = ct.SealBytes(candmap.MapType, []byte("no JSON"), 1)
	if _, err := candmap.Follow(g, env); cluster.CodeOf(err) != cluster.CodeBadFormat {
		t.Errorf("Follow = %v, want bad_format", err)
	}
}

func TestVerifiedLookups(t *testing.T) {
	m := ct.Map(1, 2)
	m.Candidates[1].Client = append(m.Candidates[1].Client, ct.Pin("new client", 2))
	v, err := candmap.Genesis(ct.Seal(m, 1, 2), ct.Seal(m).Hash())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Candidates[1].Client {
		if c := v.ByClient(d); c == nil || c.UUID != ct.NodeID(2) {
			t.Errorf("ByClient(%s) = %v", d.Short(), c)
		}
	}
	if v.ByClient(ct.Pin("client", 3)) != nil || v.Candidate(ct.NodeID(3)) != nil {
		t.Error("a node was found that is not there")
	}
	if c := v.Candidate(ct.NodeID(1)); c == nil || c.Name != ct.Name(1) {
		t.Errorf("Candidate(1) = %v", c)
	}
	digest, id := m.Candidates[1].Client[1], ct.NodeID(2)
	if n := testing.AllocsPerRun(100, func() { _, _ = v.ByClient(digest), v.Candidate(id) }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

// genesis is the verified first map with these voters, signed by all.
func genesis(t testing.TB, voters ...int) *candmap.Verified {
	t.Helper()
	env := ct.Seal(ct.Map(voters...), voters...)
	v, err := candmap.Genesis(env, env.Hash())
	if err != nil {
		t.Fatal(err)
	}
	return v
}
