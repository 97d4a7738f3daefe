package sshkeys

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestG8WriterKeepsItsFile: what a program writes in place is not lost, though
// the map changes in the middle of it, and what is revoked is so at once.
func TestG8WriterKeepsItsFile(t *testing.T) {
	f := testFile(t)
	mkdir(t, filepath.Dir(f.Path), 0o700)
	writeFile(t, f.Path, foreignC+blockOf(lineA, ownB))
	h, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	b := block(t, entry(nodeA, fixedKey(1)))
	r, err := f.Apply(b)
	if !errors.Is(err, ErrWriting) || r.Disabled != 1 {
		t.Fatalf("Apply: %+v, %v", r, err)
	}
	if text := readFile(t, f.Path); admits(text, fixedKey(2), expectFrom[2], soon) || !admits(text, fixedKey(1), expectFrom[1], soon) {
		t.Errorf("file is\n%s", text)
	}
	if _, err := h.WriteString("# late\n"); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	apply(t, f, b)
	if got := readFile(t, f.Path); got != foreignC+blockA+"# late\n" {
		t.Errorf("file is\n%s", got)
	}
}

// TestG8WriterComes: a program opens the file just before it would be replaced.
func TestG8WriterComes(t *testing.T) {
	f := testFile(t)
	mkdir(t, filepath.Dir(f.Path), 0o700)
	writeFile(t, f.Path, foreignC)
	written := make(chan error, 1)
	started := false
	f.fs = &faultFS{before: func(_ int, call, path string) error {
		if call == "lstat" && !started && fileExists(filepath.Join(filepath.Dir(f.Path), ".authorized_keys.rolekey-tmp")) {
			started = true
			opening := make(chan struct{})
			go func() {
				close(opening)
				h, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_APPEND, 0) // waits for the lease
				if err == nil {
					_, err = h.WriteString("# late\n")
					err = errors.Join(err, h.Close())
				}
				written <- err
			}()
			<-opening
		}
		return nil
	}}
	b := block(t, entry(nodeA, fixedKey(1)))
	_, err := f.Apply(b)
	if werr := <-written; werr != nil || !started {
		t.Fatal(werr, started)
	}
	if err != nil && !errors.Is(err, ErrWriting) {
		t.Fatal(err)
	}
	f.fs = nil
	apply(t, f, b)
	if got := readFile(t, f.Path); !strings.HasPrefix(strings.ReplaceAll(got, blockA, ""), foreignC) || !strings.Contains(got, blockA) {
		t.Errorf("file is\n%s", got)
	}
}
