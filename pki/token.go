package pki

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"rolekey/cluster"
)

const (
	tokenPrefix   = "rk1."
	tokenSumBytes = 6
	tokenSumChars = 8
	tokenFixed    = 16 + 16 + sha256.Size + ed25519.SeedSize
	whitespace    = " \t\r\n"
)

// tokenBase64 refuses unused bits that are set: one value, one text.
var tokenBase64 = base64.RawURLEncoding.Strict()

// TokenFields are the contents of an admission string.
type TokenFields struct {
	Cluster    cluster.UUID
	Record     cluster.UUID
	Name       cluster.Name
	Candidates []netip.AddrPort // of masterd, in order of preference
	MapPin     cluster.Digest   // of the map's payload
	Seed       cluster.Secret   // 32 bytes
}

// Token is a valid admission string. Printing it shows nothing; Encode gives
// the string.
type Token struct{ f TokenFields }

// NewToken checks the fields.
func NewToken(f TokenFields) (Token, error) {
	if err := f.check(); err != nil {
		return Token{}, fmt.Errorf("make admission string: %w", err)
	}
	f.Candidates = slices.Clone(f.Candidates)
	return Token{f}, nil
}

// Fields returns the contents.
func (t Token) Fields() TokenFields {
	f := t.f
	f.Candidates = slices.Clone(f.Candidates)
	return f
}

// Format implements fmt.Formatter for every verb.
func (t Token) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte("[redacted]")) }

// String implements fmt.Stringer; it does not return the string, see Encode.
func (t Token) String() string { return "[redacted]" }

// MarshalText makes a token in a document by mistake show as redacted.
func (t Token) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// check keeps its messages free of contents: ParseToken passes them on.
func (f TokenFields) check() error {
	seed := f.Seed.Reveal()
	switch {
	case f.Cluster.IsZero() || f.Record.IsZero():
		return errors.New("a UUID is missing")
	case f.MapPin.IsZero():
		return errors.New("the map pin is missing")
	case len(seed) != ed25519.SeedSize || !slices.ContainsFunc(seed, func(b byte) bool { return b != 0 }):
		return errors.New("the seed is missing")
	case len(f.Candidates) == 0 || len(f.Candidates) > maxCandidates:
		return fmt.Errorf("want 1 to %d candidate addresses", maxCandidates)
	}
	if _, err := cluster.ParseName(string(f.Name)); err != nil {
		return errors.New("the node name is not a host name")
	}
	for i, c := range f.Candidates {
		if cluster.CheckAddr(c.Addr()) != nil || c.Port() == 0 || slices.Contains(f.Candidates[:i], c) {
			return errors.New("a candidate address is bad or doubled")
		}
	}
	return nil
}

// Encode returns the admission string, a secret. That of the zero Token is "".
func (t Token) Encode() string {
	if t.f.Record.IsZero() {
		return ""
	}
	s := tokenPrefix + tokenBase64.EncodeToString(t.f.payload())
	return s + tokenSum(s)
}

// tokenSum is over the text, not the bytes, so that it sees every character.
func tokenSum(text string) string {
	h := sha256.Sum256([]byte(text))
	return tokenBase64.EncodeToString(h[:tokenSumBytes])
}

func (f TokenFields) payload() []byte {
	b := make([]byte, 0, tokenFixed+1+len(f.Name)+1+maxCandidates*19)
	b = append(b, f.Cluster[:]...)
	b = append(b, f.Record[:]...)
	b = append(b, f.MapPin[:]...)
	b = append(b, f.Seed.Reveal()...)
	b = append(b, byte(len(f.Name)))
	b = append(b, f.Name...)
	b = append(b, byte(len(f.Candidates)))
	for _, c := range f.Candidates {
		a := c.Addr().AsSlice()
		b = append(b, byte(len(a)))
		b = append(b, a...)
		b = binary.BigEndian.AppendUint16(b, c.Port())
	}
	return b
}

// ParseToken reads an admission string; whitespace around it is ignored.
// Errors are *cluster.Error and contain no part of it.
func ParseToken(text string) (Token, error) {
	s := strings.Trim(text, whitespace)
	if err := checkTokenText(s); err != nil {
		return Token{}, err
	}
	body := s[len(tokenPrefix) : len(s)-tokenSumChars]
	raw, err := tokenBase64.DecodeString(body)
	if err != nil {
		return Token{}, badToken("it is not base64url")
	}
	f, err := parsePayload(raw)
	if err != nil {
		return Token{}, badToken(err.Error())
	}
	t, err := NewToken(f)
	if err != nil {
		return Token{}, badToken(errors.Unwrap(err).Error())
	}
	if t.Encode() != s {
		// The base64 decoder skips line ends, for one.
		return Token{}, badToken("it is not in its one canonical form")
	}
	return t, nil
}

// checkTokenText judges the string before anything in it is believed.
func checkTokenText(s string) error {
	switch {
	case s == "":
		return badToken("it is empty")
	case len(s) > maxTokenText:
		return badToken("it is too long")
	case !strings.HasPrefix(s, tokenPrefix):
		if otherFormat(s) {
			return cluster.Errorf(cluster.CodeUnsupportedFormat, "admission string: its format is not rk1").
				WithHint("Copy the whole line again; if it is right, this program is older than the cluster: upgrade it.")
		}
		return badToken("it does not begin with rk1.")
	case len(s) < len(tokenPrefix)+tokenSumChars:
		return badToken("it is cut off")
	}
	if rest, sum := s[:len(s)-tokenSumChars], s[len(s)-tokenSumChars:]; tokenSum(rest) != sum {
		return badToken("its checksum does not fit: a character is wrong or missing")
	}
	return nil
}

// otherFormat reports whether s begins as an admission string of another
// format does: rk, a number, a dot.
func otherFormat(s string) bool {
	rest, ok := strings.CutPrefix(s, "rk")
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	return ok && digits > 0 && strings.HasPrefix(rest[digits:], ".")
}

func badToken(why string) error {
	return cluster.Errorf(cluster.CodeBadFormat, "admission string: %s", why).
		WithHint("Copy the whole line that gnt-node add printed; or make a new one.")
}

// parsePayload takes the fields apart; NewToken judges them.
func parsePayload(b []byte) (TokenFields, error) {
	r := reader{b: b}
	var f TokenFields
	copy(f.Cluster[:], r.take(len(f.Cluster)))
	copy(f.Record[:], r.take(len(f.Record)))
	copy(f.MapPin[:], r.take(len(f.MapPin)))
	f.Seed = cluster.NewSecret(r.take(ed25519.SeedSize))
	f.Name = cluster.Name(r.take(r.byte()))
	for n := min(r.byte(), maxCandidates+1); n > 0; n-- {
		addr, _ := netip.AddrFromSlice(r.take(r.byte())) // an invalid one is refused by check
		f.Candidates = append(f.Candidates, netip.AddrPortFrom(addr, r.uint16()))
	}
	if r.bad || len(r.b) != 0 {
		return TokenFields{}, errors.New("it ends in the wrong place")
	}
	return f, nil
}

// reader takes bytes from the front; after the first shortage all it gives is
// nothing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() int {
	b := r.take(1)
	if len(b) == 0 {
		return 0
	}
	return int(b[0])
}

func (r *reader) uint16() uint16 {
	b := r.take(2)
	if len(b) == 0 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}
