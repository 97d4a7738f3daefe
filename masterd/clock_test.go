package masterd

import (
	"testing"
	"testing/synctest"
	"time"

	"rolekey/cluster"
)

func TestClockMustBeConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock(time.Now)
		if err := c.confirmed(time.Minute); cluster.CodeOf(err) != cluster.CodeNoQuorum {
			t.Fatalf("unconfirmed: %v", err)
		}
		c.confirm(time.Now())
		time.Sleep(30 * time.Second)
		if err := c.confirmed(time.Minute); err != nil {
			t.Errorf("confirmed half a minute ago: %v", err)
		}
		time.Sleep(31 * time.Second)
		if err := c.confirmed(time.Minute); err == nil {
			t.Error("a confirmation lasts longer than its limit")
		}
	})
}

// TestG7ClockJumps: after a majority confirmed the clock, a wall clock that
// jumps does not reach maps and beacons; slow corrections do.
func TestG7ClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrong time.Duration
		c := newClock(func() time.Time { return time.Now().Add(wrong) })
		wrong = time.Hour
		if got := c.now(); !got.Equal(time.Now().Add(time.Hour)) {
			t.Errorf("before anybody confirmed: %s", got)
		}
		wrong = 0
		c.confirm(time.Now())
		for _, jump := range []time.Duration{time.Hour, -time.Hour, 2 * drift} {
			wrong = jump
			time.Sleep(time.Second)
			if got := c.now(); !got.Equal(time.Now()) {
				t.Errorf("wall clock off by %s: leads with %s off", jump, time.Until(got))
			}
		}
		wrong = drift / 2
		if got := c.now(); !got.Equal(time.Now().Add(drift / 2)) {
			t.Errorf("a small correction is not followed: %s off", time.Until(got))
		}
	})
}
