package noded

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/paths"
	"rolekey/rpc"
)

// hooks runs the administrator's scripts. A script starts as the effect of its
// call, by the map of that moment, and is waited for outside of the effect. It
// never outlives its call by more than the time that a kill takes: a caller
// that loses its role, or its connection, ends the call and so the script, and
// no map waits for either.
type hooks struct {
	dir     string          // of all hooks
	above   []string        // folders above it that must be as safe
	turns   chan struct{}   // held by calls that run scripts
	script  time.Duration   // limit of one script
	phase   time.Duration   // limit of all scripts of a call
	running sync.WaitGroup  // scripts that have not ended
	owners  map[uint32]bool // who may own scripts: root, and whoever this daemon is
}

// hookTurns bounds the calls that run scripts at one time.
const hookTurns = 4

func newHooks(at paths.Layout) *hooks {
	return &hooks{
		dir: at.HooksDir(), above: []string{at.ConfigDir()}, turns: make(chan struct{}, hookTurns),
		script: rpc.HookScriptLimit, phase: rpc.HookPhaseLimit, owners: hookOwners(),
	}
}

// runHooks runs the scripts of one hook and phase.
func (m *member) runHooks(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.HooksRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	if err := req.Check(); err != nil {
		return nil, err
	}
	reply, err := m.hooks.run(ctx, req, func(start func() error) error { return rpc.Effect(ctx, start) })
	for _, r := range reply.Results {
		m.audit.Write(audit.Event{
			Act: audit.HookRun, Outcome: hookOutcomes[r.Status], Caller: q.Caller(), Op: req.Hook + " " + req.Phase, Target: r.Script, Version: q.Stamp.Version,
		})
	}
	return reply, err
}

var hookOutcomes = map[rpc.HookStatus]audit.Outcome{
	rpc.HookSucceeded: audit.OK, rpc.HookFailed: audit.Failed, rpc.HookRefused: audit.Refused,
}

// run runs the scripts one after the other. effect makes each start; its error
// ends the call. Where there is nothing to run nothing is done.
func (h *hooks) run(ctx context.Context, req rpc.HooksRequest, effect func(func() error) error) (rpc.HooksReply, error) {
	folder := req.Hook + "-" + req.Phase + ".d"
	found := h.find(folder)
	reply := rpc.HooksReply{Results: []rpc.HookResult{}}
	if req.Phase == rpc.HooksPre {
		reply.NoPost = len(h.find(req.Hook+"-"+rpc.HooksPost+".d")) == 0
	}
	if len(found) == 0 {
		return reply, nil
	}
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	default:
		return reply, cluster.Errorf(cluster.CodeBusy, "this node runs hooks of %d other calls", hookTurns)
	}
	end := time.Now().Add(h.phase)
	room := maxHookOutput
	for _, s := range found {
		r := rpc.HookResult{Script: s.name, Status: rpc.HookRefused, Reason: s.refused}
		if s.refused == "" {
			limit := min(h.script, time.Until(end))
			out := &hookOutput{left: min(room, maxScriptOutput)}
			reason, err := h.one(ctx, filepath.Join(h.dir, folder, s.name), req.Environ(), out, limit, effect)
			if err != nil && reason != "" {
				reply.Results = append(reply.Results, rpc.HookResult{Script: s.name, Status: rpc.HookFailed, Reason: reason})
			}
			if err != nil {
				return reply, err
			}
			r.Status, r.Reason, r.Output = rpc.HookSucceeded, reason, out.text()
			if reason != "" {
				r.Status = rpc.HookFailed
			}
			room -= len(r.Output)
		}
		reply.Results = append(reply.Results, r)
	}
	return reply, nil
}

// drainDelay is how long the output of a script is awaited after its end, from
// what it left in the background.
const drainDelay = 500 * time.Millisecond

// one runs a script and returns why it failed, or "". An error means that the
// call is over, and a reason beside it that the script had begun.
func (h *hooks) one(ctx context.Context, path string, env []string, out *hookOutput, limit time.Duration, effect func(func() error) error) (reason string, err error) {
	if limit <= 0 {
		return fmt.Sprintf("not run: the scripts before it took all of %s", h.phase), nil
	}
	cmd := exec.Command(path)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = env, "/", out, out, drainDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a process group of its own, and no terminal
	var failed error
	if err := effect(func() error { failed = cmd.Start(); return nil }); err != nil {
		return "", err
	}
	if failed != nil {
		return fmt.Sprintf("cannot be started: %v", failed), nil
	}
	ended := make(chan error, 1)
	h.running.Go(func() { ended <- cmd.Wait() })
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-ended:
		return endOfScript(err), nil
	case <-timer.C:
		kill(cmd)
		return fmt.Sprintf("killed after %s", limit.Round(time.Millisecond)), nil
	case <-ctx.Done():
		kill(cmd)
		return "killed: its caller is gone", fmt.Errorf("run hooks: %w", context.Cause(ctx))
	}
}

// kill ends a script with its process group. Nobody waits here: a process that
// hangs in the kernel dies when that lets go of it.
func kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

func endOfScript(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return ""
	case errors.As(err, &exit) && exit.Exited():
		return fmt.Sprintf("exit code %d", exit.ExitCode())
	default:
		return err.Error() // such as "signal: killed"
	}
}

// wait returns when no script runs any more; call it when no call does.
func (h *hooks) wait() { h.running.Wait() }
