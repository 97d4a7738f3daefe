package pki

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rolekey/cluster"
)

// tokenVector is one entry of testdata/tokens.json.
type tokenVector struct {
	Cluster    cluster.UUID     `json:"cluster"`
	Record     cluster.UUID     `json:"record"`
	Name       cluster.Name     `json:"name"`
	Candidates []netip.AddrPort `json:"candidates"`
	MapPin     cluster.Digest   `json:"map_pin"`
	Seed       []byte           `json:"seed"`
	Text       string           `json:"text"`
}

func (v tokenVector) fields() TokenFields {
	return TokenFields{v.Cluster, v.Record, v.Name, v.Candidates, v.MapPin, cluster.NewSecret(v.Seed)}
}

// sameFields compares, which secrets by themselves do not.
func sameFields(a, b TokenFields) bool {
	if !bytes.Equal(a.Seed.Reveal(), b.Seed.Reveal()) {
		return false
	}
	a.Seed, b.Seed = cluster.Secret{}, cluster.Secret{}
	return reflect.DeepEqual(a, b)
}

func readVectors[T any](t testing.TB, path string) []T {
	t.Helper()
	var vs []T
	if err := json.Unmarshal(must(os.ReadFile(path))(t), &vs); err != nil || len(vs) == 0 {
		t.Fatalf("%s: %d vectors, %v", path, len(vs), err)
	}
	return vs
}

func tokenVectors(t testing.TB) []tokenVector {
	return readVectors[tokenVector](t, "testdata/tokens.json")
}

func TestTokenVectors(t *testing.T) {
	for _, v := range tokenVectors(t) {
		made := must(NewToken(v.fields()))(t)
		if got := made.Encode(); got != v.Text {
			t.Errorf("%s encodes to\n%s, want\n%s", v.Name, got, v.Text)
		}
		read := must(ParseToken("\t " + v.Text + "\r\n"))(t)
		if !sameFields(read.Fields(), v.fields()) {
			t.Errorf("%s reads as %+v", v.Name, read.Fields())
		}
	}
}

// Every single typing error is detected: each character replaced by every
// other printable one (so also its other case), left out, doubled, or
// exchanged with its neighbour.
func TestTokenDetectsEverySlip(t *testing.T) {
	for _, v := range tokenVectors(t) {
		s := v.Text
		for i := range len(s) {
			head, tail := s[:i], s[i+1:]
			for c := byte(' '); c < 0x7f; c++ {
				if c != s[i] {
					refuseToken(t, v, head+string(c)+tail)
				}
				refuseToken(t, v, head+string(c)+s[i:])
			}
			refuseToken(t, v, head+tail)
			refuseToken(t, v, head+"\n"+s[i:])
			if i+1 < len(s) && s[i] != s[i+1] {
				refuseToken(t, v, head+s[i+1:i+2]+s[i:i+1]+s[i+2:])
			}
			refuseToken(t, v, head)
		}
		for _, bad := range []string{strings.ToUpper(s), strings.ToLower(s), s + s, s[1:], "\ufeff" + s} {
			refuseToken(t, v, bad)
		}
	}
}

// refuseToken expects bad, a damaged form of v, to be refused without telling
// anything of it. Whitespace at the ends is no damage.
func refuseToken(t *testing.T, v tokenVector, bad string) {
	t.Helper()
	if strings.Trim(bad, whitespace) == v.Text {
		return
	}
	_, err := ParseToken(bad)
	if err == nil {
		t.Fatalf("accepted %q for %q", bad, v.Text)
	}
	text := err.Error() + cluster.HintOf(err)
	if len(text) > 200 || strings.Contains(text, v.Text[4:12]) || len(v.Name) > 1 && strings.Contains(text, string(v.Name)) {
		t.Fatalf("the error tells: %s", text)
	}
	switch {
	case cluster.CodeOf(err) == cluster.CodeUnsupportedFormat && !strings.HasPrefix(bad, tokenPrefix):
	case cluster.CodeOf(err) != cluster.CodeBadFormat:
		t.Fatalf("code %q for %q", cluster.CodeOf(err), bad)
	case strings.HasPrefix(bad, tokenPrefix) && len(bad) > 12 && len(bad) < maxTokenText && !strings.Contains(text, "checksum"):
		t.Fatalf("%q is refused without naming the checksum: %v", bad, err)
	}
}

func TestTokenOtherFormats(t *testing.T) {
	for text, code := range map[string]cluster.Code{
		"":                          cluster.CodeBadFormat,
		" \n":                       cluster.CodeBadFormat,
		"rk1.":                      cluster.CodeBadFormat,
		"rk1.AAAAAAAA":              cluster.CodeBadFormat,
		"rk2.AAAAAAAAAAAA":          cluster.CodeUnsupportedFormat,
		"rk10.AAAAAAAAAAAA":         cluster.CodeUnsupportedFormat,
		"rk.AAAAAAAAAAAA":           cluster.CodeBadFormat,
		"K10AAAAA":                  cluster.CodeBadFormat,
		strings.Repeat("rk1.", 300): cluster.CodeBadFormat,
	} {
		_, err := ParseToken(text)
		wantCode(t, err, code)
	}
}

