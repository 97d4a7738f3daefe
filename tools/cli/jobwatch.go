package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

func (a *app) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch ID...",
		Short: "Follow jobs until they have ended, and exit as they did",
		Long: `Shows what jobs say, one after the other, until they have ended. On a terminal
the last line says how far a job has got, and is written over.`,
		Example: "  gnt-job watch 17",
		Args:    atLeastOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := jobIDs(args)
			if err != nil {
				return err
			}
			return a.each(ids, func(id int64) error {
				s := newScreen(a.out)
				if len(ids) > 1 {
					s.line(fmt.Sprintf("Job %d:", id))
				}
				defer s.clear()
				state, err := a.awaitKnown(cmd.Context(), id, follow(s, id))
				if err == nil {
					err = state.failure(id)
				}
				if err == nil {
					err = a.pending(state.unreachable)
				}
				return err
			})
		},
	}
}

// awaitKnown is await for a job that may not exist.
func (a *app) awaitKnown(ctx context.Context, id int64, f follower) (jobState, error) {
	state, err := a.await(ctx, id, f)
	if errors.Is(err, &cluster.Error{Code: cluster.CodeNotFound}) {
		return state, noJob(id)
	}
	return state, err
}

// each does something about several jobs. It goes on after a failure, says why
// it was one, and ends with the code of the first that is not just pending.
func (a *app) each(ids []int64, do func(id int64) error) error {
	if len(ids) == 1 {
		return do(ids[0])
	}
	code := ExitOK
	for _, id := range ids {
		err := do(id)
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err == nil {
			continue
		}
		explain(a.err, err)
		if code == ExitOK || code == ExitPending {
			code = exitCode(err)
		}
	}
	if code == ExitOK {
		return nil
	}
	return &exitError{code, ""}
}

func (a *app) waitCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait ID...",
		Short: "Wait until jobs have ended, silently",
		Long: `Waits until all of the jobs have ended, and prints nothing but why it cannot
wait. The exit code is 0 if all succeeded, 1 if one failed or was canceled, and
3 if a change is not effective on all nodes yet.`,
		Example: "  gnt-job wait 17\n  gnt-job wait --timeout 5m 17 18",
		Args:    atLeastOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := jobIDs(args)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if timeout < 0 {
				return usage("--timeout %s: want a time that is not negative, as 30s or 5m", timeout)
			}
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			err = a.each(ids, func(id int64) error { return a.wait(ctx, id) })
			if errors.Is(err, context.DeadlineExceeded) {
				return &exitError{ExitFailed, fmt.Sprintf("Not all jobs have ended within %s", timeout)}
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "wait no longer than this, as 30s or 5m; 0: for ever")
	return cmd
}

// wait waits for the end of a job, and says nothing about a failure.
func (a *app) wait(ctx context.Context, id int64) error {
	silent := follower{line: func(wire.LogEntry) {}, progress: func(wire.Progress) {}}
	state, err := a.awaitKnown(ctx, id, silent)
	switch {
	case err != nil:
		return err
	case state.status != "success":
		return &exitError{ExitFailed, ""}
	}
	return a.pending(state.unreachable)
}
