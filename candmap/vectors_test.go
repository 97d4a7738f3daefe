package candmap_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

var update = flag.Bool("update", false, "write the vectors again")

// vectors is the whole of testdata/vectors.json: everything that another
// implementation needs to check itself. Texts are exact: payloads and
// envelopes are to be taken byte for byte.
type vectors struct {
	Keys    []keyVector    `json:"keys"`
	PAE     []paeVector    `json:"pae"`
	Maps    []docVector    `json:"maps"`
	Beacons []docVector    `json:"beacons"`
	Genesis []verifyVector `json:"genesis"`
	Follow  []verifyVector `json:"follow"`
	Beacon  []verifyVector `json:"beacon"`
	Roster  rosterVector   `json:"roster"`
	Roster2 rosterVector   `json:"roster2"` // format 2
}

type keyVector struct {
	Seed   string         `json:"seed"` // hex, RFC 8032
	Public string         `json:"public"`
	KeyID  cluster.Digest `json:"keyid"`
}

type paeVector struct {
	Type    string `json:"type"`
	Payload string `json:"payload"`
	PAE     string `json:"pae"`
}

// docVector is a payload and what decoding it yields: "ok" or a code.
type docVector struct {
	Name    string         `json:"name"`
	Payload string         `json:"payload"`
	Hash    cluster.Digest `json:"hash"`
	Want    string         `json:"want"`
}

// verifyVector is an envelope that is offered to a receiver. Held is the
// receiver's map; for a genesis, Pin is what it was told instead.
type verifyVector struct {
	Name         string         `json:"name"`
	Held         string         `json:"held,omitempty"`
	Pin          cluster.Digest `json:"pin,omitzero"`
	TrustExpired bool           `json:"trust_expired,omitempty"`
	Offered      string         `json:"offered"`
	Want         string         `json:"want"` // "ok", "known", or a code
}

type rosterVector struct {
	Hash    cluster.Digest `json:"hash"`
	Index   string         `json:"index"`
	Buckets []string       `json:"buckets"`
	Names   []cluster.Name `json:"names"` // of its nodes, sorted by UUID
}

func makeVectors(t *testing.T) vectors {
	v := vectors{
		PAE:     []paeVector{pae("http://example.com/HelloWorld", "hello world"), pae("", ""), pae(candmap.BeaconType, "{}")},
		Maps:    mapVectors(t),
		Beacons: beaconVectors(t),
		Genesis: genesisVectors(),
		Follow:  followVectors(t),
		Beacon:  beaconVerifyVectors(t),
	}
	for n := 1; n <= 9; n++ {
		k := ct.Key(n)
		v.Keys = append(v.Keys, keyVector{hex.EncodeToString(k.Seed()), hex.EncodeToString(ct.Public(n)), candmap.KeyIDOf(ct.Public(n).Public())})
	}
	v.Roster, v.Roster2 = makeRosterVector(t, ct.Roster(1, 2, 3)), makeRosterVector(t, settled(t, 1, 2, 3))
	return v
}

func makeRosterVector(t *testing.T, r *candmap.Roster) rosterVector {
	v := rosterVector{Hash: r.Hash(), Index: string(r.Index())}
	ri, err := candmap.ParseRosterIndex(r.Index(), r.Hash())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range ri.Missing(func(cluster.Digest) bool { return false }) {
		v.Buckets = append(v.Buckets, string(r.Docs()[d]))
	}
	for _, n := range r.Nodes() {
		v.Names = append(v.Names, n.Name)
	}
	return v
}

func pae(payloadType, payload string) paeVector {
	return paeVector{payloadType, payload, string(candmap.PAE(payloadType, []byte(payload)))}
}

func doc(name, payload, want string) docVector {
	return docVector{name, payload, cluster.DigestOf([]byte(payload)), want}
}

func mapVectors(t *testing.T) []docVector {
	m := ct.Map(1, 2, 3)
	ct.SetRecovery(m, 2, 7, 8, 9)
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	change := func(name, old, new string) docVector {
		s := strings.Replace(good, old, new, 1)
		if s == good {
			t.Fatalf("%s: %q is not in the map", name, old)
		}
		return doc(name, s, "bad_format")
	}
	return []docVector{
		doc("three voters and recovery", good, "ok"),
		change("unknown member", `{`, `{"colour":"red",`),
		change("member twice", `"epoch":1`, `"epoch":1,"epoch":1`),
		change("member in other case", `"epoch"`, `"Epoch"`),
		change("white space", `,`, `, `),
		change("time without milliseconds", `05.000Z`, `05Z`),
		change("number as float", `"epoch":1`, `"epoch":1.0`),
		change("escape", `"strict"`, `"stric\u0074"`),
		change("upper-case digits", `aaaaaaaa-`, `AAAAAAAA-`),
		change("name that is a pattern", `"node1.example.com"`, `"*"`),
		change("one address twice", `"192.0.0.2"`, `"192.0.0.1"`),
		change("open to the world", `"192.0.0.1/32"`, `"0.0.0.0/0"`),
		change("threshold above the keys", `"threshold":2`, `"threshold":4`),
		change("epoch 0", `"epoch":1`, `"epoch":0`),
		change("version 2 without previous", `"version":1`, `"version":2`),
		doc("trailing byte", good+"\n", "bad_format"),
		doc("nothing", "", "bad_format"),
	}
}

