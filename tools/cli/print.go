package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// printJSON prints an object as JSON, indented for people who look at it.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

// note tells people something that was not asked for.
func (a *app) note(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

// when prints a time for people: local, with offset.
func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 -0700") }

// bound prints the end of a node's trust.
func bound(t *time.Time) string {
	if t == nil {
		return "no bound"
	}
	return when(*t)
}

// yesNo is a switch for people.
func yesNo(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// item is a line of Ganeti's YAML-like descriptions: a key with a value, or
// with items below it.
type item struct {
	key   string
	value any // a text, []item, or []string
}

// printItems prints them, indented.
func printItems(w io.Writer, items []item, indent string) {
	for _, i := range items {
		switch v := i.value.(type) {
		case []item:
			fmt.Fprintf(w, "%s%s:\n", indent, i.key)
			printItems(w, v, indent+"  ")
		case []string:
			if len(v) == 0 {
				fmt.Fprintf(w, "%s%s: []\n", indent, i.key)
				continue
			}
			fmt.Fprintf(w, "%s%s:\n", indent, i.key)
			for _, s := range v {
				fmt.Fprintf(w, "%s  - %s\n", indent, s)
			}
		default:
			fmt.Fprintf(w, "%s%s: %v\n", indent, i.key, v)
		}
	}
}

// printList prints descriptions as the elements of a list.
func printList(w io.Writer, list [][]item) {
	for _, items := range list {
		var text strings.Builder
		printItems(&text, items, "  ")
		fmt.Fprint(w, "- "+strings.TrimPrefix(text.String(), "  "))
	}
}

func toStrings[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}
