package rpc

import (
	"context"
	"io"
	"sync/atomic"
	"time"
)

// The warden enforces all times of a server: of calls, of slow bodies and slow
// readers, of idle connections. It looks at every connection a few times in
// the shortest limit, at most once a second. Timers of each call's own would
// cost every call more than the whole gate does, because each wakes the
// runtime's poller.

const (
	slowestPatrol = time.Second
	fastestPatrol = 10 * time.Millisecond
	// writeSlack is how much longer than its method's time a call may take to
	// hand over its answer.
	writeSlack = 30 * time.Second
)

// patrol runs until ctx ends.
func (s *Server) patrol(ctx context.Context) {
	every := min(max(min(s.limits.Idle, s.limits.Body)/4, fastestPatrol), slowestPatrol)
	idle := int64(s.limits.Idle / every)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			round := s.round.Add(1)
			for _, c := range s.conns.all() {
				c.inspect(now, round, idle)
			}
		}
	}
}

// inspect ends the calls of a connection that are over their time, and the
// connection itself if it has been idle for too many rounds, or if a call can
// only be ended that way.
func (c *conn) inspect(now time.Time, round, idle int64) {
	var late []context.CancelCauseFunc
	c.mu.Lock()
	hangs := c.calls == 0 && round-c.idleSince > idle
	for q := c.first; q != nil; q = q.next {
		if q.cancel != nil && now.After(q.deadline) {
			late = append(late, q.cancel)
		}
		hangs = hangs || now.After(q.deadline.Add(writeSlack)) || q.body != nil && q.body.late(now)
	}
	c.mu.Unlock()
	for _, cancel := range late {
		cancel(context.DeadlineExceeded)
	}
	if hangs {
		c.abort()
	}
}

// link and unlink keep the list of calls in flight; under mu.
func (c *conn) link(q *Request) {
	c.calls++
	c.busy.Store(true)
	q.next = c.first
	if c.first != nil {
		c.first.prev = q
	}
	c.first = q
}

func (c *conn) unlink(q *Request) {
	c.calls--
	c.busy.Store(c.calls > 0)
	if q.prev != nil {
		q.prev.next = q.next
	} else {
		c.first = q.next
	}
	if q.next != nil {
		q.next.prev = q.prev
	}
	c.idleSince = c.srv.round.Load()
}

// supervise makes the warden end the call's context at its deadline, and its
// connection if the body is late.
func (c *conn) supervise(q *Request, cancel context.CancelCauseFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q.cancel = cancel
}

// callContext is the context of a call. It ends at the deadline, give or take
// a round of the warden, and leads Effect to the call.
type callContext struct {
	context.Context
	q *Request
}

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) { return c.q.deadline, true }

// Err implements context.Context.
func (c *callContext) Err() error {
	err := c.Context.Err()
	if err != nil && context.Cause(c.Context) == context.DeadlineExceeded {
		return context.DeadlineExceeded
	}
	return err
}

// Value implements context.Context.
func (c *callContext) Value(key any) any {
	if key == (requestKey{}) {
		return c.q
	}
	return c.Context.Value(key)
}

// timedBody is a body that must have arrived by a time.
type timedBody struct {
	io.ReadCloser
	by   time.Time
	done atomic.Bool
}

// Read implements io.Reader.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.done.Store(true)
	}
	return n, err
}

func (b *timedBody) late(now time.Time) bool { return !b.done.Load() && now.After(b.by) }
