package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// patience bounds every wait for something that must come.
const patience = 20 * time.Second

// teller tells the story and keeps the score.
type teller struct {
	c    *kit.Cluster
	out  io.Writer
	work string // for the attacker's files
	up   time.Duration

	master string // the node on which administrators work now
	loot   map[string]*kit.Loot

	passed, failed, skipped int
}

func newTeller(ctx context.Context, dir string, out io.Writer) (*teller, error) {
	c, err := kit.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "rolekey-demo-")
	if err != nil {
		return nil, fmt.Errorf("make folder for loot: %w", err)
	}
	t := &teller{c: c, out: out, work: work, loot: map[string]*kit.Loot{}}
	t.master, err = c.Master(ctx)
	return t, err
}

// errSkip marks what cannot be shown on this machine.
var errSkip = errors.New("skipped")

func skipf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errSkip}, args...)...)
}

// claim prints one line. The check returns what it measured.
func (t *teller) claim(text string, check func() (string, error)) bool {
	seen, err := check()
	switch {
	case errors.Is(err, errSkip):
		t.skipped++
		t.line("SKIP", text, strings.TrimPrefix(err.Error(), errSkip.Error()+": "))
		return false
	case err != nil:
		t.failed++
		t.line("FAIL", text, join(seen, oneLine(err)))
		return false
	}
	t.passed++
	t.line("PASS", text, seen)
	return true
}

func join(seen, trouble string) string {
	if seen == "" {
		return trouble
	}
	return seen + "; " + trouble
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// column is where the measured values begin, if the text leaves room.
const column = 68

func (t *teller) line(verdict, text, seen string) {
	if seen == "" {
		fmt.Fprintf(t.out, "  %s  %s\n", verdict, text)
		return
	}
	fmt.Fprintf(t.out, "  %s  %-*s  %s\n", verdict, column, text, seen)
}

// end prints the score and returns the exit code.
func (t *teller) end() int {
	fmt.Fprintf(t.out, "%d passed, %d failed", t.passed, t.failed)
	if t.skipped > 0 {
		fmt.Fprintf(t.out, ", %d skipped", t.skipped)
	}
	fmt.Fprintln(t.out)
	if t.failed > 0 || t.passed == 0 {
		return 1
	}
	return 0
}

// ms prints a duration as the claims do.
func ms(d time.Duration) string {
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}

// node returns a node that certainly exists.
func (t *teller) node(ctx context.Context, name string) (lab.Node, error) { return t.c.Node(ctx, name) }

// rob steals everything that lies on a node's disk now, and keeps it.
func (t *teller) rob(ctx context.Context, as, name string) (*kit.Loot, error) {
	n, err := t.c.Node(ctx, name)
	if err != nil {
		return nil, err
	}
	l, err := kit.Steal(n)
	if err != nil {
		return nil, err
	}
	t.loot[as] = l
	return l, nil
}

// everywhere runs a check against several nodes and counts.
func everywhere(nodes []lab.Node, check func(lab.Node) error) (int, error) {
	done := 0
	for _, n := range nodes {
		if err := check(n); err != nil {
			return done, fmt.Errorf("%s: %w", n.Short(), err)
		}
		done++
	}
	return done, nil
}