func beaconVectors(t *testing.T) []docVector {
	b := candmap.Beacon{Cluster: ct.Cluster, Epoch: 1, Version: 1, Map: ct.Seal(ct.Map(1)).Hash(), Time: ct.Epoch0}
	p, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return []docVector{
		doc("beacon", string(p), "ok"),
		doc("no time", strings.Replace(string(p), `"time":"2026`, `"time":"1926`, 1), "bad_format"),
		doc("version 0", strings.Replace(string(p), `"version":1`, `"version":0`, 1), "bad_format"),
	}
}

func genesisVectors() []verifyVector {
	m := ct.Map(1, 2, 3)
	env := ct.Seal(m, 1, 2)
	later := env
	later.PayloadType = "application/vnd.rolekey.map.v2+json"
	twice := ct.Seal(m, 1)
	twice.Signatures = append(twice.Signatures, twice.Signatures[0])
	v := func(name string, pin cluster.Digest, env candmap.Envelope, want string) verifyVector {
		return verifyVector{Name: name, Pin: pin, Offered: string(env.Encode()), Want: want}
	}
	return []verifyVector{
		v("pinned", env.Hash(), env, "ok"),
		v("another pin", ct.Pin("map", 1), env, "bad_signature"),
		v("one of three voters", env.Hash(), ct.Seal(m, 1), "bad_signature"),
		v("one voter twice", env.Hash(), twice, "bad_format"),
		v("17 signatures", env.Hash(), manySignatures(env), "too_large"),
		v("a later format", env.Hash(), later, "unsupported_format"),
	}
}

// offers builds verify vectors against one held map.
type offers struct {
	held *candmap.Verified
	list []verifyVector
}

func (o *offers) add(name, want string, env candmap.Envelope) {
	o.list = append(o.list, verifyVector{Name: name, Held: string(o.held.Envelope.Encode()), Offered: string(env.Encode()), Want: want})
}

func (o *offers) changed(name, want string, change func(m *candmap.Map), signers ...int) {
	m := ct.Next(o.held.Map)
	change(m)
	o.add(name, want, ct.Seal(m, signers...))
}

