package query

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Status says whether a row has a value. The numbers are Ganeti's.
type Status int

// The statuses.
const (
	StatusNormal      Status = iota
	StatusUnknown            // there is no such field
	StatusNoData             // it may be known later
	StatusUnavailable        // this row has none
	StatusOffline            // the node is offline
)

// Cell is the value of a field in a row.
type Cell struct {
	Status Status
	Value  any      // string, number, bool, time.Time, list of texts, or anything else; what JSON shows
	Also   []string // other spellings that are equal to it
	Text   string   // for people, if Value is not
}

// Kind is the type of a field.
type Kind int

// The kinds.
const (
	KindText Kind = iota
	KindBool
	KindNumber
	KindTime
	KindList  // of texts
	KindOther // for display only
)

// kinds are the names of the kinds: on the wire, and for people. The wire has
// no name for lists.
var kinds = [...]struct{ wire, people string }{
	KindText: {"text", "Text"}, KindBool: {"bool", "Boolean"}, KindNumber: {"number", "Number"},
	KindTime: {"timestamp", "Timestamp"}, KindList: {"other", "List"}, KindOther: {"other", "Custom"},
}

// Wire returns Ganeti's word for the kind.
func (k Kind) Wire() string { return kinds[k].wire }

// String names the kind for people.
func (k Kind) String() string { return kinds[k].people }

// UnknownFieldError says that a filter names a field that does not exist.
type UnknownFieldError struct{ Field string }

// Error implements error.
func (e *UnknownFieldError) Error() string { return fmt.Sprintf("Unknown filter field '%s'", e.Field) }

// Check returns why a filter cannot be meant, given the kinds of the fields:
// an *UnknownFieldError, or what is compared with what.
func (f *Filter) Check(kindOf func(field string) (Kind, bool)) error {
	return f.walk(func(f *Filter) error {
		if f.Field == "" {
			return nil
		}
		kind, ok := kindOf(f.Field)
		if !ok {
			return &UnknownFieldError{f.Field}
		}
		if why := f.mismatch(kind); why != "" {
			return fmt.Errorf("filter, condition %s: the field is of the type %s, %s", f, kind, why)
		}
		return nil
	})
}

// mismatch says why a condition cannot be about a field of this kind, or "".
func (f *Filter) mismatch(kind Kind) string {
	s, isText := f.Value.(string)
	_, isNumber := f.Value.(float64)
	_, isBool := f.Value.(bool)
	order := f.Op == OpLess || f.Op == OpLessEqual || f.Op == OpGreater || f.Op == OpGreaterEqual
	switch {
	case kind == KindOther:
		return "which cannot be compared"
	case f.Op == OpTrue && kind != KindBool:
		return "which is neither true nor false"
	case f.Op == OpTrue:
		return ""
	case f.Op == OpContains && (kind != KindList || !isText):
		return "and only texts can be in lists"
	case f.Op == OpContains:
		return ""
	case f.Op == OpMatch && kind != KindText && kind != KindList:
		return "and only texts match a pattern"
	case f.Op == OpMatch:
		return ""
	case kind == KindList:
		return "use in, not in or a pattern"
	case kind == KindText && !isText, kind == KindBool && !isBool, kind == KindNumber && !isNumber, kind == KindTime && isBool:
		return "and the value is not"
	case kind == KindBool && order:
		return "which has no order"
	case kind == KindTime && isText && !isTime(s):
		return "and the value is neither seconds nor as \"2026-11-22T14:03:12Z\""
	}
	return ""
}

func isTime(s string) bool {
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}

// Match reports whether the filter is true of a row, which knows its fields. A
// condition about what is missing is false.
func (f *Filter) Match(row func(field string) Cell) bool {
	if f == nil {
		return true
	}
	switch f.Op {
	case OpAnd:
		for _, arg := range f.Args {
			if !arg.Match(row) {
				return false
			}
		}
		return true
	case OpOr:
		for _, arg := range f.Args {
			if arg.Match(row) {
				return true
			}
		}
		return false
	case OpNot:
		return !f.Args[0].Match(row)
	}
	c := row(f.Field)
	return c.Status == StatusNormal && f.holds(c)
}

// holds evaluates a condition about a value.
func (f *Filter) holds(c Cell) bool {
	switch f.Op {
	case OpTrue:
		return c.Value == true
	case OpContains:
		for _, s := range texts(c.Value) {
			if s == f.Value {
				return true
			}
		}
		return false
	case OpMatch:
		for _, s := range texts(c.Value) {
			if f.re.MatchString(s) {
				return true
			}
		}
		return false
	case OpEqual, OpNotEqual:
		return f.same(c) == (f.Op == OpEqual)
	}
	order, ok := compare(c.Value, f.Value)
	switch {
	case !ok:
		return false
	case f.Op == OpLess:
		return order < 0
	case f.Op == OpLessEqual:
		return order <= 0
	case f.Op == OpGreater:
		return order > 0
	}
	return order >= 0
}

func (f *Filter) same(c Cell) bool {
	for _, s := range c.Also {
		if s == f.Value {
			return true
		}
	}
	if b, ok := c.Value.(bool); ok {
		return b == f.Value
	}
	order, ok := compare(c.Value, f.Value)
	return ok && order == 0
}

// compare orders a row's value and a filter's; ok is false if they have no
// order.
func compare(have, want any) (order int, ok bool) {
	if t, isTime := have.(time.Time); isTime {
		return compareTime(t, want)
	}
	switch want := want.(type) {
	case string:
		list := texts(have)
		if len(list) != 1 {
			return 0, false
		}
		return strings.Compare(list[0], want), true
	case float64:
		n, ok := number(have)
		return cmp.Compare(n, want), ok
	}
	return 0, false
}

func compareTime(have time.Time, want any) (order int, ok bool) {
	switch want := want.(type) {
	case float64:
		return cmp.Compare(float64(have.UnixMicro())/1e6, want), true
	case string:
		t, err := time.Parse(time.RFC3339, want)
		return have.Compare(t), err == nil
	}
	return 0, false
}

// texts returns the texts that a value consists of.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []string:
		return v
	case fmt.Stringer:
		return []string{v.String()}
	}
	return nil
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint16:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
