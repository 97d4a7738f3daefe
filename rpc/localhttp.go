package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/paths"
)

// Bounds of the unix sockets, whose callers are root or the daemon itself. A
// body may hold the whole roster.
const (
	localConns  = 256
	localBody   = 256 << 20
	localHeader = 10 * time.Second
	localIdle   = 2 * time.Minute
)

// HandleLocal serves a call on a unix socket: the body, if there is one, is
// decoded strictly into a T, and the result, nil for {}, is the JSON answer.
// Refusals have the form of the network's.
func HandleLocal[T any](m *http.ServeMux, verb, path string, h func(ctx context.Context, req *T) (any, error)) {
	m.HandleFunc(verb+" "+path, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, localBody)
		id := requestID(r.Header)
		r.Header.Set(RequestIDHeader, id) // refusals and the audit name the same
		var req T
		if r.ContentLength != 0 {
			if err := decodeBody(r, &req); err != nil {
				refuseLocal(w, r, err)
				return
			}
		}
		ctx := audit.WithCaller(context.WithValue(r.Context(), localKey{}, r), LocalCaller(r, id))
		out, err := h(ctx, &req)
		if err != nil {
			refuseLocal(w, r, err)
			return
		}
		answerLocal(w, r, out)
	})
}

type localKey struct{}

// LocalQuery returns a query parameter of the local call that the context
// belongs to.
func LocalQuery(ctx context.Context, name string) string {
	r, ok := ctx.Value(localKey{}).(*http.Request)
	if !ok {
		return ""
	}
	return r.URL.Query().Get(name)
}

func answerLocal(w http.ResponseWriter, r *http.Request, out any) {
	text := emptyJSON
	if out != nil {
		var err error
		if text, err = json.Marshal(out); err != nil {
			refuseLocal(w, r, fmt.Errorf("encode answer: %w", err))
			return
		}
	}
	writeJSON(w, http.StatusOK, text)
}

// refuseLocal tells everything: root asks.
func refuseLocal(w http.ResponseWriter, r *http.Request, err error) {
	body := refusalOf(err, true)
	if body.RequestID == "" {
		body.RequestID = requestID(r.Header)
	}
	writeRefusal(w, body.Code.HTTPStatus(), body)
}

// ServeLocal serves a unix socket to processes of root, of the daemon's own
// user and of the other users given; the kernel tells who they are. It closes
// the listener, and returns when ctx ended and the calls in flight, whose
// contexts end too, have returned.
func ServeLocal(ctx context.Context, l net.Listener, h http.Handler, also ...uint32) error {
	allowed := append([]uint32{0, uint32(os.Geteuid())}, also...)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	calls := &callGate{next: h}
	server := &http.Server{
		Handler:           calls,
		ReadHeaderTimeout: localHeader, IdleTimeout: localIdle, MaxHeaderBytes: smallBody,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, uidKey{}, c.(*localConn).uid)
		},
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(&localListener{Listener: l, allowed: allowed}) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		err = server.Close()
		<-served
	}
	cancel()
	calls.end()
	if err = ignoreClosed(err); err != nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// callGate lets calls through until its end, which waits for them.
type callGate struct {
	next  http.Handler
	mu    sync.RWMutex // shared: a call is in flight
	ended bool
}

// ServeHTTP implements http.Handler.
func (g *callGate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.ended {
		panic(http.ErrAbortHandler)
	}
	g.next.ServeHTTP(w, r)
}

func (g *callGate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
}

type uidKey struct{}

// LocalUID returns the user of the process that makes a local call.
func LocalUID(ctx context.Context) (uid uint32, ok bool) {
	uid, ok = ctx.Value(uidKey{}).(uint32)
	return uid, ok
}

// OwnListener accepts processes of root and of the daemon's own user only; the
// kernel tells who they are.
func OwnListener(l net.Listener) net.Listener {
	return &localListener{Listener: l, allowed: []uint32{0, uint32(os.Geteuid())}}
}

// localListener hangs up on everybody but the allowed users.
type localListener struct {
	net.Listener
	allowed []uint32

	mu   sync.Mutex
	open int
}

type localConn struct {
	net.Conn
	uid  uint32
	once sync.Once
	from *localListener
}

// Accept implements net.Listener.
func (l *localListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && slices.Contains(l.allowed, uid) && l.enter() {
			return &localConn{Conn: c, uid: uid, from: l}, nil
		}
		_ = c.Close()
	}
}

func (l *localListener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= localConns {
		return false
	}
	l.open++
	return true
}

// Close implements net.Conn.
func (c *localConn) Close() error {
	c.once.Do(func() {
		c.from.mu.Lock()
		defer c.from.mu.Unlock()
		c.from.open--
	})
	return c.Conn.Close()
}

// peerUID asks the kernel, or an in-memory connection that knows.
func peerUID(c net.Conn) (uint32, error) {
	if k, ok := c.(interface{ PeerUID() (uint32, error) }); ok {
		return k.PeerUID()
	}
	return paths.PeerUID(c)
}

// LocalClient calls a daemon on its unix socket.
type LocalClient struct {
	http *http.Client
}

// NewLocalClient makes a client. With users given, it believes only a daemon
// that runs as one of them.
func NewLocalClient(dial func(ctx context.Context) (net.Conn, error), users ...uint32) *LocalClient {
	return &LocalClient{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialLocal(ctx, dial, users)
		},
		DisableCompression: true, MaxIdleConns: 4, IdleConnTimeout: localIdle / 2,
	}}}
}

func dialLocal(ctx context.Context, dial func(ctx context.Context) (net.Conn, error), users []uint32) (net.Conn, error) {
	c, err := dial(ctx)
	if err != nil || len(users) == 0 {
		return c, err
	}
	uid, err := peerUID(c)
	if err == nil && !slices.Contains(users, uid) {
		err = fmt.Errorf("user %d serves the socket, which is not the daemon's", uid)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close closes the connections that are not in use.
func (c *LocalClient) Close() { c.http.CloseIdleConnections() }

// Do makes a call. Path may hold a query; req and resp are JSON, or nil.
// Errors are those of Client.Call.
func (c *LocalClient) Do(ctx context.Context, verb, path string, req, resp any) error {
	var body io.Reader
	if req != nil {
		text, err := json.Marshal(req)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, verb, "http://local"+path, body)
	if err != nil {
		return fmt.Errorf("make local call: %w", err)
	}
	r.Header["Content-Type"] = contentJSON
	answer, err := c.http.Do(r)
	if err != nil {
		return unanswered(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return readRefusal(answer.StatusCode, answer.Body, "")
	}
	return decodeLocalReply(answer.Body, resp)
}

func decodeLocalReply(body io.Reader, resp any) error {
	bounded := &io.LimitedReader{R: body, N: localBody + 1}
	text, err := io.ReadAll(bounded)
	if err := tooLong(bounded, localBody, err); err != nil {
		return fmt.Errorf("read local answer: %w", err)
	}
	if resp == nil {
		return nil
	}
	if err := json.Unmarshal(text, resp); err != nil {
		return cluster.Errorf(cluster.CodeBadFormat, "local answer: %v", err)
	}
	return nil
}

func unanswered(err error) error {
	e := cluster.Errorf(cluster.CodeUnavailable, "the daemon does not answer: %v", err).WithHint("is it running?")
	return &callError{e, err}
}
