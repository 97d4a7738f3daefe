package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// WireError says where JSON is no filter.
type WireError struct {
	Path string // such as [1][2]; "" is the whole
	Text string
}

// Error implements error.
func (e *WireError) Error() string {
	if e.Path == "" {
		return "filter: " + e.Text
	}
	return fmt.Sprintf("filter, at %s: %s", e.Path, e.Text)
}

// ParseWire reads the wire form of a filter. JSON's null is the filter that is
// true of all.
func ParseWire(text []byte) (*Filter, error) {
	if len(text) > MaxWire {
		return nil, &WireError{"", fmt.Sprintf("it is over %d bytes", MaxWire)}
	}
	if !utf8.Valid(text) || !json.Valid(text) {
		return nil, &WireError{"", "it is not JSON"}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, &WireError{"", "it is not JSON"}
	}
	if v == nil {
		return nil, nil
	}
	return new(wireReader).filter(v, "", 1)
}

// wireReader turns JSON into a filter.
type wireReader struct{ regexps regexps }

func (w *wireReader) filter(v any, path string, depth int) (*Filter, error) {
	fail := func(format string, args ...any) (*Filter, error) {
		return nil, &WireError{path, fmt.Sprintf(format, args...)}
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return fail("want a list that begins with an operator")
	}
	if depth > MaxDepth {
		return fail("it is nested over %d levels deep", MaxDepth)
	}
	op := Op(text(list[0]))
	if op == opEqualToo {
		op = OpEqual
	}
	switch op {
	case OpAnd, OpOr, OpNot:
		return w.args(op, list[1:], path, depth)
	case OpTrue, OpMatch, OpContains:
	default:
		if textOps[op] == "" {
			return fail("%.20q is no operator", fmt.Sprint(list[0]))
		}
	}
	want := 3
	if op == OpTrue {
		want = 2
	}
	if len(list) != want {
		return fail("%s has %d operands, want %d", op, len(list)-1, want-1)
	}
	f := &Filter{Op: op, Field: text(list[1])}
	if !isField(f.Field) {
		return fail("the first operand of %s is not the name of a field", op)
	}
	if op == OpTrue {
		return f, nil
	}
	return w.value(f, list[2], path)
}

func (w *wireReader) args(op Op, list []any, path string, depth int) (*Filter, error) {
	if len(list) == 0 || op == OpNot && len(list) != 1 {
		return nil, &WireError{path, fmt.Sprintf("%s has %d operands", op, len(list))}
	}
	args := make([]*Filter, len(list))
	for i, v := range list {
		f, err := w.filter(v, fmt.Sprintf("%s[%d]", path, i+1), depth+1)
		if err != nil {
			return nil, err
		}
		args[i] = f
	}
	if op == OpNot {
		return not(args[0]), nil
	}
	return join(op, args), nil
}

func isField(s string) bool {
	for i := range len(s) {
		if !inField(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= maxField && isLetter(s[0]) && !keywords[s]
}

// value gives a comparison its value.
func (w *wireReader) value(f *Filter, v any, path string) (*Filter, error) {
	fail := func(want string) (*Filter, error) {
		return nil, &WireError{path, fmt.Sprintf("the second operand of %s is not %s", f.Op, want)}
	}
	_, isText := v.(string)
	switch v := v.(type) {
	case string, bool:
		f.Value = v
	case json.Number:
		n, ok := parseNumber(v.String())
		if !ok {
			return fail("a number up to 2^53 without an exponent, of at most 32 characters")
		}
		f.Value = n
	default:
		return fail("a value")
	}
	switch {
	case f.Op == OpMatch && !isText:
		return fail("a regular expression")
	case f.Op == OpContains && f.Value == true, f.Op == OpContains && f.Value == false:
		return fail("a text or a number")
	case f.Op == OpMatch:
		m, err := w.regexps.match(f.Field, text(v))
		if err != nil {
			return nil, &WireError{path, err.Error()}
		}
		return m, nil
	}
	return f, nil
}
