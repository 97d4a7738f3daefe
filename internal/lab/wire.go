package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// maxMessage bounds one request or reply; the environment of an exec is the
// largest part of any.
const maxMessage = 8 << 20

// Operations of the holder's socket.
const (
	opStatus    = "status"
	opStart     = "start"
	opStop      = "stop"
	opKill      = "kill"
	opExec      = "exec"
	opPartition = "partition"
	opBlock     = "block"
	opHeal      = "heal"
	opIdentify  = "identify"
	opDetach    = "detach"
	opDown      = "down"
)

// request is what a client sends: one per connection, after one byte that
// carries the file descriptors of an exec.
type request struct {
	Op     string            `json:"op"`
	Nodes  []string          `json:"nodes,omitempty"`
	Daemon string            `json:"daemon,omitempty"`
	Signal int               `json:"signal,omitempty"`
	Port   uint16            `json:"port,omitempty"`
	Argv   []string          `json:"argv,omitempty"`
	Env    []string          `json:"env,omitempty"`
	Dir    string            `json:"dir,omitempty"`
	UUIDs  map[string]string `json:"uuids,omitempty"`
}

// reply is what the holder answers. An exec gets two: one with PID, and one
// with Exit; everything else gets one.
type reply struct {
	PID   int       `json:"pid,omitempty"`
	Exit  *int      `json:"exit,omitempty"`
	State *State    `json:"state,omitempty"`
	Error *labError `json:"error,omitempty"`
}

// labError is an error that crosses the socket and keeps its kind.
type labError struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
}

// Kinds of labError that clients tell apart.
const (
	kindNoNamespaces = "no_namespaces"
	kindUnknownNode  = "unknown_node"
	kindNotFound     = "not_found"
)

// ErrNoNamespaces says that this kernel or this user may not create the
// namespaces that partitions need.
var ErrNoNamespaces error = &labError{Kind: kindNoNamespaces, Text: "no network namespace"}

// ErrUnknownNode says that the cluster has no node of that name.
var ErrUnknownNode error = &labError{Kind: kindUnknownNode, Text: "no such node"}

// ErrNotFound says that a command to execute does not exist.
var ErrNotFound error = &labError{Kind: kindNotFound, Text: "command not found"}

// ErrNeedsRoot says that only root can make the namespaces of isolation netns.
var ErrNeedsRoot = errors.New("isolation netns needs root, which makes machines of the nodes: become root, or use isolation loopback")

// ErrNotRunning says that no holder serves the directory.
var ErrNotRunning = errors.New("no cluster runs here")

// Error implements error.
func (e *labError) Error() string { return e.Text }

// Is makes errors of one kind equal for errors.Is.
func (e *labError) Is(target error) bool {
	var t *labError
	return errors.As(target, &t) && t.Kind != "" && t.Kind == e.Kind
}

// kindf returns an error with a kind.
func kindf(kind, format string, args ...any) error {
	return &labError{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// toWire turns any error into one that keeps its kind on the socket.
func toWire(err error) *labError {
	out := &labError{Text: err.Error()}
	var e *labError
	if errors.As(err, &e) {
		out.Kind = e.Kind
	}
	return out
}

// viaDir returns a short name for DIR/name: the kernel allows 107 bytes in a
// socket's address, and DIR alone may have 120. The caller closes dir when the
// name has been used.
func viaDir(path string) (short string, dir *os.File, err error) {
	dir, err = os.OpenFile(filepath.Dir(path), syscall.O_DIRECTORY, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open socket folder: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), dir, nil
}

// listenUnix makes a socket for its owner only at path, replacing an old one.
func listenUnix(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	short, dir, err := viaDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The short name means nothing once dir is closed; the holder removes
	// the socket by its real name.
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect socket: %w", err)
	}
	return l, nil
}

// dialUnix connects to the socket at path.
func dialUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	short, dir, err := viaDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", short)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// writeRequest sends req and files.
func writeRequest(conn *net.UnixConn, req request, files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix([]byte{'R'}, oob, nil); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	return nil
}

// readRequest reads what writeRequest sent. The caller closes the files.
func readRequest(conn *net.UnixConn) (req request, files []*os.File, err error) {
	var first [1]byte
	oob := make([]byte, syscall.CmsgSpace(8*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(first[:], oob)
	if err != nil {
		return req, nil, fmt.Errorf("read request: %w", err)
	}
	files, err = receivedFiles(oob[:oobn])
	if err != nil {
		return req, files, err
	}
	if n != 1 || first[0] != 'R' {
		return req, files, errors.New("read request: not a request")
	}
	dec := json.NewDecoder(io.LimitReader(conn, maxMessage))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return req, files, fmt.Errorf("read request: %w", err)
	}
	return req, files, nil
}

func receivedFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read file descriptors: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := syscall.ParseUnixRights(&msgs[i])
		if err != nil {
			return files, fmt.Errorf("read file descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
