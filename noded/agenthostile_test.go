package noded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"

	"rolekey/cluster"
	"rolekey/internal/paths"
)

// frame is a message with its length before it.
func frame(body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// say sends bytes to an agent, and returns all that it answers until it ends the
// connection, or nothing comes.
func say(t *testing.T, k keyDir, text []byte, end bool) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- sshAgent{k}.serve(ours); ours.Close() }()
	go func() {
		_, _ = theirs.Write(text)
		if end {
			_ = theirs.Close()
		}
	}()
	answer, _ := io.ReadAll(theirs)
	theirs.Close()
	select {
	case <-served:
	case <-time.After(patience):
		t.Fatal("the connection is kept")
	}
	return answer
}

// TestAgentEndsBadConnections: what cannot be a request ends the connection, and
// takes no memory for what it announces.
func TestAgentEndsBadConnections(t *testing.T) {
	k := keysAt(paths.Layout{Root: t.TempDir()})
	given(t, k, orderOf("ed25519", 0, cluster.StorageAgent))
	for name, c := range map[string]struct {
		text []byte
		end  bool
	}{
		"no length":     {[]byte{0, 0}, true},
		"length zero":   {[]byte{0, 0, 0, 0}, false},
		"huge":          {binary.BigEndian.AppendUint32(nil, maxAgentFrame+1), false},
		"largest there": {[]byte{0xff, 0xff, 0xff, 0xff, agentSign}, false},
		"cut":           {frame(agentSign, 1, 2, 3)[:6], true},
	} {
		if out := say(t, k, c.text, c.end); len(out) > 0 {
			t.Errorf("%s: answer %x", name, out)
		}
	}
}

// TestAgentReadsOnly tries every number of a message: all fail but the two that
// change nothing, and the keys are the same afterwards.
func TestAgentReadsOnly(t *testing.T) {
	k := keysAt(paths.Layout{Root: t.TempDir()})
	key := given(t, k, orderOf("ed25519", 0, cluster.StorageAgent))
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() { _ = sshAgent{k}.serve(ours); ours.Close() }()
	for kind := range 256 {
		for _, rest := range [][]byte{nil, {0}, bytes.Repeat([]byte{0xff}, 40), append([]byte{0, 0, 0, 3}, "abc"...)} {
			if _, err := theirs.Write(frame(append([]byte{byte(kind)}, rest...)...)); err != nil {
				t.Fatal(err)
			}
			answer, err := readFrame(theirs)
			if err != nil {
				t.Fatalf("message %d: %v", kind, err)
			}
			if kind != agentList && answer[4] != agentFailure {
				t.Errorf("message %d is answered with %d", kind, answer[4])
			}
		}
	}
	if list, err := agent.NewClient(theirs).List(); err != nil || len(list) != 1 || !bytes.Equal(list[0].Blob, key.Blob) {
		t.Errorf("%d keys: %v", len(list), err)
	}
}

// connectAs connects as another user does. The thread that takes on the user ends
// with the goroutine.
func connectAs(uid int, path string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				return errno
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				return err
			}
			if _, err := unix.Write(fd, frame(agentList)); err != nil {
				return err
			}
			n, err := unix.Read(fd, make([]byte, 64))
			if err == nil && n == 0 {
				err = io.EOF
			}
			return err
		}()
	}()
	return <-done
}

// TestAgentRefusesOtherUsers: by the mode of the socket, and where that was
// changed, by what the kernel tells of the peer.
func TestAgentRefusesOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: needs root to be another user")
	}
	h := newHost(t)
	h.masterd.start()
	h.up()
	path := h.cfg.Paths.SSHAgentSock()
	short := filepath.Join("/tmp", fmt.Sprintf("rk%d.sock", os.Getpid()))
	if err := os.Symlink(path, short); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(short)
	if err := connectAs(0, short); err != nil {
		t.Fatalf("root: %v", err)
	}
	for dir := filepath.Dir(path); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := connectAs(65534, short); !errors.Is(err, unix.EACCES) {
		t.Errorf("by the mode: %v", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := connectAs(65534, short); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		t.Errorf("by its user: %v", err)
	}
}
