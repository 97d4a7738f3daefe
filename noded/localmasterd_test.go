package noded

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"rolekey/internal/paths"
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
