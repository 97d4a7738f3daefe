package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

// Bounds of what is done on many nodes by ssh(1).
const (
	sshAtOnce     = 8
	sshConnect    = 10 * time.Second
	sshAlive      = 15 * time.Second // a dead peer is noticed after three times this
	maxSSHOutput  = 1 << 20          // kept of one node
	sshWait       = 2 * time.Second  // for the end of an ssh that was told to end
	sshNoExitCode = 255              // ssh's own, for all that is not the command's
)

// remote is what one node is to do.
type remote struct {
	node    wire.Node
	to      string // where ssh connects to: the node's name, or one of its addresses
	command string // for the shell of the account there
	stdin   io.Reader
}

// done is what came of it. Code is the command's exit code, or 255 if ssh
// failed; err tells why nothing came of it at all.
type done struct {
	node      wire.Node
	code      int
	output    string // both its streams, as they came
	truncated bool
	err       error
}

func (d *done) failed() bool { return d.err != nil || d.code != 0 }

// online returns the nodes that are named, or all, each once, the master last;
// what is offline is left out and named on standard error.
func (a *app) online(ctx context.Context, refs []string) (nodes []wire.Node, offline []string, err error) {
	list, err := a.nodes(ctx, refs)
	if err != nil {
		return nil, nil, err
	}
	offline = []string{}
	seen := map[cluster.NodeID]bool{}
	for _, n := range list {
		switch {
		case seen[n.UUID]:
		case n.Offline:
			offline = append(offline, string(n.Name))
		default:
			nodes = append(nodes, n)
		}
		seen[n.UUID] = true
	}
	slices.SortStableFunc(nodes, func(x, y wire.Node) int { return last(x) - last(y) })
	if len(offline) > 0 {
		a.note("Left out, because offline: %s", strings.Join(offline, ", "))
	}
	return nodes, offline, nil
}

func last(n wire.Node) int {
	if n.Role == "M" {
		return 1
	}
	return 0
}

// overSSH does the work of all, some at once, and tells each result in the
// order of the work.
func overSSH(ctx context.Context, work []remote, tell func(done)) error {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		return fmt.Errorf("find ssh: %w", err)
	}
	results := make([]chan done, len(work))
	for i := range results {
		results[i] = make(chan done, 1)
	}
	room := make(chan struct{}, sshAtOnce)
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all.Go(func() {
		for i, w := range work {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return
			}
			all.Go(func() {
				defer func() { <-room }()
				results[i] <- runSSH(ctx, ssh, w)
			})
		}
	})
	return collectSSH(ctx, results, tell)
}

func collectSSH(ctx context.Context, results []chan done, tell func(done)) error {
	for _, r := range results {
		select {
		case d := <-r:
			tell(d)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// sshArgs are the arguments of one ssh(1). The port, the key and the host key
// come from the file that noded writes for ssh.
func sshArgs(w remote) []string {
	return []string{
		"-o", "BatchMode=yes", "-o", fmt.Sprintf("ConnectTimeout=%d", int(sshConnect.Seconds())),
		"-o", fmt.Sprintf("ServerAliveInterval=%d", int(sshAlive.Seconds())), "-o", "ControlPath=none", "-T", "--", w.to, w.command,
	}
}

func runSSH(ctx context.Context, ssh string, w remote) done {
	d := done{node: w.node, code: sshNoExitCode}
	if err := ctx.Err(); err != nil {
		d.err = err
		return d
	}
	var out head
	cmd := exec.CommandContext(ctx, ssh, sshArgs(w)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = w.stdin, &out, &out, sshWait
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err := cmd.Run()
	d.output, d.truncated = out.kept.String(), out.more
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // it left something in the background
		d.code = 0
	case errors.As(err, &exit) && exit.Exited():
		d.code = exit.ExitCode()
	default:
		d.err = err
	}
	return d
}

// head keeps the beginning of an output. exec writes both streams of a command
// to it one after the other.
type head struct {
	kept bytes.Buffer
	more bool
}

// Write implements io.Writer; it never fails, so that the command goes on.
func (h *head) Write(p []byte) (int, error) {
	n := min(len(p), maxSSHOutput-h.kept.Len())
	h.kept.Write(p[:n])
	h.more = h.more || n < len(p)
	return len(p), nil
}

// quoted makes a text one word of any shell of the Bourne family.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
