package cluster

import (
	"encoding"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// parsers lists every text form once; the table, property and fuzz tests
// below run over all of them.
var parsers = map[string]func(string) (string, error){
	"uuid":    func(s string) (string, error) { v, err := ParseUUID(s); return v.String(), err },
	"digest":  func(s string) (string, error) { v, err := ParseDigest(s); return v.String(), err },
	"version": func(s string) (string, error) { v, err := ParseVersion(s); return v.String(), err },
	"name":    func(s string) (string, error) { v, err := ParseName(s); return string(v), err },
	"addr":    func(s string) (string, error) { v, err := ParseAddr(s); return v.String(), err },
	"role":    func(s string) (string, error) { v, err := ParseRole(s); return v.String(), err },
	"policy":  func(s string) (string, error) { v, err := ParsePolicy(s); return string(v), err },
	"reach":   func(s string) (string, error) { v, err := ParseSSHReach(s); return string(v), err },
}

const (
	someUUID   = "01234567-89ab-4cde-8f01-23456789abcd"
	someDigest = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)

func TestParseAccepts(t *testing.T) {
	cases := map[string][]string{
		"uuid":    {someUUID, "00000000-0000-0000-0000-000000000000"},
		"digest":  {someDigest, strings.Repeat("0", 64), strings.Repeat("f", 64)},
		"version": {"0.0", "1.42", "9223372036854775807.9223372036854775807"},
		"name": {
			"a", "node1", "node1.example.com", "1.a", "a--b", "xn--bcher-kva.example", "0x1",
			strings.Repeat("a", 63), strings.Repeat(strings.Repeat("a", 49)+".", 5) + "abc",
		},
		"addr":   {"192.0.2.1", "2001:db8::1", "::1", "127.0.0.1", "fe80::1"},
		"role":   {"regular", "master", "master-candidate", "drained", "offline"},
		"policy": {"strict", "best_effort"},
		"reach":  {"candidates", "master"},
	}
	for kind, texts := range cases {
		for _, s := range texts {
			if got, err := parsers[kind](s); err != nil || got != s {
				t.Errorf("%s %q: %q, %v", kind, s, got, err)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	cases := map[string][]string{
		"uuid": {
			"", strings.ToUpper(someUUID), "{" + someUUID + "}", someUUID + "0", someUUID[:35],
			strings.ReplaceAll(someUUID, "-", ""), strings.Replace(someUUID, "-", "_", 1),
			strings.Replace(someUUID, "0", "g", 1), "urn:uuid:" + someUUID, " " + someUUID[1:],
		},
		"digest":  {"", someDigest[1:], someDigest + "0", strings.ToUpper(someDigest), "g" + someDigest[1:], " " + someDigest[1:]},
		"version": {"", "1", "1.", ".1", "1.2.3", "01.2", "1.02", "+1.2", "1.-2", " 1.2", "1.2 ", "9223372036854775808.1", "1_0.2", "0x1.2"},
		"name": {
			"", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "a-.b", "A", "node_1", "*", "*.example.com", "a b", "a,b",
			"a\nb", "a\x00", "büro", "?", "!a", "[a]", "a:1", "192.0.2.1", "1", "a.1", "10",
			strings.Repeat("a", 64), strings.Repeat(strings.Repeat("a", 49)+".", 5) + "abcd",
		},
		"addr": {
			"", "192.0.2", "192.0.2.256", "192.0.2.01", "0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1",
			"fe80::1%eth0", "::ffff:192.0.2.1", "2001:DB8::1", "2001:db8:0::1", "192.0.2.1:80", "192.0.2.1/24", "node1",
		},
		"role":   {"", "Master", "M", "master candidate", "candidate", "role(9)"},
		"policy": {"", "Strict", "best-effort"},
		"reach":  {"", "candidate", "Master"},
	}
	for kind, texts := range cases {
		for _, s := range texts {
			if got, err := parsers[kind](s); err == nil {
				t.Errorf("%s %q was read as %q", kind, s, got)
			}
		}
	}
}

// A hostile text in an error must not fill a log or forge its lines.
func TestParseErrorsAreBoundedAndQuoted(t *testing.T) {
	long := strings.Repeat("x\n", 10000)
	for _, hostile := range []string{long, "fe80::1%" + long, "a." + long} {
		for kind, parse := range parsers {
			_, err := parse(hostile)
			if err == nil {
				t.Errorf("%s read nonsense", kind)
				continue
			}
			if len(err.Error()) > 700 || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: error of %d bytes: %.100q", kind, len(err.Error()), err)
			}
		}
	}
}

// checkRoundTrip is the law of every parser: what it accepts has one spelling.
func checkRoundTrip(t interface{ Errorf(string, ...any) }, kind, s string) {
	if got, err := parsers[kind](s); err == nil && got != s {
		t.Errorf("%s read %q and prints %q", kind, s, got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{someUUID, someDigest, "1.42", "node1.example.com", "2001:db8::1", "drained", "strict", "master"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for kind := range parsers {
			checkRoundTrip(t, kind, s)
		}
		if n, err := ParseName(s); err == nil {
			checkName(t, n)
		}
	})
}

// checkName states what files that hold names rely on.
func checkName(t *testing.T, n Name) {
	if strings.ContainsAny(string(n), " \t\r\n*?!,[]:|@#%/\\\"'=") || len(n) > 253 {
		t.Errorf("name %q would not be safe in a file", n)
	}
	if _, err := netip.ParseAddr(string(n)); err == nil {
		t.Errorf("name %q is an address", n)
	}
}

func TestPrintedValuesParse(t *testing.T) {
	bytes := func(n int) *rapid.Generator[[]byte] { return rapid.SliceOfN(rapid.Byte(), n, n) }
	number := rapid.Uint64Range(0, 1<<63-1)
	rapid.Check(t, func(t *rapid.T) {
		u := UUID(bytes(16).Draw(t, "uuid"))
		if got, err := ParseUUID(u.String()); err != nil || got != u {
			t.Fatalf("uuid %v: %v, %v", u, got, err)
		}
		d := Digest(bytes(32).Draw(t, "digest"))
		if got, err := ParseDigest(d.String()); err != nil || got != d {
			t.Fatalf("digest %v: %v, %v", d, got, err)
		}
		v := Version{number.Draw(t, "epoch"), number.Draw(t, "version")}
		if got, err := ParseVersion(v.String()); err != nil || got != v {
			t.Fatalf("version %v: %v, %v", v, got, err)
		}
		s := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,8}[a-z0-9])?){0,3}`).Draw(t, "name")
		if _, err := ParseName(s); err != nil && strings.Trim(s, "0123456789") != "" {
			t.Fatalf("name: %v", err)
		}
	})
}

// everything holds one field of each type that has a text form.
type everything struct {
	UUID    UUID
	Digest  Digest
	Name    Name
	Role    Role
	Policy  Policy
	Reach   SSHReach
	Version Version
	Ports   Ports
}

func TestJSONRoundTrip(t *testing.T) {
	want := everything{
		NewUUID(), DigestOf([]byte("x")), "node1.example.com", RoleDrained, PolicyBestEffort, ReachMaster,
		Version{1, 2},
		DefaultPorts,
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got everything
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("%s: %+v, %v", b, got, err)
	}
}

func TestJSONIsAsStrictAsTheParsers(t *testing.T) {
	targets := map[string]encoding.TextUnmarshaler{
		strings.ToUpper(someUUID):   new(UUID),
		strings.ToUpper(someDigest): new(Digest),
		"*.example.com":             new(Name),
		"Master":                    new(Role),
		"lax":                       new(Policy),
		"all":                       new(SSHReach),
	}
	for text, v := range targets {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(quoted, v); err == nil {
			t.Errorf("%T accepted %q from JSON", v, text)
		}
	}
}
