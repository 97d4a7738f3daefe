package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

var errNotCanonical = errors.New("not the canonical encoding")

// marshal is the canonical encoding: encoding/json's, whose output is a
// function of the value alone (members in the order of the fields, maps sorted
// by key).
func marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// unmarshal reads what marshal wrote and nothing else. The comparison at the
// end refuses duplicate members, other spellings of names, white space,
// trailing bytes and loose escapes, which encoding/json lets pass.
func unmarshal(b []byte, v any) error {
	if err := checkDepth(b); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode %T: %w", v, scrub(err))
	}
	again, err := marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("decode %T: %w", v, errNotCanonical)
	}
	return nil
}

// scrub keeps values out of the error: a type error quotes what it found, and
// that may have been a secret in the wrong place.
func scrub(err error) error {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return fmt.Errorf("member %q has the wrong type", t.Field)
	}
	return err
}

// checkDepth bounds the nesting before the decoder recurses.
func checkDepth(b []byte) error {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("nested deeper than %d", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}
