package paths

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// longRoot makes a root of at least 150 bytes with a run folder.
func longRoot(t *testing.T) Layout {
	t.Helper()
	base := t.TempDir()
	l := Layout{Root: filepath.Join(base, strings.Repeat("r", max(150-len(base)-1, 1)))}
	if len(l.Root) < 150 {
		t.Fatalf("root has %d bytes", len(l.Root))
	}
	if err := os.MkdirAll(l.RunDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	return l
}

// echoOnce answers one connection with what it says.
func echoOnce(t *testing.T, l net.Listener) {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	uid, err := PeerUID(conn)
	if err != nil || int(uid) != os.Getuid() {
		t.Errorf("server sees uid %d, %v", uid, err)
	}
	if _, err := io.Copy(conn, conn); err != nil {
		t.Error(err)
	}
}

func checkEcho(t *testing.T, l net.Listener, path string) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { echoOnce(t, l) })
	defer wg.Wait()
	conn, err := DialUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	uid, err := PeerUID(conn)
	if err != nil || int(uid) != os.Getuid() {
		t.Errorf("client sees uid %d, %v", uid, err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
		t.Errorf("echo %q, %v", got, err)
	}
}

func mustListen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestLongRoot(t *testing.T) {
	path := longRoot(t).NodedSock()
	l := mustListen(t, path)
	if l.Addr().String() != path {
		t.Errorf("Addr() = %s, want %s", l.Addr(), path)
	}
	if fi, err := os.Lstat(path); err != nil || fi.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket: %v, %v", fi, err)
	}
	checkEcho(t, l, path)
	for range 2 { // closing twice is harmless
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("closing left the socket: %v", err)
	}
	checkEcho(t, mustListen(t, path), path)
}

func TestStaleSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if err := os.WriteFile(filepath.Join(dir, ".s.tmp"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	checkEcho(t, mustListen(t, path), path)
}

func TestLivingSocketIsKept(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	l := mustListen(t, ours)
	other, err := net.Listen("unix", theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, path := range []string{ours, theirs} {
		if _, err := ListenUnix(path, 0o600); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second listener on %s: %v", path, err)
		}
	}
	checkEcho(t, l, ours)
}

func TestOtherFilesAreKept(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		if l, err := ListenUnix(path, 0o600); err == nil {
			l.Close()
			t.Errorf("a listener replaced %s", path)
		}
	}
	if got, _ := os.ReadFile(link); string(got) != "mine" {
		t.Errorf("the file now holds %q", got)
	}
}

// Of many processes that find a stale socket at once exactly one wins.
func TestRaceForStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	const n = 16
	listeners := make(chan net.Listener, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			l, err := ListenUnix(path, 0o600)
			if err == nil {
				listeners <- l
			} else if !errors.Is(err, syscall.EADDRINUSE) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(listeners) != 1 {
		t.Fatalf("%d listeners, want 1", len(listeners))
	}
	l := <-listeners
	defer l.Close()
	checkEcho(t, l, path)
}

func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "no", "folder")} {
		_, err := DialUnix(t.Context(), path)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "/proc/") {
			t.Errorf("dial %s: %v", path, err)
		}
	}
	if _, err := ListenUnix(filepath.Join(dir, "no", "s"), 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("listen in a missing folder: %v", err)
	}
}

func TestPeerUIDRefusesOtherConns(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := PeerUID(a); err == nil {
		t.Error("a pipe has a uid")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := PeerUID(conn); err == nil {
		t.Error("a TCP connection has a uid")
	}
}
