package sshkeys

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

// TestTornMarks: whatever part of the mark a loss of power left, the line is a
// comment, is taken for ours, and goes.
func TestTornMarks(t *testing.T) {
	b := block(t, entry(nodeA, fixedKey(1)))
	for n := 1; n <= len(offPrefix); n++ {
		torn := offPrefix[:n] + ownB[n:]
		if admits(torn, fixedKey(2), expectFrom[2], soon) {
			t.Errorf("sshd honours %q", torn)
		}
		if got, r := splice(t, begin+torn+end+foreignC, b); got != blockA+foreignC || len(r.Damage) != 0 {
			t.Errorf("%q becomes\n%s", torn, got)
		}
	}
	// What only looks like it is not ours.
	for _, l := range []string{"#" + ownB, "# " + ownB, "## ROLEKEY OFF" + ownB, "#ROLEKEY OFF " + ownB} {
		if got, _ := splice(t, begin+l+end, b); got != blockA+l {
			t.Errorf("%q becomes\n%s", l, got)
		}
	}
}

// TestG4CutLine: a file that was cut within the comment of a line of ours still
// lets the key in, so the line is ours: it goes, or is disabled.
func TestG4CutLine(t *testing.T) {
	b := block(t, entry(nodeA, fixedKey(1)))
	own := block(t, entry(nodeB, fixedKey(2))).lines[0].text + "\n"
	whole := strings.Index(own, " rolekey:")
	for n := whole; n < len(own)-1; n++ {
		old := foreignC + begin + own[:n]
		if !admits(old, fixedKey(2), expectFrom[1], soon) {
			t.Fatalf("sshd would not honour %q", old)
		}
		if got, r := splice(t, old, b); got != foreignC+blockA || len(r.Damage) != 1 || r.Kept != 0 {
			t.Errorf("cut at %d: %+v\n%s", n, r, got)
		}
		f := quickFile(t)
		startFile(t, f, old)
		f.fs = &faultFS{before: fullDisk}
		if r, err := f.Apply(b); !errors.Is(err, syscall.ENOSPC) || r.Disabled+r.InPlace == 0 {
			t.Errorf("cut at %d, full disk: %+v, %v", n, r, err)
		}
		if text := readFile(t, f.Path); admits(text, fixedKey(2), expectFrom[1], soon) || !strings.HasPrefix(text, foreignC) {
			t.Errorf("cut at %d, full disk:\n%s", n, text)
		}
		f.fs = nil
		apply(t, f, b)
		if got := readFile(t, f.Path); got != foreignC+blockA {
			t.Errorf("cut at %d, healed:\n%s", n, got)
		}
	}
	// Without our BEGIN before it, or with more behind it, it is foreign.
	for _, old := range []string{own[:whole+12], begin + own[:whole+12] + "\n", begin + own[:whole] + " me@desk"} {
		if got, _ := splice(t, old, b); strings.ReplaceAll(got, blockA, "") != strings.TrimPrefix(old, begin) {
			t.Errorf("%q becomes\n%s", old, got)
		}
	}
}

// TestG4InPlaceKeepsLength: a renewed expiry, and a key that is new, in place.
func TestG4InPlaceKeepsLength(t *testing.T) {
	f := quickFile(t)
	startFile(t, f, "# a\r\n"+blockOf(lineA, ownB)+foreignC)
	size := len(readFile(t, f.Path))
	f.fs = &faultFS{before: fullDisk}
	later, err := AuthorizedBlock(ourID, []Authorized{entry(nodeA, fixedKey(1)), {Node: nodeA, Keys: entry(nodeA, fixedKey(9)).Keys, From: from("::1/128")}}, expires.AddDate(1, 0, 0), modern)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Apply(later)
	if !errors.Is(err, syscall.ENOSPC) || r.InPlace != 2 || r.Disabled != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	text := readFile(t, f.Path)
	for _, l := range later.lines {
		if !strings.Contains(text, l.text) {
			t.Errorf("no line %q in\n%s", l.text, text)
		}
	}
	if len(text) != size || !strings.HasSuffix(text, foreignC) || admits(text, fixedKey(2), expectFrom[2], soon) {
		t.Errorf("file is\n%s", text)
	}
	f.fs = nil
	apply(t, f, later)
	if got := readFile(t, f.Path); got != "# a\r\n"+string(later.Bytes())+foreignC {
		t.Errorf("file is\n%s", got)
	}
}
