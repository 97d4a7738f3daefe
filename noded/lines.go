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
