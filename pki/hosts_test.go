package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"rolekey/cluster"
)

type hostsVector struct {
	Kind       string          `json:"kind"` // of the signing key
	Seed       hexBytes        `json:"seed"` // of an Ed25519 key, whose signatures have one form
	Statement  json.RawMessage `json:"statement"`
	Transcript hexBytes        `json:"transcript"`
	Key        hexBytes        `json:"key"`
	Signature  hexBytes        `json:"signature"`
}

func (v hostsVector) signed() SignedHosts { return SignedHosts{v.Statement, v.Key, v.Signature} }

func hostKey(i byte) cluster.SSHKey {
	const kind = "ssh-ed25519"
	blob := append([]byte{0, 0, 0, byte(len(kind))}, kind...)
	return cluster.SSHKey{Type: kind, Blob: append(append(blob, 0, 0, 0, 32), bytes.Repeat([]byte{i}, 32)...)}
}

func testHosts() Hosts {
	return Hosts{
		Cluster: testCluster, Node: testNode, Incarnation: 3, Issued: testNow.Add(125 * time.Millisecond), Port: 2222,
		Keys: []cluster.SSHKey{hostKey(1), hostKey(2)},
	}
}

func TestHostsVectors(t *testing.T) {
	vectors := readVectors[hostsVector](t, "testdata/hosts.json")
	if len(vectors) != 2 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for _, v := range vectors {
		got := must(v.signed().Open([]cluster.Digest{cluster.DigestOf(v.Key)}))(t)
		want := testHosts()
		if !slices.EqualFunc(got.Keys, want.Keys, func(a, b cluster.SSHKey) bool { return CompareHostKeys(a, b) == 0 }) {
			t.Error("the keys are others")
		}
		if got.Keys, want.Keys = nil, nil; got.Node != want.Node || got.Cluster != want.Cluster || got.Incarnation != 3 || !got.Issued.Equal(want.Issued) || got.Port != 2222 {
			t.Errorf("%+v", got)
		}
		if !bytes.Equal(transcript(domainHosts, v.Statement), v.Transcript) {
			t.Errorf("transcript of %s", v.Kind)
		}
		if v.Kind != "ed25519" {
			continue
		}
		again := must(SignHosts(ed25519.NewKeyFromSeed(v.Seed), testHosts()))(t)
		if !bytes.Equal(again.Statement, v.Statement) || !bytes.Equal(again.Signature, v.Signature) || !bytes.Equal(again.Key, v.Key) {
			t.Errorf("signed again it is %s", again.Statement)
		}
	}
}

// A statement is worth nothing in another form, from another signer, or when it
// was signed for another purpose.
func TestHostsRefused(t *testing.T) {
	key := newKey(t)
	pin := must(PinOfKey(key.Public()))(t)
	good := must(SignHosts(key, testHosts()))(t)
	if _, err := good.Open([]cluster.Digest{{1}, pin}); err != nil {
		t.Fatal(err)
	}
	other := must(SignHosts(newKey(t), testHosts()))(t)
	for name, c := range map[string]struct {
		code  cluster.Code
		spoil func(s *SignedHosts)
	}{
		"another signer":          {cluster.CodeIdentityMismatch, func(s *SignedHosts) { *s = other }},
		"another's signature":     {cluster.CodeBadSignature, func(s *SignedHosts) { s.Signature = other.Signature }},
		"no signature":            {cluster.CodeBadSignature, func(s *SignedHosts) { s.Signature = nil }},
		"a changed statement":     {cluster.CodeBadSignature, func(s *SignedHosts) { s.Statement = bytes.Replace(s.Statement, []byte("2222"), []byte("2223"), 1) }},
		"white space":             {cluster.CodeBadSignature, func(s *SignedHosts) { s.Statement = append(s.Statement, '\n') }},
		"too large":               {cluster.CodeTooLarge, func(s *SignedHosts) { s.Statement = make([]byte, maxHosts+1) }},
		"a signature without end": {cluster.CodeTooLarge, func(s *SignedHosts) { s.Signature = make([]byte, maxSignature+1) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := SignedHosts{slices.Clone(good.Statement), slices.Clone(good.Key), slices.Clone(good.Signature)}
			c.spoil(&s)
			_, err := s.Open([]cluster.Digest{pin})
			wantCode(t, err, c.code)
		})
	}
	_, err := good.Open(nil)
	wantCode(t, err, cluster.CodeIdentityMismatch)
}

// What is signed is still refused when it is not what SignHosts writes.
func TestHostsForm(t *testing.T) {
	seed := bytes.Repeat([]byte{9}, ed25519.SeedSize)
	key := ed25519.NewKeyFromSeed(seed)
	der := must(x509.MarshalPKIXPublicKey(key.Public()))(t)
	open := func(statement []byte) error {
		s := SignedHosts{statement, der, ed25519.Sign(key, transcript(domainHosts, statement))}
		_, err := s.Open([]cluster.Digest{cluster.DigestOf(der)})
		return err
	}
	text := must(SignHosts(key, testHosts()))(t).Statement
	if err := open(text); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]string{
		{`"ssh_port"`, `"x":1,"ssh_port"`},
		{`"ssh_port":2222`, `"ssh_port":2222,"ssh_port":2222`},
		{`"ssh_port":2222`, `"ssh_port":0`},
		{`"incarnation":3`, `"incarnation":0`},
		{`"incarnation":3`, `"incarnation": 3`},
		{`.125Z`, `.1250Z`},
		{`.125Z`, `.1251Z`},
		{`.125Z`, `.125+00:00`},
		{`host-keys.v1`, `host-keys.v2`},
		{`"type":"application`, `"Type":"application`},
	} {
		spoiled := bytes.Replace(text, []byte(r[0]), []byte(r[1]), 1)
		if bytes.Equal(spoiled, text) {
			t.Errorf("%s is not in the statement", r[0])
		}
		wantCode(t, open(spoiled), cluster.CodeBadFormat)
	}
	wantCode(t, open(append(slices.Clone(text), text...)), cluster.CodeBadFormat)
	for name, spoil := range map[string]func(h *Hosts){
		"no key":     func(h *Hosts) { h.Keys = nil },
		"unsorted":   func(h *Hosts) { slices.Reverse(h.Keys) },
		"twice":      func(h *Hosts) { h.Keys[1] = h.Keys[0] },
		"too many":   func(h *Hosts) { h.Keys = slices.Repeat(h.Keys, MaxHostKeys) },
		"no node":    func(h *Hosts) { h.Node = cluster.NodeID{} },
		"local time": func(h *Hosts) { h.Issued = h.Issued.In(time.FixedZone("", 3600)) },
	} {
		h := testHosts()
		spoil(&h)
		if _, err := SignHosts(key, h); err == nil {
			t.Errorf("%s: it is signed", name)
		}
	}
}

// Whatever parses is canonical, and could have been signed by us.
func FuzzParseHosts(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	f.Add(must(SignHosts(key, testHosts()))(f).Statement)
	f.Add([]byte(`{"type":"` + HostsType + `","host_keys":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHosts(b)
		if err != nil {
			return
		}
		if again := must(SignHosts(key, h))(t); !bytes.Equal(again.Statement, b) {
			t.Fatalf("%s is signed as %s", b, again.Statement)
		}
	})
}
