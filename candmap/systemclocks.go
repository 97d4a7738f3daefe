package candmap

import (
	"time"

	"golang.org/x/sys/unix"
)

// SystemClocks reads the machine's clocks (clock_gettime(2)): the wall clock,
// and the boot-time clock, which nobody can set and which counts sleep.
func SystemClocks() Clocks {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return Clocks{Wall: time.Now()} // Linux has had it since 2.6.39
	}
	return Clocks{Wall: time.Now(), Boot: time.Duration(boot.Nano())}
}
