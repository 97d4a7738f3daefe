package sdnotify

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// manager plays the service manager on a socket of the given name.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestMessages(t *testing.T) {
	sockets := map[string]string{
		"file":     filepath.Join(t.TempDir(), "n"),
		"abstract": fmt.Sprintf("@rolekey-sdnotify-%d", os.Getpid()),
	}
	calls := []struct {
		send func() error
		want string
	}{
		{Ready, "READY=1"},
		{Stopping, "STOPPING=1"},
		{Watchdog, "WATCHDOG=1"},
		{func() error { return Status("map %d,\nREADY=1  fresh", 7) }, "STATUS=map 7, READY=1 fresh"},
	}
	for kind, name := range sockets {
		t.Run(kind, func(t *testing.T) {
			conn := manager(t, name)
			for _, c := range calls {
				if err := c.send(); err != nil {
					t.Fatal(err)
				}
				if got := receive(t, conn); got != c.want {
					t.Errorf("manager got %q, want %q", got, c.want)
				}
			}
		})
	}
}

func TestWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready(); err != nil {
		t.Errorf("unset: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := Ready(); err == nil {
		t.Error("a missing socket went unnoticed")
	}
}

func TestWatchdogInterval(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	cases := []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"30000000", "", 15 * time.Second},
		{"30000000", self, 15 * time.Second},
		{"30000000", "1", 0},
		{"-1", self, 0},
		{"junk", self, 0},
	}
	for _, c := range cases {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := WatchdogInterval(); got != c.want {
			t.Errorf("usec %q pid %q: %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}

func TestRunWatchdogSpeaksOnlyWhileAlive(t *testing.T) {
	conn := manager(t, filepath.Join(t.TempDir(), "n"))
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan bool) // alive answers what the test says, when it says it
	alive := func() bool {
		select {
		case ok := <-asked:
			return ok
		case <-ctx.Done():
			return false
		}
	}
	done := make(chan error, 1)
	go func() { done <- RunWatchdog(ctx, alive) }()
	asked <- true
	if got := receive(t, conn); got != "WATCHDOG=1" {
		t.Errorf("manager got %q", got)
	}
	asked <- false
	asked <- false // by now the first false has been dealt with
	cancel()
	if err := <-done; err != nil {
		t.Errorf("RunWatchdog: %v", err)
	}
	if err := Stopping(); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, conn); got != "STOPPING=1" {
		t.Errorf("a daemon that is not alive sent %q", got)
	}
}
