package noded

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden keeps the process's memory, which holds keys, away from disks and
// from other processes of the same user: no core dumps, not dumpable (G6).
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}
