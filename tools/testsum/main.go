// Command testsum reads the output of `go test -json` on standard input and
// prints one line for each package, everything that a failed test printed, and
// as its last line
//
//	N passed, N failed, N skipped
//
// It exits with 1 if anything failed: a test, a build, a package that ended
// without a verdict, or the whole run by not containing a single test. Tests
// with subtests count through their subtests.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

func main() {
	ok, err := run(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run reports whether all went well.
func run(in io.Reader, out io.Writer) (bool, error) {
	w := bufio.NewWriter(out)
	s := newSummary(w)
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			s.line(line)
		}
		if s.printed { // a reader wants to see a package when it ends
			s.printed = false
			if err := w.Flush(); err != nil {
				return false, fmt.Errorf("write summary: %w", err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, fmt.Errorf("read test output: %w", err)
		}
	}
	ok := s.end()
	if err := w.Flush(); err != nil {
		return false, fmt.Errorf("write summary: %w", err)
	}
	return ok, nil
}
