package candmaptest

import (
	"sync"
	"time"

	"rolekey/candmap"
)

// Clock is a pair of clocks that only move when told. Start with NewClock.
type Clock struct {
	mu sync.Mutex
	c  candmap.Clocks
}

// NewClock returns clocks that show Epoch0, one hour after boot.
func NewClock() *Clock {
	return &Clock{c: candmap.Clocks{Wall: Epoch0, Boot: time.Hour}}
}

// Now reads both.
func (c *Clock) Now() candmap.Clocks {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.c
}

// Advance lets time pass.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.c.Wall, c.c.Boot = c.c.Wall.Add(d), c.c.Boot+d
}

// SetWall sets the wall clock, as an administrator or an attacker may.
func (c *Clock) SetWall(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.c.Wall = t
}

// Reboot starts the boot clock again.
func (c *Clock) Reboot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.c.Boot = 0
}
