package masterd

import (
	"sync"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

// clock is the time that a leader puts on maps and beacons. A majority of the
// voters confirms it, by signing a beacon, before anything is committed: a map
// that is dated into the future could be signed by nobody until that time has
// come. Once confirmed, it runs on by the monotonic clock, whatever happens to
// the wall clock.
type clock struct {
	wall func() time.Time

	mu sync.Mutex
	at time.Time // the time that was confirmed last; zero: none
	on time.Time // when that was, with a monotonic reading
}

func newClock(wall func() time.Time) *clock { return &clock{wall: wall} }

// drift is how far the wall clock may be from the confirmed time and still be
// what the next beacon tries: it follows slow corrections, and not jumps.
const drift = candmap.MaxSkew / 2

// now returns the wall clock's time, unless it has jumped since a majority
// confirmed it.
func (c *clock) now() time.Time {
	wall := c.wall()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return wall
	}
	if run := c.at.Add(time.Since(c.on)); wall.Sub(run).Abs() > drift {
		return run
	}
	return wall
}

// confirm notes that a majority signed a beacon of this time.
func (c *clock) confirm(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.on = t, time.Now()
}

// confirmed fails if no majority has confirmed the clock within the limit.
func (c *clock) confirmed(limit time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || time.Since(c.on) > limit {
		return cluster.Errorf(cluster.CodeNoQuorum, "a majority of the voters has not confirmed this master's clock for %s", limit).
			WithHint("compare the clocks of the candidates, and see that a majority of them is up")
	}
	return nil
}
