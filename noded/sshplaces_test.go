package noded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// asks makes noded ask sshd, which answers with the text.
func (h *host) asks(sshdT string) {
	h.t.Helper()
	h.cfg.SSH.AuthorizedKeys = ""
	h.cfg.SSH.SSHDConfig = filepath.Join(h.cfg.Paths.Root, "etc/ssh/sshd_config")
	h.answers(sshdT)
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in -V) echo 'OpenSSH_9.2p1' >&2; exit 1;; esac\ncat '%s'\n", h.cfg.SSH.SSHDConfig)
	if err := os.WriteFile(h.cfg.SSH.SSHD, []byte(script), 0o700); err != nil {
		h.t.Fatal(err)
	}
}

// answers is a change of sshd_config.
func (h *host) answers(sshdT string) {
	h.t.Helper()
	write(h.t, h.cfg.SSH.SSHDConfig, []byte(sshdT+"strictmodes yes\n"))
}

func (h *host) inHome(name string) string { return filepath.Join(h.cfg.Paths.RootHome(), name) }

func (h *host) push(w *world) []string {
	h.t.Helper()
	w.next(func(*candmap.Map) {})
	return w.mustPush(h.member().id.Node).Problems
}

// TestG4SeveralFiles: the block is in the first file that is fit, and in no
// other that sshd reads, whatever becomes of the files and of sshd's
// configuration.
func TestG4SeveralFiles(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.asks("authorizedkeysfile .ssh/a %h/.ssh/b\n")
	a, b, c := h.inHome(".ssh/a"), h.inHome(".ssh/b"), h.inHome(".ssh/c")
	elsewhere := filepath.Join(t.TempDir(), "admin")
	write(t, elsewhere, []byte("# admin\n"))
	for _, err := range []error{os.Mkdir(h.inHome(".ssh"), 0o700), os.Symlink(elsewhere, a)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	write(t, b, []byte("# mine"))
	w := foundedOn(t, h)
	if p := h.push(w); len(p) != 0 || !h.hasBlock(b) || h.read(elsewhere) != "# admin\n" {
		t.Errorf("a is a link: %q, b is\n%s", p, h.read(b))
	}

	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	h.d.Reload()
	if p := h.push(w); len(p) != 0 || !h.hasBlock(a) || h.read(b) != "# mine" {
		t.Errorf("a is fit: %q, a is\n%s\nb is\n%s", p, h.read(a), h.read(b))
	}

	// sshd may not have read its new configuration: both files follow.
	h.answers("authorizedkeysfile .ssh/c\n")
	if p := h.push(w); len(p) != 0 || !h.hasBlock(c) || !h.hasBlock(a) {
		t.Errorf("another file: %q, c is\n%s\na is\n%s", p, h.read(c), h.read(a))
	}
	h.up()
	eventually(t, "the block is taken out of the old file", func() bool { return !h.hasBlock(a) })
	if p := h.push(w); len(p) != 0 || !h.hasBlock(c) || h.hasBlock(a) {
		t.Errorf("after a restart: %q", p)
	}

	// A link that holds our lines cannot be cleared, and sshd reads it.
	write(t, elsewhere, []byte(h.read(c)))
	if err := os.Symlink(elsewhere, a+"2"); err != nil {
		t.Fatal(err)
	}
	h.answers("authorizedkeysfile .ssh/c .ssh/a2\n")
	if p := h.push(w); len(p) != 1 || !strings.Contains(p[0], a+"2, where no key of the cluster belongs") {
		t.Errorf("a link with our lines: %q", p)
	}
}

// TestG4NoFile: sshd reads no file. That is told, is no failure to enforce a
// revocation, and the rest goes on.
func TestG4NoFile(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.asks("authorizedkeysfile none\n")
	w := foundedOn(t, h)
	if p := h.push(w); len(p) != 1 || p[0] != "sshd: sshd reads no authorized_keys file" || !h.hasBlock(h.cfg.SSH.KnownHosts) {
		t.Errorf("problems %q", p)
	}
	h.answers("authorizedkeysfile .ssh/a\n")
	if p := h.push(w); len(p) != 0 || !h.hasBlock(h.inHome(".ssh/a")) {
		t.Errorf("problems %q", p)
	}
}

// TestG4SSHDRefuses: what makes the block useless is in the acknowledgement, and
// is no failure to enforce a revocation.
func TestG4SSHDRefuses(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.asks("authorizedkeysfile .ssh/a\npubkeyauthentication no\n")
	w := foundedOn(t, h)
	if p := h.push(w); !slices.Equal(p, []string{"sshd: sshd accepts no keys: its configuration says PubkeyAuthentication no"}) {
		t.Errorf("problems %q", p)
	}
	if err := os.Chmod(h.cfg.Paths.RootHome(), 0o777); err != nil {
		t.Fatal(err)
	}
	h.answers("authorizedkeysfile .ssh/a\n")
	if p := h.push(w); len(p) != 1 || !strings.HasPrefix(p[0], "sshd: "+h.cfg.Paths.RootHome()+": mode 0777") {
		t.Errorf("problems %q", p)
	}
}

// TestG8WriterMeetsTheMap: a program that has the file open when a map comes
// loses nothing, and does not hold up the map.
func TestG8WriterMeetsTheMap(t *testing.T) {
	t.Parallel()
	w, h := founded(t)
	f, err := os.OpenFile(h.cfg.SSH.AuthorizedKeys, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	closed := time.AfterFunc(writerWait*3, func() { _, _ = f.WriteString("# late\n"); _ = f.Close() })
	defer closed.Stop()
	w.next(func(m *candmap.Map) { m.SSHLeaseSeconds /= 2 })
	if p := w.mustPush(h.member().id.Node).Problems; len(p) != 0 {
		t.Errorf("problems %q", p)
	}
	eventually(t, "the other's line", func() bool { return strings.HasSuffix(h.authorizedKeys(), "# late\n") })
	if !h.hasBlock(h.cfg.SSH.AuthorizedKeys) {
		t.Errorf("file is\n%s", h.authorizedKeys())
	}
}

// TestWriterThatNeverEnds: of a program that keeps the file open each map tells,
// and only the first waits for it.
func TestWriterThatNeverEnds(t *testing.T) {
	t.Parallel()
	w, h := founded(t)
	f, err := os.OpenFile(h.cfg.SSH.AuthorizedKeys, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	stray := strings.Replace(h.authorizedKeys(), "# END ROLEKEY", "# stray\n# END ROLEKEY", 1)
	if _, err := f.WriteAt([]byte(stray), 0); err != nil {
		t.Fatal(err)
	}
	const pushes = 12
	began := time.Now()
	for range pushes {
		w.next(func(*candmap.Map) {})
		if p := w.mustPush(h.member().id.Node).Problems; len(p) != 1 || !strings.Contains(p[0], sshkeys.ErrWriting.Error()) {
			t.Fatalf("problems %q", p)
		}
	}
	if took, each := time.Since(began), writerTries*writerWait; took > pushes/2*each {
		t.Errorf("%d maps took %s: each waited %s", pushes, took, each)
	}
	_ = f.Close()
	eventually(t, "the file follows the map", func() bool { return len(w.mustPush(h.member().id.Node).Problems) == 0 })
}

// TestG4FullDiskIsTold: on a disk that is really full the revoked key is dead,
// and the acknowledgement and the node's state say what is wrong; when there is
// room again, all is well.
func TestG4FullDiskIsTold(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("SKIP: needs root to mount a small tmpfs")
	}
	h := newHost(t)
	dir := h.inHome(".ssh")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skip("SKIP: cannot mount a tmpfs:", err)
	}
	t.Cleanup(func() {
		h.stop()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	h.cfg.SSH.KnownHosts = h.inHome("known_hosts") // elsewhere
	write(t, h.cfg.SSH.AuthorizedKeys, []byte("# mine"))
	w := foundedOn(t, h)
	other := joined(t, w)
	w.promote(other, false)
	w.mustPush(h.member().id.Node)
	public, _, _ := strings.Cut(other.read(other.cfg.Paths.SSHPublicKey()), " rolekey:")
	_, key, _ := strings.Cut(public, " ")
	if !strings.Contains(h.authorizedKeys(), key) {
		t.Fatalf("the candidate's key is not there:\n%s", h.authorizedKeys())
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 128<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	w.demote(other.member().id.Node)
	w.next(func(m *candmap.Map) { m.SSHLeaseSeconds *= 2 }) // a later expiry is due as well
	ack := w.mustPush(h.member().id.Node)
	if !slices.ContainsFunc(ack.Problems, func(p string) bool { return strings.HasPrefix(p, "apply") && strings.Contains(p, "the disk is full") }) {
		t.Errorf("problems %q", ack.Problems)
	}
	var s rpc.NodeState
	h.member().ssh.state(t.Context(), h.member().keeper.View(), &s)
	if !strings.Contains(strings.Join(s.BlockProblems, " "), "the disk is full") {
		t.Errorf("state %q", s.BlockProblems)
	}
	for l := range strings.Lines(h.authorizedKeys()) {
		if strings.Contains(l, key) && l[0] != '#' {
			t.Errorf("the revoked key opens the node: %s", l)
		}
	}
	if in, told := expiryIn(t, h.authorizedKeys()), ack.SSHUntil; told.Before(in) {
		t.Errorf("sshd honours a key until %s, and the cluster is told %s", in, told)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if p := h.push(w); len(p) != 0 || strings.Contains(h.authorizedKeys(), key) || !strings.HasSuffix(h.authorizedKeys(), "# mine") {
		t.Errorf("problems %q, file\n%s", p, h.authorizedKeys())
	}
}

// expiryIn is the latest expiry in a text, of which there must be one.
func expiryIn(t *testing.T, text string) (latest time.Time) {
	t.Helper()
	for l := range strings.Lines(text) {
		_, rest, ok := strings.Cut(l, `expiry-time="`)
		if !ok || l[0] == '#' {
			continue
		}
		value, _, _ := strings.Cut(rest, `"`)
		at, err := time.Parse("20060102150405Z", value)
		if err != nil {
			t.Fatal(err)
		}
		if at.After(latest) {
			latest = at
		}
	}
	if latest.IsZero() {
		t.Fatalf("no expiry in\n%s", text)
	}
	return latest
}
