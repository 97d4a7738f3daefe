package query

import "slices"

// Field is something that can be listed of a T.
type Field[T any] struct {
	Name, Title string
	Kind        Kind
	Doc         string // one sentence, without a full stop
	Cell        func(T) Cell
	// Wire is the value in Ganeti's form where that is another one; nil: it is
	// not.
	Wire func(T) any
}

// Table is all that can be listed of a T.
type Table[T any] struct {
	Fields []Field[T]
	byName map[string]int
}

func newTable[T any](fields []Field[T]) *Table[T] {
	t := &Table[T]{fields, map[string]int{}}
	for i, f := range fields {
		t.byName[f.Name] = i
	}
	return t
}

// Find returns a field. One that does not exist has an unknown value in each
// row, and its own name for a title.
func (t *Table[T]) Find(name string) (Field[T], bool) {
	if i, ok := t.byName[name]; ok {
		return t.Fields[i], true
	}
	return Field[T]{
		Name: name, Title: name, Kind: KindOther, Doc: "Unknown field",
		Cell: func(T) Cell { return Cell{Status: StatusUnknown} },
	}, false
}

// Names returns the names of all fields, in the order of the alphabet.
func (t *Table[T]) Names() []string {
	out := make([]string, len(t.Fields))
	for i, f := range t.Fields {
		out[i] = f.Name
	}
	slices.Sort(out)
	return out
}

// Check returns why a filter cannot be meant; see Filter.Check.
func (t *Table[T]) Check(f *Filter) error {
	return f.Check(func(name string) (Kind, bool) {
		field, ok := t.Find(name)
		return field.Kind, ok
	})
}

// Select returns the rows that a filter, which was checked, is true of.
func (t *Table[T]) Select(rows []T, f *Filter) []T {
	out := make([]T, 0, len(rows))
	for _, row := range rows {
		match := f.Match(func(name string) Cell {
			field, _ := t.Find(name)
			return field.Cell(row)
		})
		if match {
			out = append(out, row)
		}
	}
	return out
}

// always makes the cell function of what each row has.
func always[T any](value func(T) any) func(T) Cell {
	return func(row T) Cell { return Cell{Value: value(row)} }
}

// never makes the field of Ganeti's that nothing here has.
func never[T any](name, title string, kind Kind, doc string) Field[T] {
	return Field[T]{
		Name: name, Title: title, Kind: kind, Doc: doc + " (Rolekey has none)",
		Cell: func(T) Cell { return Cell{Status: StatusUnavailable} },
	}
}