// A right checksum does not excuse wrong contents.
func TestTokenContents(t *testing.T) {
	good := tokenVectors(t)[0].fields()
	for name, spoil := range map[string]func(f *TokenFields){
		"cluster":      func(f *TokenFields) { f.Cluster = cluster.UUID{} },
		"record":       func(f *TokenFields) { f.Record[0] = 0; clear(f.Record[:]) },
		"name":         func(f *TokenFields) { f.Name = "*" },
		"no name":      func(f *TokenFields) { f.Name = "" },
		"no candidate": func(f *TokenFields) { f.Candidates = nil },
		"four":         func(f *TokenFields) { f.Candidates = fourCandidates() },
		"candidate 0":  func(f *TokenFields) { f.Candidates = []netip.AddrPort{{}} },
		"port 0":       func(f *TokenFields) { f.Candidates = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")} },
		"mapped address": func(f *TokenFields) {
			f.Candidates = []netip.AddrPort{netip.MustParseAddrPort("[::ffff:192.0.2.1]:1812")}
		},
		"candidate twice": func(f *TokenFields) {
			f.Candidates = []netip.AddrPort{good.Candidates[0], good.Candidates[0]}
		},
		"pin":        func(f *TokenFields) { f.MapPin = cluster.Digest{} },
		"no seed":    func(f *TokenFields) { f.Seed = cluster.NewSecret(make([]byte, 32)) },
		"short seed": func(f *TokenFields) { f.Seed = cluster.NewSecret(make([]byte, 31)) },
	} {
		t.Run(name, func(t *testing.T) {
			f := good
			spoil(&f)
			if _, err := NewToken(f); err == nil {
				t.Error("made")
			}
			text := tokenPrefix + tokenBase64.EncodeToString(f.payload())
			_, err := ParseToken(text + tokenSum(text))
			wantCode(t, err, cluster.CodeBadFormat)
		})
	}
	payload := append(good.payload(), 0)
	text := tokenPrefix + tokenBase64.EncodeToString(payload)
	_, err := ParseToken(text + tokenSum(text))
	wantCode(t, err, cluster.CodeBadFormat)
	text = tokenPrefix + tokenBase64.EncodeToString(good.payload())
	text = text[:40] + "\n" + text[40:]
	_, err = ParseToken(text + tokenSum(text))
	wantCode(t, err, cluster.CodeBadFormat)
}

func fourCandidates() (c []netip.AddrPort) {
	for i := range 4 {
		c = append(c, netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:1812", i+1)))
	}
	return c
}

func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := genTokenFields(t)
		tok, err := NewToken(f)
		if err != nil {
			t.Fatal(err)
		}
		text := tok.Encode()
		again, err := ParseToken(text)
		if err != nil || !sameFields(again.Fields(), f) || again.Encode() != text || len(text) > 556 {
			t.Fatalf("%q (%d characters) reads as %+v, %v", text, len(text), again.Fields(), err)
		}
	})
}

func genTokenFields(t *rapid.T) TokenFields {
	var f TokenFields
	fill := func(dst []byte, label string) {
		copy(dst, rapid.SliceOfN(rapid.Byte(), len(dst), len(dst)).Draw(t, label))
		dst[0] |= 1 // not all zero
	}
	seed := make([]byte, 32)
	fill(f.Cluster[:], "cluster")
	fill(f.Record[:], "record")
	fill(f.MapPin[:], "pin")
	fill(seed, "seed")
	f.Seed = cluster.NewSecret(seed)
	f.Name = cluster.Name(rapid.StringMatching(`[a-z0-9]{1,60}(\.[a-z0-9]{1,60}){0,2}\.[a-z]{1,60}`).Draw(t, "name"))
	ports := rapid.SliceOfNDistinct(rapid.Uint16Range(1, 65535), 1, 3, rapid.ID[uint16]).Draw(t, "ports")
	for i, p := range ports {
		f.Candidates = append(f.Candidates, netip.AddrPortFrom(testAddrs[i%2], p))
	}
	return f
}

// G6: no way of printing or storing a token by mistake shows its seed.
func TestG6TokenIsRedacted(t *testing.T) {
	v := tokenVectors(t)[0]
	tok := must(NewToken(v.fields()))(t)
	var shown []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, tok), fmt.Sprintf(verb, &tok), fmt.Sprintf(verb, struct{ T any }{tok}))
	}
	shown = append(shown, tok.String(), string(must(json.Marshal(map[string]any{"t": tok}))(t)))
	for _, s := range shown {
		if !strings.Contains(s, "[redacted]") || strings.Contains(s, string(v.Name)) {
			t.Errorf("shows %q", s)
		}
	}
	fields := fmt.Sprintf("%v %+v %#v", tok.Fields(), tok.Fields(), tok.Fields())
	if strings.Contains(fields, fmt.Sprintf("%d %d %d", v.Seed[0], v.Seed[1], v.Seed[2])) {
		t.Errorf("fields show the seed: %s", fields)
	}
	if (Token{}).Encode() != "" {
		t.Error("the zero token encodes to something")
	}
}

// A caller's later changes do not reach into a token.
func TestTokenIsItsOwn(t *testing.T) {
	f := tokenVectors(t)[0].fields()
	f.Candidates = slices.Clone(f.Candidates)
	tok := must(NewToken(f))(t)
	want := tok.Encode()
	f.Candidates[0] = netip.AddrPort{}
	tok.Fields().Candidates[0] = netip.AddrPort{}
	if tok.Encode() != want {
		t.Error("changed from outside")
	}
}
