package query

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Bounds on what is parsed.
const (
	MaxText   = 8 << 10  // bytes of a filter's text form
	MaxWire   = 64 << 10 // bytes of its wire form
	MaxDepth  = 32
	maxRegexp = 1 << 10 // bytes, of all regular expressions of a filter
	maxField  = 64
	maxNumber = 32 // characters

	maxInteger = 1 << 53 // larger ones are not exact
)

// Op is an operator, as the wire form spells it.
type Op string

// The operators. The first three have filters as operands, OpTrue a field, and
// the others a field and a value.
const (
	OpAnd          Op = "&"
	OpOr           Op = "|"
	OpNot          Op = "!"
	OpTrue         Op = "?"
	OpEqual        Op = "="
	OpNotEqual     Op = "!="
	OpLess         Op = "<"
	OpLessEqual    Op = "<="
	OpGreater      Op = ">"
	OpGreaterEqual Op = ">="
	OpMatch        Op = "=~"
	OpContains     Op = "=[]"
)

// opEqualToo is another spelling of OpEqual on the wire.
const opEqualToo Op = "=="

// Filter is an expression that is true or false of a row. The nil Filter is
// true of all.
type Filter struct {
	Op    Op
	Args  []*Filter
	Field string
	Value any // string, float64 or bool

	re *regexp.Regexp // of OpMatch
}

// Any returns the filter that is true when one of these is; nil: there are
// none.
func Any(list ...*Filter) *Filter { return join(OpOr, list) }

// All returns the filter that is true when all of these are. Those that are
// nil do not count.
func All(list ...*Filter) *Filter { return join(OpAnd, list) }

func join(op Op, list []*Filter) *Filter {
	out := &Filter{Op: op}
	for _, f := range list {
		if f != nil {
			out.Args = append(out.Args, f)
		}
	}
	switch len(out.Args) {
	case 0:
		return nil
	case 1:
		return out.Args[0]
	}
	return out
}

// Equal returns the filter that compares a field with a value: a string, a
// float64 or a bool.
func Equal(field string, value any) *Filter {
	return &Filter{Op: OpEqual, Field: field, Value: value}
}

// Glob returns the filter that matches a field with a pattern.
func Glob(field, pattern string) (*Filter, error) { return match(field, globRegexp(pattern)) }

// regexps counts the bytes of the regular expressions of a filter: one byte may
// cost 33 KB of memory.
type regexps int

func (n *regexps) match(field, pattern string) (*Filter, error) {
	if *n += regexps(len(pattern)); *n > maxRegexp {
		return nil, fmt.Errorf("the regular expressions are over %d bytes long", maxRegexp)
	}
	return match(field, pattern)
}

func match(field, pattern string) (*Filter, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("the regular expression is none: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return &Filter{Op: OpMatch, Field: field, Value: pattern, re: re}, nil
}

// globRegexp returns the regular expression that means the same as a pattern.
func globRegexp(pattern string) string {
	var b strings.Builder
	b.WriteByte('^')
	for _, r := range pattern {
		switch r {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteByte('.')
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteString(`(\..*)?$`)
	return b.String()
}

func not(f *Filter) *Filter { return &Filter{Op: OpNot, Args: []*Filter{f}} }

// Fields returns the names of the fields that the filter is about, each once.
func (f *Filter) Fields() []string {
	var out []string
	seen := map[string]bool{}
	f.walk(func(f *Filter) error {
		if f.Field != "" && !seen[f.Field] {
			seen[f.Field] = true
			out = append(out, f.Field)
		}
		return nil
	})
	return out
}

// walk visits the filter and all below it until one returns an error.
func (f *Filter) walk(visit func(*Filter) error) error {
	if f == nil {
		return nil
	}
	if err := visit(f); err != nil {
		return err
	}
	for _, arg := range f.Args {
		if err := arg.walk(visit); err != nil {
			return err
		}
	}
	return nil
}

// MarshalJSON returns the wire form.
func (f *Filter) MarshalJSON() ([]byte, error) {
	if f == nil {
		return []byte("null"), nil
	}
	list := []any{f.Op}
	if f.Field != "" {
		list = append(list, f.Field)
	}
	if f.Value != nil {
		list = append(list, f.Value)
	}
	for _, arg := range f.Args {
		list = append(list, arg)
	}
	return json.Marshal(list)
}

// textOps are the operators that stand between a field and a value.
var textOps = map[Op]string{
	OpEqual: "==", OpNotEqual: "!=", OpLess: "<", OpLessEqual: "<=", OpGreater: ">", OpGreaterEqual: ">=",
}

// String returns the text form; Parse reads it back.
func (f *Filter) String() string {
	if f == nil {
		return ""
	}
	switch f.Op {
	case OpAnd, OpOr:
		word := map[Op]string{OpAnd: " and ", OpOr: " or "}[f.Op]
		parts := make([]string, len(f.Args))
		for i, arg := range f.Args {
			parts[i] = arg.unit()
		}
		return strings.Join(parts, word)
	case OpNot:
		switch arg := f.Args[0]; arg.Op {
		case OpMatch:
			return arg.Field + " !~ " + quoteRegexp(text(arg.Value))
		case OpContains:
			return quote(arg.Value) + " not in " + arg.Field
		default:
			return "not " + arg.unit()
		}
	case OpTrue:
		return f.Field
	case OpMatch:
		return f.Field + " =~ " + quoteRegexp(text(f.Value))
	case OpContains:
		return quote(f.Value) + " in " + f.Field
	}
	return f.Field + " " + textOps[f.Op] + " " + quote(f.Value)
}

// unit returns the text form as a part of a longer one.
func (f *Filter) unit() string {
	if f.Op == OpAnd || f.Op == OpOr {
		return "(" + f.String() + ")"
	}
	return f.String()
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func quote(v any) string {
	switch v := v.(type) {
	case string:
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// delimiters of a regular expression.
const delimiters = "/#^|"

// quoteRegexp takes a delimiter that the expression does not need. If it needs
// all, slashes are escaped.
func quoteRegexp(re string) string {
	for _, d := range delimiters {
		if !strings.ContainsRune(re, d) {
			return "m" + string(d) + re + string(d)
		}
	}
	return "m/" + strings.NewReplacer(`\\`, `\\`, `\/`, `\x2f`, "/", `\/`).Replace(re) + "/"
}
