package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/query"
)

// listing prints rows as Ganeti's list commands do.
type listing[T any] struct {
	table     *query.Table[T]
	defaults  []string // fields of people's lists
	object    []string // fields of JSON
	noHeaders bool
	verbose   bool
	separator string
	output    string
	filter    string
}

func (l *listing[T]) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&l.noHeaders, "no-headers", false, "do not print the line of titles")
	f.StringVar(&l.separator, "separator", "", "print this between fields instead of aligning them")
	f.StringVarP(&l.output, "output", "o", "", "fields to print, separated by commas; +FIELDS adds to the usual ones")
	f.StringVarP(&l.filter, "filter", "F", "", "list only what this is true of, such as 'role == \"C\" and not voter'")
	f.BoolVarP(&l.verbose, "verbose", "v", false, "say (offline), (nodata), (unavail) and (unknown) instead of *, ?, - and ??")
	// The flag is there, and has no completion yet: this cannot fail.
	_ = cmd.RegisterFlagCompletionFunc("output", func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return completeFields(l.table.Names(), typed), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	})
}

// completeFields completes the last of some names with commas between them.
func completeFields(names []string, typed string) []string {
	before := typed[:max(strings.LastIndexByte(typed, ','), strings.IndexByte(typed, '+'))+1]
	var out []string
	for _, name := range names {
		if strings.HasPrefix(before+name, typed) {
			out = append(out, before+name)
		}
	}
	return out
}

// chosen returns the fields that were asked for, and the names of those that
// do not exist.
func (l *listing[T]) chosen(usual []string) (fields []query.Field[T], unknown []string) {
	names := usual
	if more, ok := strings.CutPrefix(l.output, "+"); ok {
		names = slices.Concat(usual, strings.Split(more, ","))
	} else if l.output != "" {
		names = strings.Split(l.output, ",")
	}
	for _, name := range names {
		name = strings.TrimSpace(name)
		field, ok := l.table.Find(name)
		if !ok {
			unknown = append(unknown, name)
		}
		fields = append(fields, field)
	}
	return fields, unknown
}

// parsed returns the filter that was asked for, or nil.
func (l *listing[T]) parsed() (*query.Filter, error) {
	if l.filter == "" {
		return nil, nil
	}
	f, err := query.Parse(l.filter)
	var at *query.SyntaxError
	if errors.As(err, &at) && !strings.ContainsAny(l.filter, "\t\r\n") {
		return nil, usage("%v\n  %s\n  %s^", err, l.filter, strings.Repeat(" ", at.Column-1))
	}
	if err != nil {
		return nil, usage("%v", err)
	}
	return f, l.check(f)
}

// check makes sure that a filter means something.
func (l *listing[T]) check(f *query.Filter) error {
	err := l.table.Check(f)
	var unknown *query.UnknownFieldError
	switch {
	case errors.As(err, &unknown):
		return &exitError{ExitUnknownField, err.Error()}
	case err != nil:
		return cluster.Errorf(cluster.CodeBadFormat, "%v", err)
	}
	return nil
}

// print prints the rows. Fields that do not exist are printed as such, and end
// the command with a code of its own; JSON is not printed at all then.
func (l *listing[T]) print(a *app, rows []T) error {
	usual := l.defaults
	if a.asJSON {
		usual = l.object
	}
	fields, unknown := l.chosen(usual)
	var err error
	if len(unknown) > 0 {
		err = &exitError{ExitUnknownField, "Warning: Queried for unknown fields " + strings.Join(unknown, ", ")}
	}
	switch {
	case a.asJSON && err != nil:
		return err
	case a.asJSON:
		return printObjects(a, fields, rows)
	}
	lines := make([][]string, 0, len(rows)+1)
	if !l.noHeaders {
		titles := make([]string, len(fields))
		for i, f := range fields {
			titles[i] = f.Title
		}
		lines = append(lines, titles)
	}
	for _, row := range rows {
		cells := make([]string, len(fields))
		for i, f := range fields {
			cells[i] = cellText(f.Cell(row), l.verbose)
		}
		lines = append(lines, cells)
	}
	return errors.Join(writeLines(a.out, lines, l.separator), err)
}

