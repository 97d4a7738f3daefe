package main

import (
	"context"
	"encoding/base64"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"rolekey/internal/paths"
	"rolekey/rpc"
)

const someLine = "from=\"192.0.2.1\" ssh-ed25519 AAAA rolekey:x\n"

// socket is where noded of a new root will listen.
func socket(t *testing.T) (root, path string) {
	t.Helper()
	at := paths.Layout{Root: t.TempDir()}
	if err := os.MkdirAll(at.RunDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	return at.Root, at.NodedSock()
}

// answerKeys listens there and answers as noded does.
func answerKeys(t *testing.T, path string) {
	l, err := paths.ListenUnix(path, 0o600)
	if err != nil {
		t.Error(err)
		return
	}
	mux := http.NewServeMux()
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalAuthorizedKeys, func(_ context.Context, q *rpc.AuthorizedKeysRequest) (any, error) {
		if q.User == "root" && string(q.Blob) == "key" && q.SSHD == os.Getppid() {
			return rpc.AuthorizedKeysReply{Lines: someLine}, nil
		}
		return rpc.AuthorizedKeysReply{}, nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- rpc.ServeLocal(ctx, l, mux) }()
	t.Cleanup(func() { cancel(); <-ended })
}

func ask(t *testing.T, root string, args ...string) (result, time.Duration) {
	began := time.Now()
	return runWith(t, "", append([]string{"--root", root, "authorized-keys", "--"}, args...)...), time.Since(began)
}

var someKey = base64.StdEncoding.EncodeToString([]byte("key"))

func TestAuthorizedKeys(t *testing.T) {
	root, path := socket(t)
	answerKeys(t, path)
	if r, _ := ask(t, root, "root", "ssh-ed25519", someKey); r != (result{0, someLine, ""}) {
		t.Errorf("%+v", r)
	}
	if r, _ := ask(t, root, "alice", "ssh-ed25519", someKey); r != (result{}) {
		t.Errorf("another account: %+v", r)
	}
	for _, key := range []string{"?", strings.Repeat("A", maxKeyText+4)} {
		if r, _ := ask(t, root, "root", "ssh-ed25519", key); r.code != exitFailed || r.out != "" {
			t.Errorf("%.5s: %+v", key, r)
		}
	}
}

// TestAuthorizedKeysOfRestartedNoded: a login waits for a noded that is about
// to be there.
func TestAuthorizedKeysOfRestartedNoded(t *testing.T) {
	root, path := socket(t)
	l, err := net.Listen("unix", path) // one that ends before it answers
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		_ = l.Close()
		if err == nil {
			_ = c.Close()
		}
		answerKeys(t, path)
	}()
	if r, took := ask(t, root, "root", "ssh-ed25519", someKey); r != (result{0, someLine, ""}) {
		t.Errorf("after %v: %+v", took, r)
	}
}

// TestAuthorizedKeysFailsClosed: nothing is printed, soon, when noded is not
// there, and when it hangs.
func TestAuthorizedKeysFailsClosed(t *testing.T) {
	root, path := socket(t)
	if r, took := ask(t, root, "root", "ssh-ed25519", someKey); r.code != exitFailed || r.out != "" || took < rpc.AskRetry {
		t.Errorf("without noded: %+v after %v", r, took)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if r, took := ask(t, root, "root", "ssh-ed25519", someKey); r.code != exitFailed || r.out != "" || took < rpc.AskTime || took > 10*rpc.AskTime {
		t.Errorf("noded hangs: %+v after %v", r, took)
	}
}
