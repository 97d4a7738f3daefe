// Package task runs the goroutines of a daemon so that each has an owner that
// waits for it.
//
// Guarantees: the first task to fail cancels the others, with its error as
// the context's cause; a panic and a runtime.Goexit become errors, so that one
// broken task ends the daemon in order instead of tearing it down; Wait returns
// only after every task has; every error names its task. Ending because the
// context ended is not a failure.
//
// All methods may be called concurrently; Go may be called from a task of the
// group itself.
package task

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// errGoexit says that a task left by runtime.Goexit, as t.FailNow does.
var errGoexit = errors.New("task called runtime.Goexit")

// PanicError is the error of a task that panicked.
type PanicError struct {
	Value any    // what was given to panic
	Stack []byte // the stack of the task at the panic
}

// Error implements error. The stack is part of the text: a panic is a bug, and
// the log is where it is looked for.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// Unwrap gives the value of a panic(err).
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Group is a set of tasks that live and die together.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	once   sync.Once
	err    error
}

// New returns an empty group whose tasks end when ctx does.
func New(ctx context.Context) *Group {
	g := &Group{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// Context returns the context that the tasks get. Its cause is the error of
// the first task that failed.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts fn. Name appears in its error.
func (g *Group) Go(name string, fn func(ctx context.Context) error) {
	g.wg.Go(func() {
		// In a defer, because after Goexit nothing else runs.
		err := errGoexit
		defer func() { g.finish(name, err) }()
		err = call(g.ctx, fn)
	})
}

// Stop asks all tasks to end; that is not a failure.
func (g *Group) Stop() { g.cancel(context.Canceled) }

// Wait waits for every task, ends the context, and returns the error of the
// task that failed first, or nil. After it the group may not be used again.
func (g *Group) Wait() error {
	g.wg.Wait()
	g.cancel(context.Canceled)
	return g.err
}

func (g *Group) finish(name string, err error) {
	if err == nil || g.asked(err) {
		return
	}
	g.once.Do(func() {
		g.err = fmt.Errorf("%s: %w", name, err)
		g.cancel(g.err)
	})
}

// asked reports whether err only says that the group's context has ended.
func (g *Group) asked(err error) bool {
	if g.ctx.Err() == nil {
		return false
	}
	return errors.Is(err, g.ctx.Err()) || errors.Is(err, context.Cause(g.ctx))
}

func call(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return fn(ctx)
}
