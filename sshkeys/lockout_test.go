package sshkeys

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

	"pgregory.net/rapid"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

// lockout is a node whose disk, whose configuration manager and whose noded do
// their worst. It says who must be able to enter after each operation on files.
type lockout struct {
	t *rapid.T
	f File

	foreign    string        // what is not ours, in order
	candidates map[byte]bool // by key
	master     byte
	reach      bool // only the master's key is authorized
	intact     bool // nobody else has touched our block since the last Apply that wrote it
	lines      int  // of ours that the file holds then
}

const adminKey = 3 // of foreignC

var soon = expires.Add(-time.Hour)

func (l *lockout) block() Block {
	var list []Authorized
	for k := range byte(10) {
		if l.candidates[k] && (!l.reach || k == l.master) {
			list = append(list, Authorized{Node: nodeA, Keys: []cluster.SSHKey{fixedKey(k)}, From: from("192.0.2.1/32")})
		}
	}
	b, err := AuthorizedBlock(ourID, list, expires, modern)
	if err != nil {
		l.t.Fatal(err)
	}
	for k := range byte(10) {
		if k != adminKey && !wants(b, fixedKey(k)) {
			b.Former = append(b.Former, fixedKey(k))
		}
	}
	return b
}

func (l *lockout) text() string {
	text, err := os.ReadFile(l.f.Path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.t.Fatal(err)
	}
	return string(text)
}

