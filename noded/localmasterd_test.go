package noded

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/rpc"
)

// candidateFiles fills masterd's folder and returns its layout.
func candidateFiles(t *testing.T) paths.Layout {
	t.Helper()
	at := paths.Layout{Root: t.TempDir()}
	if err := os.MkdirAll(at.SnapshotDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{at.SigningKey(), at.CandidateKey(), at.Keyring(), at.CandidateCert(), at.RaftDB(), filepath.Join(at.SnapshotDir(), "1")} {
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// TestG5KeysGoUnderAMasterdThatHangs: the keys of a lost role must not outlive it
// on disk because masterd does not answer.
func TestG5KeysGoUnderAMasterdThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := candidateFiles(t)
		masterd := newLocalMasterd(at, func(context.Context, string) (net.Conn, error) {
			here, there := net.Pipe() // nobody reads from it
			t.Cleanup(func() { _ = there.Close() })
			return here, nil
		})
		defer masterd.client.Close()
		reply, err := masterd.destroyKeys(t.Context())
		if err != nil || !slices.Equal(reply.Removed, []string{at.SigningKey(), at.CandidateKey()}) {
			t.Errorf("removed %q, %v", reply.Removed, err)
		}
		if exists(at.SigningKey()) || exists(at.CandidateKey()) {
			t.Error("the keys are still there")
		}
		if !exists(at.RaftDB()) || len(reply.Problems) != 1 {
			t.Errorf("what masterd may be using is gone, or nobody is told: %q", reply.Problems)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if reply, err := masterd.destroyKeys(ctx); err == nil {
			t.Errorf("a caller that gave up is told %+v", reply)
		}
	})
}

// TestG5KeysGoUnderAMasterdThatFails, or says that all is gone when it is not:
// masterd does not have the rights, or belongs to somebody else by now.
func TestG5KeysGoUnderAMasterdThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		answer  error
		removed int
		told    bool
	}{
		"lies":             {nil, 6, false},
		"fails":            {errors.New("its disk is gone"), 2, true},
		"does not believe": {cluster.Errorf(cluster.CodeBusy, "the map still names this node"), 2, true},
	} {
		at := candidateFiles(t)
		precious := filepath.Join(t.TempDir(), "precious")
		if err := errors.Join(os.WriteFile(precious, nil, 0o600), os.Remove(at.CandidateKey()), os.Symlink(precious, at.CandidateKey())); err != nil {
			t.Fatal(err)
		}
		masterd := newLocalMasterd(at, answering(t, func() (any, error) {
			return rpc.KeyDestroyReply{Problems: []string{"remove signing.key: operation not permitted"}}, c.answer
		}))
		reply, err := masterd.destroyKeys(t.Context())
		masterd.client.Close()
		if told := err != nil || len(reply.Problems) > 0; len(reply.Removed) != c.removed || told != c.told {
			t.Errorf("%s: %+v, %v", name, reply, err)
		}
		if c.removed > 0 && (exists(at.SigningKey()) || exists(at.CandidateKey())) {
			t.Errorf("%s: keys are left", name)
		}
		if !exists(precious) {
			t.Errorf("%s: the link was followed", name)
		}
	}
}

// answering is a masterd that answers every order to destroy its keys.
func answering(t *testing.T, answer func() (any, error)) func(context.Context, string) (net.Conn, error) {
	t.Helper()
	l, err := paths.ListenUnix(filepath.Join(t.TempDir(), "sock"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalKeysDestroy, func(context.Context, *struct{}) (any, error) { return answer() })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- rpc.ServeLocal(ctx, l, mux) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}
}

// TestG5KeysGoWithoutMasterd, and with them all that is sealed.
func TestG5KeysGoWithoutMasterd(t *testing.T) {
	at := candidateFiles(t)
	masterd := newLocalMasterd(at, func(context.Context, string) (net.Conn, error) {
		return nil, &os.PathError{Op: "connect", Err: os.ErrNotExist}
	})
	reply, err := masterd.destroyKeys(t.Context())
	left, dirErr := os.ReadDir(at.MasterdDir())
	if err != nil || dirErr != nil || len(reply.Removed) != 6 || len(reply.Problems) > 0 || len(left) > 0 {
		t.Errorf("removed %q, problems %q, %v; left %v", reply.Removed, reply.Problems, err, left)
	}
}
