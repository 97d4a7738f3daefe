package cli

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// defaultsVar names the variable with default arguments of a command, for the
// commands that have one; all of these only read.
var defaultsVar = map[string]string{"gnt-node list": "GNT_NODE_LIST"}

// withDefaults puts the default arguments of the command that args call in
// front of its own.
func withDefaults(program *cobra.Command, args []string) ([]string, error) {
	cmd, own, err := program.Find(args)
	if err != nil {
		return args, nil // which the program will say itself
	}
	name := defaultsVar[cmd.CommandPath()]
	text := os.Getenv(name)
	if name == "" || text == "" {
		return args, nil
	}
	words, ok := shellWords(text)
	if !ok {
		return nil, usage("$%s: a quote is not closed", name)
	}
	return slices.Concat([]string{cmd.Name()}, words, own), nil
}

// shellWords splits a text at blanks, as a shell does: quotes keep blanks, and
// a backslash keeps the next character, but not in single quotes. ok is false
// if a quote is not closed.
func shellWords(text string) (words []string, ok bool) {
	var word strings.Builder
	var quote rune
	var begun, kept bool
	for _, r := range text {
		switch {
		case kept:
			word.WriteRune(r)
			kept = false
		case r == '\\' && quote != '\'':
			begun, kept = true, true
		case r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			begun, quote = true, r
		case strings.ContainsRune(" \t\r\n", r):
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			begun = true
			word.WriteRune(r)
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words, quote == 0 && !kept
}
