package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// UUID is a random (version 4) identifier in the form of RFC 9562. The zero
// UUID means "none" and is never the identity of anything.
type UUID [16]byte

// NodeID identifies a node for ever; names and addresses may change.
type NodeID = UUID

// NewUUID returns a random UUID.
func NewUUID() UUID {
	var u UUID
	_, _ = rand.Read(u[:]) // never fails since Go 1.24
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

// ParseUUID reads the canonical text form only: 36 characters, lower case.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, fmt.Errorf("parse UUID %q: want 8-4-4-4-12 lower-case hex digits", clip(s))
	}
	raw := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(u[:], []byte(raw)); err != nil || u.String() != s {
		return UUID{}, fmt.Errorf("parse UUID %q: want 8-4-4-4-12 lower-case hex digits", clip(s))
	}
	return u, nil
}

// IsZero reports whether u names nothing.
func (u UUID) IsZero() bool { return u == UUID{} }

// String returns the canonical text form.
func (u UUID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], u[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], u[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], u[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], u[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], u[10:16])
	return string(b[:])
}

// MarshalText implements encoding.TextMarshaler.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *UUID) UnmarshalText(b []byte) (err error) {
	*u, err = ParseUUID(string(b))
	return err
}

// clip shortens text that is quoted in an error message.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
