package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// screen prints lines. On a terminal it keeps one line below them, which is
// written again and again and says how things are; elsewhere that is left out.
// It uses carriage returns and blanks only, so that any terminal will do.
type screen struct {
	out   io.Writer
	width func() int // of the terminal in characters; nil: there is none
	shown int        // characters of the line that is there now
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	if f, ok := out.(*os.File); ok && os.Getenv("TERM") != "dumb" && terminalWidth(f) > 0 {
		s.width = func() int { return terminalWidth(f) }
	}
	return s
}

// usualWidth is taken for that of a terminal which does not know its own.
const usualWidth = 80

// terminalWidth returns the width of a terminal; 0: it is none.
func terminalWidth(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col == 0 {
		return usualWidth
	}
	return int(size.Col)
}

// live reports whether there is a terminal.
func (s *screen) live() bool { return s.width != nil }

// line prints a line that stays.
func (s *screen) line(text string) {
	s.clear()
	fmt.Fprintln(s.out, printable(text))
}

// now rewrites the line that says how things are. What does not fit is cut, and
// never wraps: a wrapped line could not be written over.
func (s *screen) now(text string) {
	if !s.live() {
		return
	}
	text = cut(strings.ReplaceAll(printable(text), "\n", " "), s.width()-1)
	n := utf8.RuneCountInString(text)
	fmt.Fprint(s.out, "\r"+text+s.blanks(s.shown-n)+"\r")
	s.shown = n
}

// clear removes that line.
func (s *screen) clear() {
	if s.shown > 0 {
		fmt.Fprint(s.out, "\r"+s.blanks(s.shown)+"\r")
		s.shown = 0
	}
}

// blanks returns n blanks, but no more than fit into the line.
func (s *screen) blanks(n int) string { return strings.Repeat(" ", max(0, min(n, s.width()-1))) }

// cut shortens a text to so many characters, and shows that it did.
func cut(text string, width int) string {
	const mark = "..."
	runes := []rune(strings.ReplaceAll(text, "\t", " "))
	switch {
	case len(runes) <= width:
		return string(runes)
	case width <= len(mark):
		return strings.Repeat(".", max(0, width))
	}
	return string(runes[:width-len(mark)]) + mark
}

// printable keeps what could take over a terminal out of a text.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}
