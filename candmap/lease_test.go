package candmap_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
)

const lease = 2 * time.Minute

func clocks(wall, boot time.Duration) candmap.Clocks {
	return candmap.Clocks{Wall: ct.Epoch0.Add(wall), Boot: boot}
}

func TestZeroLeaseIsStale(t *testing.T) {
	var l candmap.Lease
	c := clocks(0, time.Hour)
	if l.Fresh(lease, c) || l.Left(lease, c) != 0 || !l.TrustExpired(c) || l.Skew(c) != 0 {
		t.Error("the zero lease is worth something")
	}
}

func TestRestoredLeaseIsStaleUntilItHears(t *testing.T) {
	l := candmap.Restored(ct.Epoch0)
	if c := clocks(0, 0); l.Fresh(lease, c) || l.TrustExpired(c) {
		t.Error("a lease that was just restored must be stale, and trust must stand")
	}
	if l = l.Heard(ct.Epoch0.Add(-time.Second), clocks(0, 0)); l.Fresh(lease, clocks(0, 0)) {
		t.Error("a time older than the one restored made it fresh")
	}
	if l = l.Heard(ct.Epoch0.Add(time.Second), clocks(0, 0)); !l.Fresh(lease, clocks(0, 0)) {
		t.Error("a newer time did not make it fresh")
	}
}

func TestLeaseEnds(t *testing.T) {
	l := candmap.Lease{}.Heard(ct.Epoch0, clocks(0, time.Hour))
	for _, c := range []struct {
		name string
		c    candmap.Clocks
		left time.Duration
	}{
		{"at once", clocks(0, time.Hour), lease},
		{"just before", clocks(lease-1, time.Hour+lease-1), 1},
		{"at the end", clocks(lease, time.Hour+lease), 0},
		{"long after", clocks(24*lease, time.Hour+24*lease), 0},
		{"wall clock turned back", clocks(-time.Hour, time.Hour+lease), 0},
		{"wall clock stopped", clocks(0, time.Hour+time.Minute), time.Minute},
		{"wall clock turned on", clocks(lease, time.Hour), 0},
	} {
		if got := l.Left(lease, c.c); got != c.left || l.Fresh(lease, c.c) != (c.left > 0) {
			t.Errorf("%s: left %s, want %s", c.name, got, c.left)
		}
	}
}

func TestSlowClockBecomesFreshAndReportsSkew(t *testing.T) {
	c := clocks(-24*time.Hour, time.Hour)
	l := candmap.Lease{}.Heard(ct.Epoch0, c)
	if !l.Fresh(lease, c) || l.Skew(c) != -24*time.Hour {
		t.Errorf("fresh %v, skew %s", l.Fresh(lease, c), l.Skew(c))
	}
	c = clocks(-24*time.Hour+lease, time.Hour+lease)
	if l.Fresh(lease, c) {
		t.Error("a slow clock prolonged the lease")
	}
}

func TestFastClockIsStaleAndReportsSkew(t *testing.T) {
	c := clocks(time.Hour, time.Hour)
	l := candmap.Lease{}.Heard(ct.Epoch0, c)
	if l.Fresh(lease, c) || l.Skew(c) != time.Hour {
		t.Errorf("fresh %v, skew %s", l.Fresh(lease, c), l.Skew(c))
	}
}

func TestDelayedMessagesDoNotTurnTimeBack(t *testing.T) {
	l := candmap.Lease{}.Heard(ct.Epoch0, clocks(-time.Hour, time.Hour))
	// Signed a minute later, but ten minutes on the way.
	l = l.Heard(ct.Epoch0.Add(time.Minute), clocks(-time.Hour+10*time.Minute, time.Hour+10*time.Minute))
	if l.Fresh(lease, clocks(-time.Hour+10*time.Minute, time.Hour+10*time.Minute)) {
		t.Error("a beacon that was held back made the lease fresh")
	}
}

func TestTrustExpires(t *testing.T) {
	l := candmap.Restored(ct.Epoch0)
	if l.TrustExpired(clocks(candmap.TrustPeriod, 0)) || !l.TrustExpired(clocks(candmap.TrustPeriod+time.Second, 0)) {
		t.Error("trust does not end after the trust period")
	}
	l = candmap.Lease{}.Heard(ct.Epoch0, clocks(0, 0))
	if !l.TrustExpired(clocks(0, candmap.TrustPeriod+time.Second)) {
		t.Error("a wall clock that stands still keeps trust alive")
	}
}

// Whatever is heard in whatever order, and however the wall clock is turned:
// the newest time never falls, and a lease is never fresh once more true time
// than its length has passed since the newest time was signed.
func TestLeaseNeverOutlivesTrueTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l candmap.Lease
		now := time.Duration(0) // true time since boot; boot was at Epoch0
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(3*time.Minute)).Draw(t, "pass"))
			c := clocks(now+time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).Draw(t, "skew")), now)
			if rapid.Bool().Draw(t, "hear") {
				delay := time.Duration(rapid.Int64Range(0, int64(now)).Draw(t, "delay"))
				before := l.Last()
				l = l.Heard(ct.Epoch0.Add(now-delay), c)
				if l.Last().Before(before) {
					t.Fatal("the newest time fell")
				}
			}
			// What was heard first may have been late, so the boot clock is
			// wrong by the least delay; the wall clock, if right, is not.
			c.Wall = ct.Epoch0.Add(now)
			if l.Fresh(lease, c) && !c.Wall.Before(l.Until(lease)) {
				t.Fatal("fresh after the end")
			}
		}
	})
}
