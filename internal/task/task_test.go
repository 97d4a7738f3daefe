package task

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var errBoom = errors.New("boom")

func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestFirstErrorCancelsOthersAndIsNamed(t *testing.T) {
	g := New(t.Context())
	g.Go("idle", untilDone)
	g.Go("listener", func(context.Context) error { return errBoom })
	err := g.Wait()
	if !errors.Is(err, errBoom) || err.Error() != "listener: boom" {
		t.Errorf("Wait: %v", err)
	}
	if cause := context.Cause(g.Context()); cause != err {
		t.Errorf("cause %v, want %v", cause, err)
	}
}

func TestLaterErrorsDoNotReplaceTheFirst(t *testing.T) {
	g := New(t.Context())
	g.Go("second", func(ctx context.Context) error {
		<-ctx.Done()
		return errors.New("close failed")
	})
	g.Go("first", func(context.Context) error { return errBoom })
	if err := g.Wait(); err.Error() != "first: boom" {
		t.Errorf("Wait: %v", err)
	}
}

func TestSuccess(t *testing.T) {
	g := New(t.Context())
	ran := make(chan struct{}, 2)
	g.Go("outer", func(context.Context) error {
		g.Go("inner", func(context.Context) error { ran <- struct{}{}; return nil })
		ran <- struct{}{}
		return nil
	})
	if err := g.Wait(); err != nil || len(ran) != 2 {
		t.Errorf("Wait: %v after %d of 2 tasks", err, len(ran))
	}
}

func TestEndingWhenAskedIsNoFailure(t *testing.T) {
	cases := map[string]func(g *Group, cancel context.CancelCauseFunc){
		"parent":       func(_ *Group, cancel context.CancelCauseFunc) { cancel(nil) },
		"parent cause": func(_ *Group, cancel context.CancelCauseFunc) { cancel(errBoom) },
		"stop":         func(g *Group, _ context.CancelCauseFunc) { g.Stop() },
	}
	for name, end := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			g := New(ctx)
			g.Go("cause", untilDone)
			g.Go("err", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			end(g, cancel)
			if err := g.Wait(); err != nil {
				t.Errorf("Wait: %v", err)
			}
		})
	}
}

func TestCancelledCallBeforeTheEndIsAFailure(t *testing.T) {
	g := New(t.Context())
	g.Go("call", func(context.Context) error { return context.Canceled })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v, want %v", err, context.Canceled)
	}
}

func TestPanicBecomesError(t *testing.T) {
	g := New(t.Context())
	g.Go("idle", untilDone)
	g.Go("bad", func(context.Context) error { panic(errBoom) })
	err := g.Wait()
	var p *PanicError
	if !errors.As(err, &p) || !errors.Is(err, errBoom) {
		t.Fatalf("Wait: %v", err)
	}
	if !strings.HasPrefix(err.Error(), "bad: panic: boom") || !strings.Contains(string(p.Stack), "TestPanicBecomesError") {
		t.Errorf("error lacks task, value or stack: %v", err)
	}
}

func TestGoexitBecomesError(t *testing.T) {
	g := New(t.Context())
	g.Go("idle", untilDone)
	g.Go("left", func(context.Context) error { runtime.Goexit(); return nil })
	if err := g.Wait(); !errors.Is(err, errGoexit) {
		t.Errorf("Wait: %v, want %v", err, errGoexit)
	}
}

func TestWaitWaitsForSlowTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		g := New(t.Context())
		g.Go("fails", func(context.Context) error { return errBoom })
		g.Go("slow to end", func(ctx context.Context) error {
			<-ctx.Done()
			<-time.After(time.Minute)
			return nil
		})
		if err := g.Wait(); !errors.Is(err, errBoom) || time.Since(start) != time.Minute {
			t.Errorf("Wait: %v after %v", err, time.Since(start))
		}
	})
}
