package noded

import (
	"iter"
	"strings"
)

// lines numbers the lines of a text, from 1.
func lines(text string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		n := 0
		for l := range strings.Lines(text) {
			if n++; !yield(n, l) {
				return
			}
		}
	}
}

// tomlWord returns the key or the table that a line begins with. It serves
// messages only: the parser has judged the text before.
func tomlWord(line string) (name string, table, ok bool) {
	line = strings.TrimSpace(line)
	switch {
	case line == "" || line[0] == '#':
		return "", false, false
	case line[0] == '[':
		name, _, ok = strings.Cut(strings.TrimLeft(line, "["), "]")
		return strings.TrimSpace(name), true, ok
	}
	name, _, ok = strings.Cut(line, "=")
	return strings.Trim(strings.TrimSpace(name), `"'`), false, ok
}
