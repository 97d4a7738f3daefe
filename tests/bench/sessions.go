package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"rolekey/internal/lab"
)

// sessions measures how long SSH sessions outlive the role that opened them: it
// promotes the last node, has it open a session on every other one, and demotes
// it.
func (b *bench) sessions(ctx context.Context) error {
	node := "node" + strconv.Itoa(b.nodes)
	var fromStart, fromEnd []float64
	for range b.rounds {
		if _, err := b.command(ctx, "gnt-node", "modify", "-C", "yes", node); err != nil {
			return err
		}
		others, err := b.c.Others(ctx, node)
		if err != nil {
			return err
		}
		ends := make(chan sessionEnd, len(others))
		for _, to := range others {
			if err := b.openSession(ctx, node, to.Name, ends); err != nil {
				return err
			}
		}
		start := time.Now()
		took, err := b.command(ctx, "gnt-node", "modify", "-C", "no", node)
		if err != nil {
			return err
		}
		last, err := lastEnd(ctx, ends, len(others), start)
		if err != nil {
			return err
		}
		fromStart = append(fromStart, ms(last.Sub(start)))
		fromEnd = append(fromEnd, ms(last.Sub(start)-took))
	}
	what := fmt.Sprintf("last of %d SSH sessions gone", b.nodes-1)
	show(what+", after the command's start", "ms", fromStart, target{})
	show(what+", after its end", "ms", fromEnd, atMost(1000))
	return nil
}

// sessionEnd is when the client of a session saw its end.
type sessionEnd struct {
	at  time.Time
	err error
}

// openSession returns once a command runs in the session.
func (b *bench) openSession(ctx context.Context, from, to string, ends chan<- sessionEnd) error {
	p, err := b.c.Spawn(ctx, lab.Cmd{Node: from, Args: []string{"ssh", "-n", "-o", "BatchMode=yes", to, "echo ready; exec sleep 600"}})
	if err != nil {
		return err
	}
	out := bufio.NewReader(p.Stdout)
	if line, err := out.ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		return errors.Join(fmt.Errorf("ssh from %s to %s: no session: %q", from, to, line), err, p.Kill())
	}
	go func() { // ends with the session, or with ctx
		_, err := io.Copy(io.Discard, out)
		at := time.Now()
		_, waitErr := p.Wait()
		ends <- sessionEnd{at, errors.Join(err, waitErr)}
	}()
	return nil
}

// lastEnd waits for the ends of so many sessions, none of them before start.
func lastEnd(ctx context.Context, ends <-chan sessionEnd, n int, start time.Time) (last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for i := range n {
		select {
		case e := <-ends:
			if e.err != nil || e.at.Before(start) {
				return last, errors.Join(errors.New("a session ended before the demotion, or badly"), e.err)
			}
			if e.at.After(last) {
				last = e.at
			}
		case <-ctx.Done():
			return last, fmt.Errorf("%d of %d sessions go on", n-i, n)
		}
	}
	return last, nil
}
