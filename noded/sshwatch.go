package noded

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// A file that others change is looked at once it is quiet: a program that writes
// in place may be in the middle of it, and what it writes to a file that was
// replaced meanwhile is lost. One that never ends is answered now and then.
const (
	quietFor   = time.Second
	quietMost  = 5 * time.Second
	answerRate = 5 * time.Second
	answerOnce = 3
)

// calm waits for a reason to look at SSH's files.
type calm struct {
	events <-chan struct{} // nil: there is only the slow look
	limit  *rate.Limiter
	next   time.Time // no event is answered before
}

func newCalm(events <-chan struct{}) *calm {
	return &calm{events: events, limit: rate.NewLimiter(rate.Every(answerRate), answerOnce)}
}

// answered is told of each look that found something to put right.
func (c *calm) answered() { c.next = time.Now().Add(min(c.limit.Reserve().Delay(), answerRate)) }

// wait returns after the time, at news, or after others changed a file; news
// reports whether nothing but news ended it.
func (c *calm) wait(ctx context.Context, every time.Duration, ring <-chan struct{}) (news bool, err error) {
	timer := time.NewTimer(every)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false, nil
	case <-ring:
		return true, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-c.events:
	}
	return false, c.settle(ctx)
}

// settle waits until nothing happens any more, and until it is time to answer.
func (c *calm) settle(ctx context.Context) error {
	end := time.Now().Add(quietMost)
	for quiet := false; !quiet && time.Now().Before(end); {
		timer := time.NewTimer(quietFor)
		select {
		case <-timer.C:
			quiet = true
		case <-c.events:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return pause(ctx, time.Until(c.next), nil)
}
