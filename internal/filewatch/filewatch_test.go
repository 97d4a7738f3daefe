package filewatch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap/zaptest"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func start(t *testing.T, files ...string) *Watcher {
	t.Helper()
	w := New(zaptest.NewLogger(t))
	w.Set(files)
	run(t, w)
	return w
}

func run(t *testing.T, w *Watcher) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestLimits: without a queue of the kernel's nothing is told, until there is
// one.
func TestLimits(t *testing.T) {
	w := New(zaptest.NewLogger(t))
	path, tries := filepath.Join(t.TempDir(), "file"), 0
	w.wait = time.Millisecond
	w.open = func() (*fsnotify.Watcher, error) {
		if tries++; tries < 5 {
			return nil, syscall.EMFILE
		}
		return fsnotify.NewWatcher()
	}
	w.Set([]string{path})
	run(t, w)
	until(t, w, "a file", put(path, "a"))
	if tries != 5 {
		t.Errorf("%d tries", tries)
	}
}

// until repeats a change until it is told: the watcher may not have begun yet.
func until(t *testing.T, w *Watcher, what string, change func() error) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.News():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("%s: nothing was told", what)
}

func drain(w *Watcher) {
	for {
		select {
		case <-w.News():
		case <-time.After(200 * time.Millisecond):
			return
		}
	}
}

func put(path, text string) func() error {
	return func() error { return os.WriteFile(path, []byte(text), 0o600) }
}

func TestFileChanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	w := start(t, path)
	until(t, w, "a new file", put(path, "a"))
	until(t, w, "a change in place", put(path, "b"))
	until(t, w, "a rename", func() error { return errors.Join(put(path+".new", "c")(), os.Rename(path+".new", path)) })
	until(t, w, "a mode", func() error { return os.Chmod(path, 0o666) })
	until(t, w, "a removal", func() error { return errors.Join(put(path, "d")(), os.Remove(path)) })
	drain(w)
	if err := put(filepath.Join(dir, "other"), "x")(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.News():
		t.Error("a file beside it is told")
	case <-time.After(300 * time.Millisecond):
	}
}

// TestFolders: folders that do not exist yet, go, and come back as others.
func TestFolders(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, ".ssh")
	path := filepath.Join(dir, "file")
	w := start(t, path)
	until(t, w, "folder and file", func() error {
		return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), put(path, "a")())
	})
	for range 3 {
		drain(w)
		if err := errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		until(t, w, "another folder of the name", func() error { return nil })
		drain(w)
		until(t, w, "a file in it", put(path, "b"))
		if err := os.RemoveAll(dir + ".old"); err != nil {
			t.Fatal(err)
		}
	}
	w.Set([]string{filepath.Join(home, "far", "away", "file")})
	until(t, w, "the first folder of the way", func() error {
		return errors.Join(os.RemoveAll(filepath.Join(home, "far")), os.Mkdir(filepath.Join(home, "far"), 0o700))
	})
}
