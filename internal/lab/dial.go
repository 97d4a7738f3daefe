package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects as a process on the node would: inside its network namespace
// if it has one of its own, which only root may enter. address has no name to
// look up.
func (n Node) Dial(ctx context.Context, d *net.Dialer, address string) (conn net.Conn, err error) {
	if n.Init == 0 {
		return d.DialContext(ctx, "tcp", address)
	}
	// A thread of its own, which is given back only as it was.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, herr := os.Open("/proc/thread-self/ns/net")
		if herr != nil {
			err = fmt.Errorf("open own network: %w", herr)
			return
		}
		defer home.Close()
		if err = enterNetwork(n.Init); err != nil {
			err = fmt.Errorf("enter network of %s: %w", n.Name, err)
			return
		}
		// A socket stays in the namespace in which it was made.
		conn, err = d.DialContext(ctx, "tcp", address)
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return conn, err
}

func enterNetwork(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNET))
}
