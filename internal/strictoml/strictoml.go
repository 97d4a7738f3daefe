// Package strictoml reads configuration files in TOML (toml.io, v1.0) so that a
// mistake is an error with a line: a key that nobody asked for is refused, and
// nothing is guessed. Its functions may be used concurrently.
package strictoml

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// Decode reads text, the content of the file at path, into a struct. Errors
// begin with path and, where there is one, the line.
func Decode(path, text string, into any) error {
	meta, err := toml.Decode(text, into)
	if err != nil {
		var perr toml.ParseError
		if errors.As(err, &perr) {
			where := fmt.Sprintf("%s:%d: ", path, perr.Position.Line)
			if perr.LastKey != "" {
				where += perr.LastKey + ": "
			}
			return errors.New(where + perr.Message)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return unknownKey(path, text, unknown[0])
	}
	return nil
}

// unknownKey finds the line of a key, for the message.
func unknownKey(path, text string, key toml.Key) error {
	table := strings.Join(key[:len(key)-1], ".")
	here, n := table == "", 0
	for l := range strings.Lines(text) {
		n++
		name, isTable, ok := word(l)
		if isTable {
			here = name == table
			if ok && name == key.String() {
				return fmt.Errorf("%s:%d: unknown key %q", path, n, key)
			}
			continue
		}
		if ok && (here && name == key[len(key)-1] || name == key.String()) {
			return fmt.Errorf("%s:%d: unknown key %q", path, n, key)
		}
	}
	return fmt.Errorf("%s: unknown key %q", path, key)
}

// word returns the key or the table that a line begins with. It serves
// messages only: the parser has judged the text before.
func word(line string) (name string, table, ok bool) {
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
