package sshkeys

import (
	"bytes"
	"crypto/hpke"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"rolekey/cluster"
)

// TestSealedKey: only who made the recipient key opens it, and only for what it
// was sealed for.
func TestSealedKey(t *testing.T) {
	text, key := made(t, "ed25519", 0)
	_, other := made(t, "ed25519", 0)
	r, err := NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	c := SealContext{Cluster: cluster.UUID{1}, Node: cluster.NodeID{2}, Incarnation: 3, Key: key}
	sealed, err := Seal(text, r.Public(), c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Open(sealed, c)
	if err != nil || !bytes.Equal(got.Reveal(), text.Reveal()) {
		t.Fatalf("open: %v", err)
	}
	wrong := map[string]SealContext{
		"cluster": {cluster.UUID{9}, c.Node, c.Incarnation, key}, "node": {c.Cluster, cluster.NodeID{9}, c.Incarnation, key},
		"incarnation": {c.Cluster, c.Node, 4, key}, "key": {c.Cluster, c.Node, c.Incarnation, other},
	}
	for what, c := range wrong {
		if _, err := r.Open(sealed, c); err == nil {
			t.Errorf("it opens for another %s", what)
		}
	}
	again, err := NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Open(sealed, c); err == nil {
		t.Error("another run opens it")
	}
	if _, err := r.Open(append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1), c); err == nil || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("a changed one opens: %v", err)
	}
	swapped, err := Seal(text, r.Public(), wrong["key"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(swapped, wrong["key"]); err == nil {
		t.Error("a private half of another key is taken")
	}
	if _, err := Seal(text, []byte("short"), c); err == nil {
		t.Error("a recipient that is none")
	}
}

// TestSealInfo is the vector of docs/ssh.rst.
func TestSealInfo(t *testing.T) {
	c := SealContext{Cluster: cluster.UUID{0xaa}, Node: cluster.NodeID{0xbb}, Incarnation: 7, Key: cluster.SSHKey{Type: "ssh-ed25519", Blob: []byte("blob")}}
	const want = "00000019" + "726f6c656b65792073686172656420737368206b6579207631" +
		"00000010aa000000000000000000000000000000" + "00000010bb000000000000000000000000000000" + "000000080000000000000007" +
		"00000020fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8"
	if text := hex.EncodeToString(c.info()); text != want {
		t.Errorf("info: %s", text)
	}
}

// sealVector is one sealing; docs/ssh.rst says how it comes about.
type sealVector struct {
	Cluster     cluster.UUID   `json:"cluster"`
	Node        cluster.NodeID `json:"node"`
	Incarnation uint64         `json:"incarnation"`
	Key         cluster.SSHKey `json:"key"`
	Private     string         `json:"private"`           // the plain text
	Recipient   string         `json:"recipient_private"` // X25519, in hexadecimal
	Public      string         `json:"recipient"`
	Info        string         `json:"info"`
	Sealed      string         `json:"sealed"`
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func recipientOf(t testing.TB, private []byte) *Recipient {
	t.Helper()
	key, err := kem().NewPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &Recipient{func() hpke.PrivateKey { return key }}
}

func TestSealVector(t *testing.T) {
	var v sealVector
	if err := json.Unmarshal([]byte(readFile(t, "testdata/sealed.json")), &v); err != nil {
		t.Fatal(err)
	}
	c := SealContext{v.Cluster, v.Node, v.Incarnation, v.Key}
	r := recipientOf(t, unhex(t, v.Recipient))
	if got := hex.EncodeToString(c.info()); got != v.Info {
		t.Errorf("info is %s", got)
	}
	if got := hex.EncodeToString(r.Public()); got != v.Public {
		t.Errorf("recipient is %s", got)
	}
	if text, err := r.Open(unhex(t, v.Sealed), c); err != nil || string(text.Reveal()) != v.Private {
		t.Errorf("opened: %v", err)
	}
}

// TestG6SealedKeyIsWhole changes every byte, and cuts it.
func TestG6SealedKeyIsWhole(t *testing.T) {
	text, key := made(t, "ed25519", 0)
	r, err := NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	c := SealContext{ourID, nodeA, 1, key}
	sealed, err := Seal(text, r.Public(), c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := r.Open(bad, c); err == nil {
			t.Errorf("byte %d is another, and it opens", i)
		}
		if _, err := r.Open(sealed[:i], c); err == nil {
			t.Errorf("it opens with %d bytes", i)
		}
	}
	for what, plain := range map[string][]byte{"nothing": nil, "no key": []byte("x"), "a huge one": make([]byte, maxKeyFile+1)} {
		bad, err := Seal(cluster.NewSecret(plain), r.Public(), c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Open(bad, c); err == nil {
			t.Errorf("%s is taken for a key", what)
		}
	}
}

// TestG6KeysAreNotPrinted tries what a careless line in a log would do.
func TestG6KeysAreNotPrinted(t *testing.T) {
	private := bytes.Repeat([]byte{0xa7}, 32)
	r := recipientOf(t, private)
	for _, x := range []any{r, *r, struct{ r *Recipient }{r}, []*Recipient{r}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			if out := fmt.Sprintf(verb, x); strings.Contains(out, "a7a7a7a7") || strings.Contains(out, "167 167") || strings.Contains(out, "0xa7, 0xa7") {
				t.Errorf("%s of %T shows a key: %.200s", verb, x, out)
			}
		}
	}
}

func FuzzOpenSealed(f *testing.F) {
	r := recipientOf(f, bytes.Repeat([]byte{1}, 32))
	f.Add([]byte(nil))
	f.Add(make([]byte, 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := r.Open(b, SealContext{ourID, nodeA, 1, fixedKey(1)}); err == nil {
			t.Error("opened")
		}
	})
}
