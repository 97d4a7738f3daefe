package cluster

import "fmt"

// Secret holds bytes that must never be printed. Every way of formatting it,
// JSON included, yields "[redacted]"; only Reveal gives the bytes.
type Secret struct{ b []byte }

const redacted = "[redacted]"

// NewSecret wraps b without copying it; the caller gives b up.
func NewSecret(b []byte) Secret { return Secret{b} }

// Reveal returns the bytes themselves, not a copy.
func (s Secret) Reveal() []byte { return s.b }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return len(s.b) == 0 }

// Format implements fmt.Formatter for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler: a secret in a document by
// mistake shows as redacted instead of leaking.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
