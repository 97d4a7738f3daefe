package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// column is a field of a list.
type column[T any] struct {
	name, title string
	value       func(T) any // for JSON
	text        func(T) string
}

// table prints a list as Ganeti's list commands do.
type table[T any] struct {
	columns   []column[T]
	defaults  []string // of people's tables
	object    []string // of JSON
	noHeaders bool
	separator string
	fields    string
}

func (t *table[T]) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&t.noHeaders, "no-headers", false, "do not print the line of titles")
	f.StringVar(&t.separator, "separator", "", "print this between fields instead of aligning them")
	f.StringVarP(&t.fields, "output", "o", "", "fields to print, separated by commas; +FIELDS adds to the usual ones")
}

// chosen returns the columns that were asked for.
func (t *table[T]) chosen(usual []string) ([]column[T], error) {
	names := usual
	if more, ok := strings.CutPrefix(t.fields, "+"); ok {
		names = append(append([]string{}, usual...), strings.Split(more, ",")...)
	} else if t.fields != "" {
		names = strings.Split(t.fields, ",")
	}
	var out []column[T]
	for _, name := range names {
		c, ok := t.find(strings.TrimSpace(name))
		if !ok {
			return nil, &exitError{ExitUnknownField, fmt.Sprintf("Unknown field '%s'\nKnown are: %s", name, strings.Join(t.names(), ", "))}
		}
		out = append(out, c)
	}
	return out, nil
}

func (t *table[T]) find(name string) (column[T], bool) {
	for _, c := range t.columns {
		if c.name == name {
			return c, true
		}
	}
	return column[T]{}, false
}

func (t *table[T]) names() []string {
	out := make([]string, len(t.columns))
	for i, c := range t.columns {
		out[i] = c.name
	}
	return out
}

// print prints the rows.
func (t *table[T]) print(a *app, rows []T) error {
	if a.asJSON {
		return t.printJSON(a, rows)
	}
	columns, err := t.chosen(t.defaults)
	if err != nil {
		return err
	}
	lines := [][]string{}
	if !t.noHeaders {
		titles := make([]string, len(columns))
		for i, c := range columns {
			titles[i] = c.title
		}
		lines = append(lines, titles)
	}
	for _, row := range rows {
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = c.cell(row)
		}
		lines = append(lines, cells)
	}
	return writeLines(a.out, lines, t.separator)
}

// writeLines prints lines of cells, aligned or with a separator.
func writeLines(out io.Writer, lines [][]string, separator string) error {
	if separator != "" {
		for _, cells := range lines {
			fmt.Fprintln(out, strings.Join(cells, separator))
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 8, 1, ' ', 0)
	for _, cells := range lines {
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}

// cell prints a value for people.
func (c column[T]) cell(row T) string {
	if c.text != nil {
		return c.text(row)
	}
	switch v := c.value(row).(type) {
	case bool:
		if v {
			return "Y"
		}
		return "N"
	case nil:
		return "?" // no data, as in Ganeti
	default:
		return fmt.Sprint(v)
	}
}

// printJSON prints objects with their fields in the order of the columns.
func (t *table[T]) printJSON(a *app, rows []T) error {
	columns, err := t.chosen(t.object)
	if err != nil {
		return err
	}
	list := make([]json.RawMessage, 0, len(rows))
	for _, row := range rows {
		o, err := object(columns, row)
		if err != nil {
			return err
		}
		list = append(list, o)
	}
	return a.printJSON(list)
}

func object[T any](columns []column[T], row T) (json.RawMessage, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, c := range columns {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(c.value(row))
		if err != nil {
			return nil, fmt.Errorf("encode field %s: %w", c.name, err)
		}
		fmt.Fprintf(&b, "%q:%s", c.name, value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
