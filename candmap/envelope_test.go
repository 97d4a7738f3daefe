package candmap_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

// The example of the DSSE v1 specification.
func TestPAE(t *testing.T) {
	got := candmap.PAE("http://example.com/HelloWorld", []byte("hello world"))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; string(got) != want {
		t.Errorf("PAE = %q, want %q", got, want)
	}
	if got := candmap.PAE("", nil); string(got) != "DSSEv1 0  0 " {
		t.Errorf("PAE of nothing = %q", got)
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	for name, env := range map[string]candmap.Envelope{
		"map":      ct.Seal(ct.Map(1, 2, 3), 1, 2),
		"beacon":   ct.Beacon(ct.Map(1), ct.Epoch0, 1),
		"unsigned": ct.Seal(ct.Map(1)),
	} {
		b := env.Encode()
		got, err := candmap.ParseEnvelope(b)
		if err != nil || !bytes.Equal(got.Encode(), b) || got.Hash() != env.Hash() {
			t.Errorf("%s: ParseEnvelope = %v", name, err)
		}
	}
}

func TestParseEnvelopeIsStrict(t *testing.T) {
	good := string(ct.Beacon(ct.Map(1), ct.Epoch0, 1, 2).Encode())
	change := func(old, new string) string {
		s := strings.Replace(good, old, new, 1)
		if s == good {
			t.Fatalf("%q is not in the envelope", old)
		}
		return s
	}
	two := ct.Beacon(ct.Map(1), ct.Epoch0, 1)
	two.Signatures = append(two.Signatures, two.Signatures[0])
	short := ct.Beacon(ct.Map(1), ct.Epoch0, 1)
	short.Signatures = []candmap.Signature{{KeyID: short.Signatures[0].KeyID, Sig: short.Signatures[0].Sig[:63]}}
	big := ct.Seal(ct.Map(1), 1)
	big.Payload = make([]byte, candmap.MaxMapPayload+1)
	for name, c := range map[string]struct {
		in   string
		want cluster.Code
	}{
		"empty":               {"", cluster.CodeBadFormat},
		"null":                {"null", cluster.CodeBadFormat},
		"array":               {"[]", cluster.CodeBadFormat},
		"unknown member":      {change(`{`, `{"x":1,`), cluster.CodeBadFormat},
		"member twice":        {change(`{`, `{"payload":"",`), cluster.CodeBadFormat},
		"other case":          {change(`"payload"`, `"Payload"`), cluster.CodeBadFormat},
		"trailing bytes":      {good + "{}", cluster.CodeBadFormat},
		"trailing newline":    {good + "\n", cluster.CodeBadFormat},
		"white space":         {change(`,`, `, `), cluster.CodeBadFormat},
		"member missing":      {`{"payloadType":"` + candmap.MapType + `","payload":""}`, cluster.CodeBadFormat},
		"null signatures":     {`{"payloadType":"` + candmap.MapType + `","payload":"","signatures":null}`, cluster.CodeBadFormat},
		"escaped type":        {change(`application`, `\u0061pplication`), cluster.CodeBadFormat},
		"upper-case key id":   {change(`"keyid":"`, `"keyid":"A`), cluster.CodeBadFormat},
		"foreign type":        {change(candmap.BeaconType, "text/plain"), cluster.CodeBadFormat},
		"deep":                {strings.Repeat("[", 1000), cluster.CodeBadFormat},
		"one key twice":       {string(two.Encode()), cluster.CodeBadFormat},
		"short signature":     {string(short.Encode()), cluster.CodeBadFormat},
		"too many signatures": {string(manySignatures(two).Encode()), cluster.CodeTooLarge},
		"payload too large":   {string(big.Encode()), cluster.CodeTooLarge},
		"too large":           {strings.Repeat(" ", candmap.MaxEnvelope+1), cluster.CodeTooLarge},
		"very many values":    {`{"signatures":[` + strings.Repeat("{},", 9999) + `{}]}`, cluster.CodeTooLarge},
	} {
		if _, err := candmap.ParseEnvelope([]byte(c.in)); cluster.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want code %s", name, err, c.want)
		}
	}
}

func TestParseErrorsDoNotEcho(t *testing.T) {
	_, err := candmap.ParseEnvelope([]byte(`{"` + strings.Repeat("x", 100_000) + `":1}`))
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("the message has %d bytes", len(err.Error()))
	}
}

func TestSigners(t *testing.T) {
	env := ct.Seal(ct.Map(1), 1, 2, 3)
	keys := func(ns ...int) (ks []candmap.SigningKey) {
		for _, n := range ns {
			ks = append(ks, ct.Public(n))
		}
		return ks
	}
	for _, c := range []struct {
		keys []candmap.SigningKey
		want int
	}{
		{nil, 0},
		{keys(4, 5), 0},
		{keys(1), 1},
		{keys(1, 2, 3, 4), 3},
		{keys(2, 2, 2), 1},
		{[]candmap.SigningKey{nil, {1, 2}}, 0},
	} {
		if got := env.Signers(c.keys); got != c.want {
			t.Errorf("Signers of %d keys = %d, want %d", len(c.keys), got, c.want)
		}
	}
	flipped := env
	flipped.Payload = append([]byte{}, env.Payload...)
	flipped.Payload[10] ^= 1
	retyped := env
	retyped.PayloadType = candmap.BeaconType
	for name, e := range map[string]candmap.Envelope{"payload": flipped, "type": retyped, "limit": manySignatures(env)} {
		if n := e.Signers(keys(1, 2, 3)); n != 0 {
			t.Errorf("after a change of the %s %d signatures still count", name, n)
		}
	}
}

func TestMerge(t *testing.T) {
	a, b := ct.Seal(ct.Map(1), 1), ct.Seal(ct.Map(1), 1, 2)
	m := candmap.Merge(a, b.Signatures...)
	if len(m.Signatures) != 2 || len(a.Signatures) != 1 {
		t.Errorf("merged %d signatures, and the argument has %d", len(m.Signatures), len(a.Signatures))
	}
	if full := candmap.Merge(a, manySignatures(a).Signatures...); len(full.Signatures) != candmap.MaxSignatures {
		t.Errorf("merged %d signatures, the limit is %d", len(full.Signatures), candmap.MaxSignatures)
	}
}

func TestSignWantsEd25519(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := candmap.Sign(k, candmap.MapType, nil); err == nil {
		t.Error("an ECDSA key signed")
	}
}

// The limit of a gossip message is 1363 bytes.
func TestBeaconWithABareMajorityFitsGossip(t *testing.T) {
	if n := len(ct.Beacon(ct.Map(1), ct.Epoch0, 1, 2, 3, 4).Encode()); n > 1363 {
		t.Errorf("a beacon of four signatures has %d bytes", n)
	}
}
