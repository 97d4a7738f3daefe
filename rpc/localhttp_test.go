package rpc

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"rolekey/cluster"
	"rolekey/internal/paths"
)

// as makes connections look as if another user's process made them.
type as struct {
	net.Conn
	uid uint32
	err error
}

func (a as) PeerUID() (uint32, error) { return a.uid, a.err }

type asListener struct {
	net.Listener
	as as
}

func (l asListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return as{c, l.as.uid, l.as.err}, err
}

// serveLocal serves a socket and returns its path.
func serveLocal(t *testing.T, h http.Handler, wrap func(net.Listener) net.Listener, also ...uint32) (path string, stop func() error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "daemon.sock")
	l, err := paths.ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ServeLocal(ctx, wrap(l), h, also...) }()
	var err2 error
	ended := false
	stop = func() error {
		if !ended {
			cancel()
			err2, ended = <-done, true
		}
		return err2
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("ServeLocal: %v", err)
		}
	})
	return path, stop
}

func same(l net.Listener) net.Listener { return l }

func localClient(t *testing.T, path string, users ...uint32) *LocalClient {
	c := NewLocalClient(func(ctx context.Context) (net.Conn, error) { return paths.DialUnix(ctx, path) }, users...)
	t.Cleanup(c.Close)
	return c
}

func TestLocalCalls(t *testing.T) {
	mux := http.NewServeMux()
	HandleLocal(mux, http.MethodPost, LocalJoin, func(ctx context.Context, r *JoinRequest) (any, error) {
		if uid, ok := LocalUID(ctx); !ok || uid != uint32(os.Geteuid()) {
			return nil, errors.New("wrong user")
		}
		if r.Token == "" {
			return nil, cluster.Errorf(cluster.CodeTokenUnknown, "no token").WithHint("ask for one")
		}
		return JoinReply{Name: cluster.Name(r.Token)}, nil
	})
	HandleLocal(mux, http.MethodGet, LocalView, func(ctx context.Context, _ *struct{}) (any, error) {
		return LocalQuery(ctx, "after"), nil
	})
	HandleLocal(mux, http.MethodPost, LocalLeave, func(context.Context, *struct{}) (any, error) { return nil, nil })
	path, _ := serveLocal(t, mux, same)
	c := localClient(t, path, uint32(os.Geteuid()))
	var reply JoinReply
	if err := c.Do(t.Context(), http.MethodPost, LocalJoin, JoinRequest{Token: "n.example"}, &reply); err != nil || reply.Name != "n.example" {
		t.Errorf("join: %+v, %v", reply, err)
	}
	err := c.Do(t.Context(), http.MethodPost, LocalJoin, JoinRequest{}, &reply)
	var e *cluster.Error
	if !errors.As(err, &e) || e.Code != cluster.CodeTokenUnknown || e.Hint != "ask for one" || e.RequestID == "" {
		t.Errorf("refusal: %#v", err)
	}
	var after string
	if err := c.Do(t.Context(), http.MethodGet, LocalView+"?after=1.7", nil, &after); err != nil || after != "1.7" {
		t.Errorf("query: %q, %v", after, err)
	}
	if err := c.Do(t.Context(), http.MethodPost, LocalLeave, struct{}{}, nil); err != nil {
		t.Error(err)
	}
	wantCode(t, "unknown field", c.Do(t.Context(), http.MethodPost, LocalLeave, map[string]int{"x": 1}, nil), cluster.CodeBadFormat)
	wantCode(t, "unknown path", c.Do(t.Context(), http.MethodGet, "/nothing", nil, nil), cluster.CodeUnavailable)
}

// Only root, the daemon's own user and those named may connect; whom the
// kernel does not know may not.
func TestLocalCallersAreKnownToTheKernel(t *testing.T) {
	const other, stranger = 12345, 12346
	mux := http.NewServeMux()
	HandleLocal(mux, http.MethodGet, "/x", func(context.Context, *struct{}) (any, error) { return nil, nil })
	for _, tc := range []struct {
		as as
		ok bool
	}{
		{as{uid: 0}, true},
		{as{uid: uint32(os.Geteuid())}, true},
		{as{uid: other}, true},
		{as{uid: stranger}, false},
		{as{uid: 0, err: errors.New("no credentials")}, false},
	} {
		path, _ := serveLocal(t, mux, func(l net.Listener) net.Listener { return asListener{l, tc.as} }, other)
		if err := localClient(t, path).Do(t.Context(), http.MethodGet, "/x", nil, nil); (err == nil) != tc.ok {
			t.Errorf("user %d (%v): %v", tc.as.uid, tc.as.err, err)
		}
	}
}

// A client does not believe whoever took the daemon's place.
func TestLocalServerIsKnownToTheKernel(t *testing.T) {
	mux := http.NewServeMux()
	HandleLocal(mux, http.MethodGet, "/x", func(context.Context, *struct{}) (any, error) { return nil, nil })
	path, _ := serveLocal(t, mux, same)
	wantCode(t, "other user's socket", localClient(t, path, 12345).Do(t.Context(), http.MethodGet, "/x", nil, nil), cluster.CodeUnavailable)
}

func TestLocalEndWaitsForCalls(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	HandleLocal(mux, http.MethodGet, "/wait", func(ctx context.Context, _ *struct{}) (any, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	})
	path, stop := serveLocal(t, mux, same)
	failed := make(chan error, 1)
	go func() { failed <- localClient(t, path).Do(context.Background(), http.MethodGet, "/wait", nil, nil) }()
	<-began
	if err := stop(); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	default:
		t.Error("ServeLocal returned before the call")
	}
	wantCode(t, "call at the end", <-failed, cluster.CodeUnavailable)
}
