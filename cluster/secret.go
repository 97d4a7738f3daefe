package cluster

import "fmt"

// Secret holds bytes that must never be printed. Every way of formatting it,
// JSON included, yields "[redacted]"; only Reveal gives the bytes. Secrets do
// not compare, neither with == nor with reflect.DeepEqual.
type Secret struct {
	// A closure, because package fmt does not call Format on what lies in an
	// unexported field of a struct that it prints: there it would show bytes,
	// and for some verbs what a pointer points to.
	reveal func() []byte
}

const redacted = "[redacted]"

// NewSecret wraps b without copying it; the caller gives b up.
func NewSecret(b []byte) Secret { return Secret{func() []byte { return b }} }

// Reveal returns the bytes themselves, not a copy.
func (s Secret) Reveal() []byte {
	if s.reveal == nil {
		return nil
	}
	return s.reveal()
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return len(s.Reveal()) == 0 }

// Format implements fmt.Formatter for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler: a secret in a document by
// mistake shows as redacted instead of leaking.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
