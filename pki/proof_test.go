package pki

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"testing"

	"rolekey/cluster"
)

// hexBytes are bytes that a vector writes in hex.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	raw, err := hex.DecodeString(s)
	*h = raw
	return err
}

type proofVector struct {
	Cluster    cluster.UUID   `json:"cluster"`
	Record     cluster.UUID   `json:"record"`
	Name       cluster.Name   `json:"name"`
	Request    cluster.Digest `json:"request"`
	Exporter   hexBytes       `json:"exporter"`
	Seed       hexBytes       `json:"seed"`
	Transcript hexBytes       `json:"transcript"`
	Signature  hexBytes       `json:"signature"`
}

func (v proofVector) claim() Claim {
	return Claim{v.Cluster, v.Record, v.Name, v.Request, [ExporterSize]byte(v.Exporter)}
}

func public(seed []byte) ed25519.PublicKey {
	pub, _ := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	return pub
}

func TestProofVectors(t *testing.T) {
	for _, v := range readVectors[proofVector](t, "testdata/proofs.json") {
		if !bytes.Equal(v.claim().transcript(), v.Transcript) {
			t.Errorf("transcript %x, want %x", v.claim().transcript(), v.Transcript)
		}
		sig := must(Prove(cluster.NewSecret(v.Seed), v.claim()))(t)
		if !bytes.Equal(sig, v.Signature) {
			t.Errorf("signature %x, want %x", sig, v.Signature)
		}
		if err := CheckProof(public(v.Seed), v.claim(), v.Signature); err != nil {
			t.Error(err)
		}
	}
}

// A proof is worth nothing for any other claim, key or purpose.
func TestProofIsForOneClaim(t *testing.T) {
	v := readVectors[proofVector](t, "testdata/proofs.json")[0]
	pub := public(v.Seed)
	for name, spoil := range map[string]func(c *Claim){
		"cluster":  func(c *Claim) { c.Cluster[0] ^= 1 },
		"record":   func(c *Claim) { c.Record[15] ^= 1 },
		"name":     func(c *Claim) { c.Name += "x" },
		"request":  func(c *Claim) { c.Request[0] ^= 1 },
		"exporter": func(c *Claim) { c.Exporter[31] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := v.claim()
			spoil(&c)
			wantCode(t, CheckProof(pub, c, v.Signature), cluster.CodeBadSignature)
		})
	}
	wantCode(t, CheckProof(public(bytes.Repeat([]byte{7}, 32)), v.claim(), v.Signature), cluster.CodeBadSignature)
	for _, sig := range [][]byte{nil, v.Signature[:63], append(bytes.Clone(v.Signature), 0)} {
		wantCode(t, CheckProof(pub, v.claim(), sig), cluster.CodeBadSignature)
	}
	bare := ed25519.Sign(ed25519.NewKeyFromSeed(v.Seed), v.Transcript[4+len(domainProof):])
	wantCode(t, CheckProof(pub, v.claim(), bare), cluster.CodeBadSignature)
	for _, key := range []ed25519.PublicKey{nil, pub[:31]} {
		wantCode(t, CheckProof(key, v.claim(), v.Signature), cluster.CodeBadSignature)
	}
	if _, err := Prove(cluster.Secret{}, v.claim()); err == nil {
		t.Error("proved without a seed")
	}
}

// Moving a byte over a border between fields changes the transcript.
func TestTranscriptIsInjective(t *testing.T) {
	seen := map[string][]string{}
	for _, fields := range [][]string{{"ab", "c"}, {"a", "bc"}, {"abc"}, {"abc", ""}, {"", "abc"}, {"a", "b", "c"}, {"", "\x00\x00\x00\x03abc"}} {
		var raw [][]byte
		for _, f := range fields {
			raw = append(raw, []byte(f))
		}
		key := string(transcript("d", raw...))
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have one transcript", fields, other)
		}
		seen[key] = fields
	}
}

type possessionVector struct {
	Cluster     cluster.UUID   `json:"cluster"`
	Node        cluster.NodeID `json:"node"`
	Incarnation uint64         `json:"incarnation"`
	Seed        hexBytes       `json:"seed"`
	Public      hexBytes       `json:"public"`
	Transcript  hexBytes       `json:"transcript"`
	Signature   hexBytes       `json:"signature"`
}

func TestPossessionVectors(t *testing.T) {
	for _, v := range readVectors[possessionVector](t, "testdata/possession.json") {
		pub := ed25519.PublicKey(v.Public)
		if got := possession(pub, v.Cluster, v.Node, v.Incarnation); !bytes.Equal(got, v.Transcript) {
			t.Errorf("transcript %x, want %x", got, v.Transcript)
		}
		sig := must(ProvePossession(ed25519.NewKeyFromSeed(v.Seed), v.Cluster, v.Node, v.Incarnation))(t)
		if !bytes.Equal(sig, v.Signature) {
			t.Errorf("signature %x, want %x", sig, v.Signature)
		}
		if err := CheckPossession(pub, v.Cluster, v.Node, v.Incarnation, v.Signature); err != nil {
			t.Error(err)
		}
	}
}

// G3: nobody enters another's key, or an old one of his own.
func TestG3PossessionIsForOneIncarnation(t *testing.T) {
	v := readVectors[possessionVector](t, "testdata/possession.json")[0]
	pub, other := ed25519.PublicKey(v.Public), public(bytes.Repeat([]byte{7}, 32))
	for name, err := range map[string]error{
		"cluster":     CheckPossession(pub, testNode, v.Node, v.Incarnation, v.Signature),
		"node":        CheckPossession(pub, v.Cluster, testCluster, v.Incarnation, v.Signature),
		"incarnation": CheckPossession(pub, v.Cluster, v.Node, v.Incarnation+1, v.Signature),
		"key":         CheckPossession(other, v.Cluster, v.Node, v.Incarnation, v.Signature),
		"no key":      CheckPossession(nil, v.Cluster, v.Node, v.Incarnation, v.Signature),
		"signature":   CheckPossession(pub, v.Cluster, v.Node, v.Incarnation, nil),
		// The point of order one, under which R = B, S = 1 verifies for all
		// messages in plain Ed25519.
		"weak key": CheckPossession(weakKey(), v.Cluster, v.Node, v.Incarnation, weakSignature()),
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, err, cluster.CodeBadSignature) })
	}
	if !ed25519.Verify(weakKey(), []byte("any message"), weakSignature()) {
		t.Error("the weak signature does not even verify in plain Ed25519: the test proves nothing")
	}
	if _, err := ProvePossession(nil, v.Cluster, v.Node, 1); err == nil {
		t.Error("proved without a key")
	}
}

func weakKey() ed25519.PublicKey { return append([]byte{1}, make([]byte, 31)...) }

// weakSignature is the base point, then the scalar 1.
func weakSignature() []byte {
	base := append([]byte{0x58}, bytes.Repeat([]byte{0x66}, 31)...)
	return append(base, append([]byte{1}, make([]byte, 31)...)...)
}
