package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

// confirm asks a question on standard error and reads the answer from standard
// input; everything but y or yes, and no answer at all, declines.
func (a *app) confirm(question string) error {
	in := a.in
	if in == nil {
		in = os.Stdin
	}
	fmt.Fprintf(a.err, "%s\ny/[n]: ", question)
	line, err := bufio.NewReader(io.LimitReader(in, 1<<10)).ReadString('\n')
	if err != nil {
		fmt.Fprintln(a.err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return &exitError{ExitDeclined, "Declined; nothing was changed."}
}
