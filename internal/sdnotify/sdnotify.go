// Package sdnotify tells the service manager how a daemon is doing, by the
// protocol of sd_notify(3): one datagram of VARIABLE=value lines to the Unix
// socket that NOTIFY_SOCKET names.
//
// Without NOTIFY_SOCKET every call does nothing and succeeds, so daemons call
// it wherever they run. All functions may be used concurrently.
package sdnotify

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Ready says that start-up is complete.
func Ready() error { return send("READY=1") }

// Stopping says that an orderly stop has begun.
func Stopping() error { return send("STOPPING=1") }

// Status sets the line that `systemctl status` shows.
func Status(format string, args ...any) error {
	// A line break would start another variable.
	text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	return send("STATUS=" + text)
}

// Watchdog says that the daemon is alive.
func Watchdog() error { return send("WATCHDOG=1") }

// WatchdogInterval returns how often the manager wants to hear Watchdog, or 0
// if it does not. The value is half of the manager's limit, as
// sd_watchdog_enabled(3) advises.
func WatchdogInterval() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}

// RunWatchdog calls Watchdog until ctx ends, as long as alive says so. It
// returns nil at once if the manager does not want to hear it.
func RunWatchdog(ctx context.Context, alive func() bool) error {
	every := WatchdogInterval()
	if every <= 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if !alive() {
				continue // silence is the signal: the manager will restart us
			}
			if err := Watchdog(); err != nil {
				return err
			}
		}
	}
}

func send(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// Package net turns a leading @ into the abstract namespace itself.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}