func followVectors(t *testing.T) []verifyVector {
	g := ct.Map(1, 2, 3)
	ct.SetRecovery(g, 2, 7, 8, 9)
	env := ct.Seal(g, 1, 2)
	held, err := candmap.Genesis(env, env.Hash())
	if err != nil {
		t.Fatal(err)
	}
	o := &offers{held: held}
	same := func(*candmap.Map) {}
	voters := func(ns ...int) func(m *candmap.Map) { return func(m *candmap.Map) { ct.SetVoters(m, ns...) } }
	raise := func(m *candmap.Map) { m.Epoch++; ct.SetVoters(m, 3) }
	o.changed("next version", "ok", same, 1, 3)
	o.changed("version skipped", "ok", func(m *candmap.Map) { m.Version, m.Previous = 9, ct.Pin("map", 8) }, 2, 3)
	o.changed("other previous", "map_fork", func(m *candmap.Map) { m.Previous = ct.Pin("map", 1) }, 2, 3)
	o.changed("minority", "bad_signature", same, 2)
	o.changed("strangers", "bad_signature", same, 2, 4, 5, 6)
	o.changed("new voters, both majorities", "ok", voters(1, 4, 5), 1, 2, 5)
	o.changed("new voters, old majority only", "bad_signature", voters(1, 4, 5), 1, 2)
	o.changed("new voters, new majority only", "bad_signature", voters(1, 4, 5), 1, 4, 5)
	o.changed("epoch raised by recovery", "ok", raise, 3, 7, 9)
	o.changed("epoch raised by too few recovery keys", "bad_signature", raise, 3, 7)
	o.changed("epoch raised without the new voter", "bad_signature", raise, 7, 8, 9)
	o.changed("epoch raised by the majority", "bad_signature", raise, 1, 2, 3)
	o.changed("recovery changed with the old keys", "ok", func(m *candmap.Map) { ct.SetRecovery(m, 1, 6) }, 1, 2, 7, 8)
	o.changed("recovery changed without them", "bad_signature", func(m *candmap.Map) { ct.SetRecovery(m, 1, 6) }, 1, 2, 3)
	o.changed("another cluster", "bad_signature", func(m *candmap.Map) { m.Cluster = ct.NodeID(9) }, 1, 2)
	o.add("the map that is held, other signatures", "known", ct.Seal(g, 3))
	fork := ct.Map(1, 2, 3)
	o.add("another map for the version that is held", "map_fork", ct.Seal(fork, 1, 2, 7, 8))
	for i := range 2 { // the same with trust expired
		c := o.list[map[int]int{0: 0, 1: 5}[i]]
		c.Name, c.TrustExpired = c.Name+", trust expired", true
		c.Want = map[int]string{0: "ok", 1: "trust_expired"}[i]
		o.list = append(o.list, c)
	}
	next, err := candmap.Follow(held, ct.Seal(ct.Next(g), 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	o.held = next
	o.add("an older version", "map_older", env)
	return o.list
}

func beaconVerifyVectors(t *testing.T) []verifyVector {
	o := &offers{held: genesis(t, 1, 2, 3)}
	m := o.held.Map
	other := ct.Map(1, 2, 3)
	other.LeaseSeconds = 60
	o.add("current", "ok", ct.Beacon(m, ct.Epoch0, 1, 2))
	o.add("of a later version", "ok", ct.Beacon(ct.Next(m), ct.Epoch0, 1, 2))
	o.add("minority", "bad_signature", ct.Beacon(m, ct.Epoch0, 1, 4, 5))
	o.add("of another map with that version", "map_fork", ct.Beacon(other, ct.Epoch0, 1, 2))
	o.add("a map", "bad_format", ct.Seal(m, 1, 2))
	return o.list
}

const vectorFile = "testdata/vectors.json"

func TestVectorsAreCurrent(t *testing.T) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(makeVectors(t)); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(vectorFile), 0o755), os.WriteFile(vectorFile, b.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(vectorFile); err != nil || !bytes.Equal(got, b.Bytes()) {
		t.Errorf("the format changed (%v): a new format needs a new number, not new vectors", err)
	}
}

// TestVectors uses the file alone, as another implementation would.
func TestVectors(t *testing.T) {
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	for _, p := range v.PAE {
		if got := string(candmap.PAE(p.Type, []byte(p.Payload))); got != p.PAE {
			t.Errorf("PAE of %q is %q", p.Payload, got)
		}
	}
	for _, d := range v.Maps {
		_, err := candmap.DecodeMap([]byte(d.Payload))
		checkOutcome(t, d.Name, err, d.Want)
	}
	for _, d := range v.Beacons {
		_, err := candmap.DecodeBeacon([]byte(d.Payload))
		checkOutcome(t, d.Name, err, d.Want)
	}
	for _, c := range v.Genesis {
		env, err := candmap.ParseEnvelope([]byte(c.Offered))
		if err == nil {
			_, err = candmap.Genesis(env, c.Pin)
		}
		checkOutcome(t, c.Name, err, c.Want)
	}
	for _, c := range v.Follow {
		held, env := c.parse(t)
		_, err := candmap.FollowAged(held, env, c.TrustExpired)
		checkOutcome(t, c.Name, err, c.Want)
	}
	for _, c := range v.Beacon {
		held, env := c.parse(t)
		_, err := candmap.VerifyBeacon(held, env)
		checkOutcome(t, c.Name, err, c.Want)
	}
	v.Roster.check(t)
	v.Roster2.check(t)
}

func (c verifyVector) parse(t *testing.T) (*candmap.Verified, candmap.Envelope) {
	t.Helper()
	h, err1 := candmap.ParseEnvelope([]byte(c.Held))
	env, err2 := candmap.ParseEnvelope([]byte(c.Offered))
	held, err3 := candmap.Genesis(h, h.Hash())
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	return held, env
}

func (r rosterVector) check(t *testing.T) {
	t.Helper()
	docs := map[cluster.Digest][]byte{r.Hash: []byte(r.Index)}
	for _, b := range r.Buckets {
		docs[cluster.DigestOf([]byte(b))] = []byte(b)
	}
	roster, err := candmap.AssembleRoster(r.Hash, func(d cluster.Digest) []byte { return docs[d] })
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range roster.Nodes() {
		if n.Name != r.Names[i] {
			t.Errorf("node %d is %s, want %s", i, n.Name, r.Names[i])
		}
	}
}

func checkOutcome(t *testing.T, name string, err error, want string) {
	t.Helper()
	got := string(cluster.CodeOf(err))
	switch {
	case err == nil:
		got = "ok"
	case errors.Is(err, candmap.ErrKnown):
		got = "known"
	}
	if got != want {
		t.Errorf("%s: got %s (%v), want %s", name, got, err, want)
	}
}
