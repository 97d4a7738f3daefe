package candmap

import "time"

// Clocks is one reading of both clocks of a machine. Boot counts in suspend
// and is never set; Wall may jump.
type Clocks struct {
	Wall time.Time     // CLOCK_REALTIME
	Boot time.Duration // CLOCK_BOOTTIME
}

// Lease says how long news stays fresh: a value, changed only by Heard. It
// believes the later of the wall clock and of the boot clock set by what
// signers said the time was, so that neither turning the wall clock back nor
// delaying messages prolongs it. The zero Lease is stale.
type Lease struct {
	last   time.Time // newest time heard, in this run or an earlier one
	origin time.Time // wall time of boot, learned; valid once heard
	heard  bool      // in this run of the program
}

// Restored returns the lease of a program that starts: stale, whatever last
// is, but deaf to times before it.
func Restored(last time.Time) Lease { return Lease{last: last.Round(0)} }

// Heard returns the lease after a verified time: when a map was issued, or a
// beacon's. Times before the last one are replays and change nothing.
//
// A time ahead of the wall clock is believed: a majority of the voters signed
// it, and a node whose own clock is slow must still become fresh. Skew tells.
func (l Lease) Heard(t time.Time, c Clocks) Lease {
	t = t.Round(0)
	if t.Before(l.last) {
		return l
	}
	// Messages are delayed, never early: the latest origin is the best one.
	if origin := t.Add(-c.Boot); !l.heard || origin.After(l.origin) {
		l.origin = origin
	}
	l.last, l.heard = t, true
	return l
}

// now is the latest that the time may be, as far as the node can tell.
func (l Lease) now(c Clocks) time.Time {
	wall := c.Wall.Round(0)
	if learned := l.origin.Add(c.Boot); l.heard && learned.After(wall) {
		return learned
	}
	return wall
}

// Last returns the newest time heard; persist it.
func (l Lease) Last() time.Time { return l.last }

// Until returns when the lease ends if nothing more is heard.
func (l Lease) Until(d time.Duration) time.Time { return l.last.Add(d) }

// Left returns how much of a lease of length d is left, never less than zero.
func (l Lease) Left(d time.Duration, c Clocks) time.Duration {
	if !l.heard {
		return 0
	}
	return max(0, l.Until(d).Sub(l.now(c)))
}

// Fresh reports whether any of it is left.
func (l Lease) Fresh(d time.Duration, c Clocks) bool { return l.Left(d, c) > 0 }

// Age returns how long ago the newest time was.
func (l Lease) Age(c Clocks) time.Duration { return max(0, l.now(c).Sub(l.last)) }

// Skew returns how far the wall clock is ahead of the time learned from the
// signers; negative if behind, zero while nothing was heard.
func (l Lease) Skew(c Clocks) time.Duration {
	if !l.heard {
		return 0
	}
	return c.Wall.Round(0).Sub(l.origin.Add(c.Boot))
}

// TrustExpired reports whether nothing was heard for so long that changes of
// authority must not be crossed. It holds too when nothing was ever heard.
func (l Lease) TrustExpired(c Clocks) bool {
	return l.last.IsZero() || l.now(c).Sub(l.last) > TrustPeriod
}
