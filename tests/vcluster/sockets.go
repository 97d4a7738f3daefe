package vcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"rolekey/internal/memnet"
)

// sockets are one node's unix sockets, kept in memory: a goroutine that waits
// on a socket of the kernel would stop the bubble's clock. A plain file stands
// at each path, by which noded tells one run of masterd from the next.
type sockets struct {
	host *memnet.Host

	mu sync.Mutex
	at map[string]netip.AddrPort // by the socket's name: a crash moves the folder
}

func newSockets(h *memnet.Host) *sockets {
	return &sockets{host: h, at: map[string]netip.AddrPort{}}
}

func (s *sockets) listen(path string, mode os.FileMode) (net.Listener, error) {
	l, err := s.host.Listen("tcp", netip.AddrPort{})
	if err != nil {
		return nil, err
	}
	if err := place(path, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("listen on %s: address is %T", path, l.Addr())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[filepath.Base(path)] = at.AddrPort()
	return &socketListener{Listener: l, path: path}, nil
}

// place makes a new file at the path.
func place(path string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, nil, mode)
}

func (s *sockets) dial(ctx context.Context, path string) (net.Conn, error) {
	s.mu.Lock()
	at, ok := s.at[filepath.Base(path)]
	s.mu.Unlock()
	if !ok {
		return nil, &os.PathError{Op: "connect", Path: path, Err: syscall.ENOENT}
	}
	c, err := s.host.Dial(ctx, at)
	if errors.Is(err, syscall.ENETDOWN) {
		err = &os.PathError{Op: "connect", Path: path, Err: syscall.ECONNREFUSED}
	}
	if err != nil {
		return nil, err
	}
	return &socketConn{c}, nil
}

// socketListener vouches for its peers.
type socketListener struct {
	net.Listener
	path string
}

// Accept implements net.Listener.
func (l *socketListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &socketConn{c}, nil
}

// Addr implements net.Listener.
func (l *socketListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// socketConn is a connection whose peer is this very user.
type socketConn struct{ net.Conn }

// PeerUID is what the kernel would tell.
func (*socketConn) PeerUID() (uint32, error) { return uint32(os.Geteuid()), nil }
