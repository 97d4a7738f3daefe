package paths

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dirRef is an open folder, and thereby a short name for it.
type dirRef struct{ fd int }

func openDir(path string) (dirRef, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return dirRef{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return dirRef{fd}, nil
}

// sub returns a path of name in the folder that fits into sockaddr_un.
func (d dirRef) sub(name string) string {
	return "/proc/self/fd/" + strconv.Itoa(d.fd) + "/" + name
}

func (d dirRef) unlink(name string) error {
	if err := unix.Unlinkat(d.fd, name, 0); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "unlink", Path: name, Err: err}
	}
	return nil
}

func (d dirRef) close() error { return unix.Close(d.fd) }

// DialUnix connects to the socket at path. Its error wraps the system's, such
// as ECONNREFUSED, or fs.ErrNotExist. Whoever sends a secret, or believes an
// answer, checks PeerUID first.
func DialUnix(ctx context.Context, path string) (net.Conn, error) {
	dir, err := openDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	conn, err := dialIn(ctx, dir, filepath.Base(path))
	err = errors.Join(err, dir.close())
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return conn, nil
}

func dialIn(ctx context.Context, dir dirRef, name string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", dir.sub(name))
	return conn, withoutAddr(err)
}

// withoutAddr drops the /proc name, which means nothing to people.
func withoutAddr(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// ListenUnix listens on a socket at path with exactly this mode. A socket that
// a dead process left is replaced; if anybody answers there, or another
// process has the same path open, the error wraps syscall.EADDRINUSE; anything
// that is not a socket is left alone. Closing the listener removes the socket.
//
// The mode alone is not access control: check PeerUID of what is accepted.
func ListenUnix(path string, mode os.FileMode) (net.Listener, error) {
	dir, err := openDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := listenIn(dir, path, mode)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, errors.Join(err, dir.close()))
	}
	return l, nil
}

// listenIn takes a lock that lasts as long as the listener. Without it, two
// starting processes could each find the socket dead and the second would
// remove the first one's new socket.
func listenIn(dir dirRef, path string, mode os.FileMode) (*unixListener, error) {
	name := filepath.Base(path)
	lock, err := takeLock(dir, "."+name+".lock")
	if err != nil {
		return nil, err
	}
	inner, err := bind(dir, name, mode)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &unixListener{Listener: inner, path: path, dir: dir, lock: lock}, nil
}

func takeLock(dir dirRef, name string) (*os.File, error) {
	fd, err := unix.Openat(dir.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	lock := os.NewFile(uintptr(fd), name)
	if err := flock(fd); err != nil {
		if err == unix.EWOULDBLOCK {
			err = fmt.Errorf("another process listens here: %w", syscall.EADDRINUSE)
		}
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// A child that the last owner was just starting holds its lock until it has
// executed its program.
const (
	lockTries = 25
	lockPause = 4 * time.Millisecond
)

func flock(fd int) (err error) {
	for range lockTries {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			return err
		}
		time.Sleep(lockPause) // why-sleep: a lock that blocks could not be given up
	}
	return err
}

// bind prepares the socket under a temporary name and renames it, so that at
// its own name it is never seen with another mode or before it listens.
func bind(dir dirRef, name string, mode os.FileMode) (net.Listener, error) {
	if err := checkStale(dir, name); err != nil {
		return nil, err
	}
	temp := "." + name + ".tmp"
	if err := dir.unlink(temp); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir.sub(temp), Net: "unix"})
	if err != nil {
		return nil, withoutAddr(err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(dir.sub(temp), mode.Perm())
	if err == nil {
		err = unix.Renameat(dir.fd, temp, dir.fd, name)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), dir.unlink(temp))
	}
	return l, nil
}

// checkStale reports an error unless name is free or a socket that nobody
// serves.
func checkStale(dir dirRef, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(dir.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("there is a file that is not a socket")
	}
	conn, err := dialIn(context.Background(), dir, name)
	if err == nil {
		return errors.Join(fmt.Errorf("a process answers there: %w", syscall.EADDRINUSE), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return nil
}

// unixListener knows its real path and cleans up after itself.
type unixListener struct {
	net.Listener
	path string
	dir  dirRef
	lock *os.File
	once sync.Once
	err  error
}

// Addr returns the path that was asked for.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the socket while the lock still proves that it is ours. The
// lock file stays: removing it would let two processes hold "the" lock.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		l.err = errors.Join(l.dir.unlink(filepath.Base(l.path)), l.Listener.Close(), l.dir.close(), l.lock.Close())
	})
	return l.err
}

// maxSunPath is how long the path of a socket may be for programs that do not
// know this package (unix(7)).
const maxSunPath = 107

// Reach returns a path by which other programs connect to a listener. If the
// path is too long for them it goes through this process's open folder, which
// root alone may follow, and only as long as this process runs.
func Reach(l net.Listener) string {
	path := l.Addr().String()
	if u, ok := l.(*unixListener); ok && len(path) > maxSunPath {
		return fmt.Sprintf("/proc/%d/fd/%d/%s", os.Getpid(), u.dir.fd, filepath.Base(path))
	}
	return path
}

// PeerUID returns the uid of the process at the other end of a Unix
// connection, as the kernel recorded it when the peer connected or listened.
func PeerUID(conn net.Conn) (uint32, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("read peer credentials: %T has no socket", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("read peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var family int
	var familyErr, credErr error
	err = raw.Control(func(fd uintptr) {
		family, familyErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, familyErr, credErr); err != nil {
		return 0, fmt.Errorf("read peer credentials: %w", err)
	}
	// For a socket that is not Unix the kernel answers with nobody. The process
	// id tells nothing: it is 0 for a peer outside of our pid namespace, as the
	// machine's root is for a daemon in a container.
	if family != unix.AF_UNIX {
		return 0, errors.New("read peer credentials: not a Unix socket")
	}
	return cred.Uid, nil
}