func (l *lockout) write(text string) {
	if err := errors.Join(os.MkdirAll(filepath.Dir(l.f.Path), 0o700), os.WriteFile(l.f.Path, []byte(text), 0o600)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lockout) enters(key byte) bool {
	return admits(l.text(), fixedKey(key), expectFrom[0], soon)
}

// admin reports whether the administrator has a key of his own here.
func (l *lockout) admin() bool { return strings.Contains("\n"+l.foreign, "\n"+foreignC) }

// apply runs noded's part, on a disk of some kind, killed at operation n or not.
func (l *lockout) apply(disk func(int, string, string) error, kill int) {
	b, before := l.block(), map[byte]bool{}
	for k := range byte(10) {
		before[k] = wants(b, fixedKey(k)) && l.enters(k)
	}
	rule := disk
	if kill > 0 {
		rule = oneFault(disk, kill, errKilled)
	}
	fs := &faultFS{before: rule, after: func(call string) { l.step(call, before) }}
	l.f.fs = fs
	r, err := l.f.Apply(b)
	l.f.fs = nil
	l.step(fmt.Sprint("the end: ", err), before)
	killed := kill > 0 && fs.calls >= kill
	l.after(b, r, err, killed)
	switch {
	case killed:
		l.lines = min(l.lines, b.Len())
	case err == nil:
		l.lines, l.intact = b.Len(), true
	}
}

// step holds after every operation on files: no foreign line is gone, the
// administrator enters, and so does every authorized key that could before.
func (l *lockout) step(when string, before map[byte]bool) {
	text := l.text()
	if got := notOurs(text); got != l.foreign {
		l.t.Fatalf("after %s foreign lines are\n%q\nwant\n%q\nin\n%s", when, got, l.foreign, text)
	}
	if l.admin() && !l.enters(adminKey) {
		l.t.Fatalf("after %s the administrator is locked out:\n%s", when, text)
	}
	for k, could := range before {
		if could && !l.enters(k) {
			l.t.Fatalf("after %s key %d, which is authorized, is locked out:\n%s", when, k, text)
		}
	}
}

// after holds when Apply has returned.
func (l *lockout) after(b Block, r Report, err error, killed bool) {
	switch {
	case killed: // the next start goes on
	case err == nil:
		if why := strict(l.f); why != "" && fileExists(l.f.Path) && len(r.Unsafe) == 0 {
			l.t.Fatalf("done, and StrictModes refuses %s", why)
		}
		if l.master != 0 && !l.enters(l.master) {
			l.t.Fatalf("done, and the master is locked out:\n%s", l.text())
		}
	case errors.Is(err, syscall.ENOSPC):
		// All lines have one length here, so that a new master takes the room
		// of the old one.
		if l.master != 0 && l.reach && l.intact && l.lines > 0 && !l.enters(l.master) {
			l.t.Fatalf("the disk is full, and the master is locked out:\n%s", l.text())
		}
	case errors.Is(err, syscall.EROFS):
		return // told, and all stays as it was
	default:
		l.t.Fatal(err)
	}
	for k := range byte(10) {
		// A foreign line that holds the key is told instead.
		told := slices.ContainsFunc(r.Foreign, func(f Foreign) bool { return string(f.Key.Blob) == string(fixedKey(k).Blob) })
		if !killed && l.enters(k) && !wants(b, fixedKey(k)) && !told && !(k == adminKey && l.admin()) {
			l.t.Fatalf("%v: key %d is revoked, and enters:\n%s", err, k, l.text())
		}
	}
}

// notOurs leaves out markers, lines with our comment, and the beginning of one at
// the end.
func notOurs(text string) string {
	var left strings.Builder
	for l := range strings.Lines(text) {
		if !strings.Contains(l, " ROLEKEY ") && !strings.Contains(l, commentPrefix) && !isCut(l) {
			left.WriteString(l)
		}
	}
	return left.String()
}

func isCut(l string) bool {
	_, ok := parseCut([]byte(l))
	return ok
}

// manage is a configuration manager or an editor, which may be cut short.
func (l *lockout) manage(how string) {
	text, block := l.text(), string(l.block().Bytes())
	l.intact = l.intact && how == "modes"
	switch how {
	case "foreign lines only":
		l.write(l.foreign)
	case "deletes the file":
		if err := os.Remove(l.f.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.t.Fatal(err)
		}
	case "adds a line":
		l.write(text + "# by hand\r\n")
	case "puts back the administrator's key":
		l.write(foreignC + text)
	case "the block twice":
		l.write(block + text + block)
	case "cut within the block":
		l.write(l.foreign + block[:rapid.IntRange(len(block)/2, len(block)).Draw(l.t, "cut")])
	case "modes":
		l.write(text)
		if err := errors.Join(os.Chmod(l.f.Path, 0o666), os.Chmod(filepath.Dir(l.f.Path), 0o777)); err != nil {
			l.t.Fatal(err)
		}
	}
	l.foreign = notOurs(l.text())
}

var managers = []string{
	"foreign lines only", "deletes the file", "adds a line", "puts back the administrator's key", "the block twice", "cut within the block", "modes",
}

// change is a new map.
func (l *lockout) change(what string) {
	k := rapid.SampledFrom([]byte{1, 4, 5, 6}).Draw(l.t, "key")
	switch what {
	case "promote":
		l.candidates[k] = true
	case "demote":
		if k != l.master {
			delete(l.candidates, k)
		}
	case "failover":
		l.candidates[k], l.master = true, k
	case "reach":
		l.reach = !l.reach
	}
}

// TestNeverLockedOut: by no sequence of changes, crashes, bad disks and foreign
// writers does an operation of ours take the administrator's line away, or the
// line of a key that is still authorized; and wherever the file can be written
// at all, the current master enters.
func TestNeverLockedOut(t *testing.T) {
	for range 10 { // rapid's own number of checks is small for so much
		rapid.Check(t, neverLockedOut)
	}
}

func neverLockedOut(t *rapid.T) {
	disks := map[string]func(int, string, string) error{"good": goodDisk, "full": fullDisk, "read-only": readOnly}
	home, err := os.MkdirTemp(memoryDir(), "lockout")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(home) }()
	l := &lockout{
		t: t, candidates: map[byte]bool{1: true}, master: 1, reach: rapid.Bool().Draw(t, "reach"),
		f: File{Path: filepath.Join(home, ".ssh", "authorized_keys"), Account: Account{Name: "root", UID: os.Getuid(), GID: os.Getgid(), Home: home}},
	}
	if rapid.Bool().Draw(t, "admin") {
		l.foreign = "# mine\n" + foreignC
		l.write(l.foreign)
	}
	for range rapid.IntRange(1, 15).Draw(t, "steps") {
		switch rapid.IntRange(0, 3).Draw(t, "step") {
		case 0:
			l.manage(rapid.SampledFrom(managers).Draw(t, "manager"))
		case 1:
			l.change(rapid.SampledFrom([]string{"promote", "demote", "failover", "failover", "reach"}).Draw(t, "change"))
		default:
			disk := rapid.SampledFrom([]string{"good", "full", "read-only"}).Draw(t, "disk")
			l.apply(disks[disk], rapid.SampledFrom(slices.Concat(make([]int, 20), upTo(30))).Draw(t, "kill"))
		}
	}
	l.apply(goodDisk, 0)
	if got, want := l.text(), string(l.block().Bytes()); notOurs(strings.Replace(got, want, "", 1)) != l.foreign || !strings.Contains(got, want) {
		t.Fatalf("in the end the file is\n%s", got)
	}
	if fileExists(atomicfile.TempName(l.f.Path)) {
		t.Fatal("a temporary file is left")
	}
}

// memoryDir is where syncing costs nothing, if there is such a place.
func memoryDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i + 1
	}
	return list
}
