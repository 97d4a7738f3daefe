package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// outputDelay is how long output is read on after a command has ended, from
// processes that it left in the background.
const outputDelay = 5 * time.Second

// Cmd is a command to run inside a cluster.
type Cmd struct {
	// Node is where to run: ROLEKEY_ROOT, HOME, and on PATH the node's own
	// ssh. Empty means inside the namespaces, and nothing else.
	Node string
	Args []string
	// Env is added to the caller's environment.
	Env []string
	// Stdin defaults to nothing, Stdout and Stderr default to the null device.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Result is what a command has printed, and its exit code; 128+N after signal N.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Exec runs a command on a node and waits for it. A code other than 0 is no
// error.
func (c *Cluster) Exec(ctx context.Context, node string, argv ...string) (Result, error) {
	return c.Run(ctx, Cmd{Node: node, Args: argv})
}

// Run runs a command and waits for it. What Stdout and Stderr of cmd do not
// take is in the result. The end of ctx kills the command.
func (c *Cluster) Run(ctx context.Context, cmd Cmd) (Result, error) {
	var out, errOut bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &errOut
	}
	p, err := c.Spawn(ctx, cmd)
	if err != nil {
		return Result{Code: -1}, err
	}
	code, err := p.Wait()
	return Result{Stdout: out.String(), Stderr: errOut.String(), Code: code}, err
}

// Process is a command that runs inside the cluster.
type Process struct {
	// Stdin is set if Cmd.Stdin was nil, Stdout if Cmd.Stdout was. The caller
	// may read Stdout until its end, and must read it if much is printed.
	Stdin  io.WriteCloser
	Stdout io.ReadCloser

	pid    int
	conn   *net.UnixConn
	dec    *json.Decoder
	stop   func() bool
	ctx    context.Context
	copies sync.WaitGroup
	pipes  []*os.File // our ends, read by copies

	once sync.Once
	code int
	err  error
}

// Spawn starts a command and returns at once. The end of ctx, and Kill, end it
// with all of its process group. Wait must be called.
func (c *Cluster) Spawn(ctx context.Context, cmd Cmd) (*Process, error) {
	p := &Process{ctx: ctx, code: -1}
	files, err := p.connectPipes(cmd)
	defer closeAll(files)
	if err != nil {
		p.closePipes()
		return nil, err
	}
	if err := p.begin(c, cmd, files); err != nil {
		p.closePipes()
		return nil, err
	}
	return p, nil
}

// SpawnFiles starts a command that uses the given files itself: the way of the
// command line. The three files of cmd are not used. Wait must be called.
func (c *Cluster) SpawnFiles(ctx context.Context, cmd Cmd, stdin, stdout, stderr *os.File) (*Process, error) {
	p := &Process{ctx: ctx, code: -1}
	if err := p.begin(c, cmd, []*os.File{stdin, stdout, stderr}); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Process) begin(c *Cluster, cmd Cmd, files []*os.File) error {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	req := request{Op: opExec, Argv: cmd.Args, Env: append(without(os.Environ()), cmd.Env...), Dir: dir}
	if cmd.Node != "" {
		req.Nodes = []string{cmd.Node}
	}
	if p.conn, err = c.dial(p.ctx); err != nil {
		return err
	}
	p.stop = context.AfterFunc(p.ctx, func() { p.conn.Close() })
	p.dec = json.NewDecoder(p.conn)
	var r reply
	if err = writeRequest(p.conn, req, files); err == nil {
		r, err = readReply(p.dec)
	}
	if err != nil {
		p.stop()
		p.conn.Close()
		return fmt.Errorf("exec %q: %w", cmd.Args, err)
	}
	p.pid = r.PID
	return nil
}

// connectPipes makes the files of the command.
func (p *Process) connectPipes(cmd Cmd) (files []*os.File, err error) {
	in, ours, err := os.Pipe()
	if err != nil {
		return files, fmt.Errorf("make pipe: %w", err)
	}
	files = append(files, in)
	p.feed(cmd.Stdin, ours)
	out, theirs, err := os.Pipe()
	if err != nil {
		return files, fmt.Errorf("make pipe: %w", err)
	}
	files = append(files, theirs)
	if cmd.Stdout == nil {
		p.Stdout = out
	} else {
		p.drain(cmd.Stdout, out)
	}
	if cmd.Stderr == nil {
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return files, fmt.Errorf("open null device: %w", err)
		}
		return append(files, null), nil
	}
	out, theirs, err = os.Pipe()
	if err != nil {
		return files, fmt.Errorf("make pipe: %w", err)
	}
	p.drain(cmd.Stderr, out)
	return append(files, theirs), nil
}

// feed copies src to the command, or leaves the pipe to the caller. A source
// that blocks for ever outlives the command, so nobody waits for the copy.
func (p *Process) feed(src io.Reader, pipe *os.File) {
	if src == nil {
		p.Stdin = pipe
		return
	}
	go func() {
		_, _ = io.Copy(pipe, src) // a command may read less than it is given
		pipe.Close()
	}()
}

func (p *Process) drain(dst io.Writer, pipe *os.File) {
	p.pipes = append(p.pipes, pipe)
	p.copies.Go(func() { _, _ = io.Copy(dst, pipe) })
}

func (p *Process) closePipes() {
	if p.Stdin != nil {
		p.Stdin.Close()
	}
	if p.Stdout != nil {
		p.Stdout.Close()
	}
	closeAll(p.pipes)
	p.copies.Wait()
}

// PID is the command's process id.
func (p *Process) PID() int { return p.pid }

// Signal sends a signal to the command's process group.
func (p *Process) Signal(sig syscall.Signal) error {
	if _, err := p.conn.Write([]byte{byte(sig)}); err != nil {
		return fmt.Errorf("signal command: %w", err)
	}
	return nil
}

// Kill ends the command and its process group with SIGKILL.
func (p *Process) Kill() error { return p.Signal(syscall.SIGKILL) }

// Wait waits for the end of the command and of its output, and returns the exit
// code. It may be called more than once. It closes Stdin, since most commands
// wait for its end; Stdout stays readable.
func (p *Process) Wait() (int, error) {
	p.once.Do(func() {
		if p.Stdin != nil {
			p.Stdin.Close()
		}
		r, err := readReply(p.dec)
		p.stop()
		p.conn.Close()
		p.finishOutput()
		switch {
		case err != nil && p.ctx.Err() != nil:
			p.err = fmt.Errorf("exec: %w", p.ctx.Err())
		case err != nil:
			p.err = fmt.Errorf("exec: %w", err)
		case r.Exit == nil:
			p.err = errors.New("exec: no exit code")
		default:
			p.code = *r.Exit
		}
	})
	return p.code, p.err
}

// finishOutput reads the rest of the output, but not for ever.
func (p *Process) finishOutput() {
	for _, f := range p.pipes {
		_ = f.SetReadDeadline(time.Now().Add(outputDelay)) // pipes have deadlines
	}
	p.copies.Wait()
	closeAll(p.pipes)
}