// marks are what stands for values that are not there: short, and verbose.
var marks = map[query.Status][2]string{
	query.StatusUnknown:     {"??", "(unknown)"},
	query.StatusNoData:      {"?", "(nodata)"},
	query.StatusUnavailable: {"-", "(unavail)"},
	query.StatusOffline:     {"*", "(offline)"},
}

// cellText prints a value for people.
func cellText(c query.Cell, verbose bool) string {
	if mark, ok := marks[c.Status]; ok && verbose {
		return mark[1]
	} else if ok {
		return mark[0]
	}
	if c.Text != "" {
		return printable(c.Text)
	}
	switch v := c.Value.(type) {
	case bool:
		if v {
			return "Y"
		}
		return "N"
	case time.Time:
		return when(v)
	case []string:
		return printable(strings.Join(v, ","))
	case map[string]any:
		if b, err := json.Marshal(v); err == nil {
			return string(b)
		}
	}
	return strings.ReplaceAll(printable(fmt.Sprint(c.Value)), "\n", " ")
}

// printObjects prints objects with their fields in the order of the fields.
func printObjects[T any](a *app, fields []query.Field[T], rows []T) error {
	list := make([]json.RawMessage, 0, len(rows))
	for _, row := range rows {
		var b bytes.Buffer
		b.WriteByte('{')
		for i, f := range fields {
			if i > 0 {
				b.WriteByte(',')
			}
			value, err := json.Marshal(f.Cell(row).Value)
			if err != nil {
				return fmt.Errorf("encode field %s: %w", f.Name, err)
			}
			fmt.Fprintf(&b, "%q:%s", f.Name, value)
		}
		b.WriteByte('}')
		list = append(list, b.Bytes())
	}
	return a.printJSON(list)
}

// fieldReport is the JSON of list-fields for one field.
type fieldReport struct {
	Name        string `json:"name"`
	Type        string `json:"type"` // Ganeti's word for it
	Title       string `json:"title"`
	Description string `json:"description"`
}

// listFieldsCommand prints what a list can show. what is one of its rows.
func listFieldsCommand[T any](a *app, table *query.Table[T], what string) *cobra.Command {
	var noHeaders bool
	var separator string
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "list-fields [FIELD...]",
		Short: "List the fields that can be shown of a " + what,
		Long: "Lists the fields that list -o can show and a filter can name, or those that are\n" +
			"given. A field that is not known ends the command with code 14.",
		Example:           fmt.Sprintf("  gnt-%s list-fields\n  gnt-%s list-fields --no-headers --separator : ctime", what, what),
		ValidArgsFunction: cobra.FixedCompletions(table.Names(), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(_ *cobra.Command, names []string) error {
			if len(names) == 0 {
				names = table.Names()
			}
			return listFields(a, table, names, noHeaders, separator)
		},
	})
	cmd.Flags().BoolVar(&noHeaders, "no-headers", false, "do not print the line of titles")
	cmd.Flags().StringVar(&separator, "separator", "", "print this between columns instead of aligning them")
	return cmd
}

func listFields[T any](a *app, table *query.Table[T], names []string, noHeaders bool, separator string) error {
	var lines [][]string
	if !noHeaders {
		lines = append(lines, []string{"Name", "Type", "Title", "Description"})
	}
	reports, unknown := []fieldReport{}, []string{}
	for _, name := range names {
		f, ok := table.Find(name)
		if !ok {
			unknown = append(unknown, name)
			lines = append(lines, []string{name, "Unknown", name, f.Doc})
			continue
		}
		lines = append(lines, []string{f.Name, f.Kind.String(), f.Title, f.Doc})
		reports = append(reports, fieldReport{f.Name, f.Kind.Wire(), f.Title, f.Doc})
	}
	var err error
	if a.asJSON {
		err = a.printJSON(reports)
	} else {
		err = writeLines(a.out, lines, separator)
	}
	if len(unknown) > 0 {
		err = errors.Join(err, &exitError{ExitUnknownField, "Warning: Queried for unknown fields " + strings.Join(unknown, ", ")})
	}
	return err
}
