package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rolekey/masterd/rapi/wire"
)

// shown is what a terminal shows after some bytes: carriage returns go back,
// later characters cover earlier ones, and long lines wrap.
func shown(text string, width int) []string {
	lines, col := [][]rune{{}}, 0
	for _, r := range text {
		switch r {
		case '\r':
			col = 0
		case '\n':
			lines, col = append(lines, nil), 0
		default:
			if col == width {
				lines, col = append(lines, nil), 0
			}
			last := &lines[len(lines)-1]
			if col < len(*last) {
				(*last)[col] = r
			} else {
				*last = append(*last, r)
			}
			col++
		}
	}
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = strings.TrimRight(string(l), " ")
	}
	return out
}

func TestScreen(t *testing.T) {
	var b bytes.Buffer
	width := 20
	s := &screen{out: &b, width: func() int { return width }}
	see := func(want ...string) {
		t.Helper()
		if got := shown(b.String(), 20); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("shown are %q, want %q", got, want)
		}
	}
	s.now("Job 1: queued")
	see("Job 1: queued")
	s.now("Job 1: run")
	see("Job 1: run")
	s.now("größer als der Bildschirm")
	see("größer als der B...")
	s.line("a line")
	see("a line", "")
	s.now("one\ntwo\tthree")
	see("a line", "one two three")
	width = 5
	s.now("eleven letters")
	width = 20
	s.now("x")
	s.line("hello \x1b[31mred\x07")
	s.clear()
	see("a line", "hello ?[31mred?", "")
	if strings.ContainsRune(b.String(), '\x1b') {
		t.Error("an escape sequence went through")
	}
	for width, want := range map[int]string{-1: "", 0: "", 2: "..", 3: "...", 4: "e...", 14: "eleven letters"} {
		if got := cut("eleven letters", width); got != want {
			t.Errorf("%d: %q, want %q", width, got, want)
		}
	}
}

func TestScreenThatIsNoTerminal(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b)
	s.now("Job 1: queued")
	s.line("a line")
	s.clear()
	if s.live() || b.String() != "a line\n" {
		t.Errorf("%v %q", s.live(), b.String())
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if newScreen(f).live() {
		t.Error("/dev/null is taken for a terminal")
	}
}

// TestScreenOnATerminal: a pseudo terminal has a width, and TERM=dumb none.
func TestScreenOnATerminal(t *testing.T) {
	t.Setenv("TERM", "vt100")
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminals: %v", err)
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skipf("no pseudo terminals: %v", err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals: %v", err)
	}
	defer tty.Close()
	if s := newScreen(tty); !s.live() || s.width() != usualWidth {
		t.Errorf("live %v", s.live())
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 33}); err != nil {
		t.Fatal(err)
	}
	if s := newScreen(tty); !s.live() || s.width() != 33 {
		t.Errorf("live %v, width %d", s.live(), s.width())
	}
	t.Setenv("TERM", "dumb")
	if newScreen(tty).live() {
		t.Error("a dumb terminal is written over")
	}
}

// TestFollowOnATerminal: progress is one line, log lines and the end stay.
func TestFollowOnATerminal(t *testing.T) {
	var b bytes.Buffer
	s := &screen{out: &b, width: func() int { return 60 }}
	f := follow(s, 7)
	j := &jobState{status: "queued"}
	f.news(j)
	j.status = "running"
	for i := range 3 {
		f.line(wire.LogEntry{Text: fmt.Sprintf("line %d", i)})
		j.progress = append(j.progress, wire.Progress{Text: fmt.Sprintf("effective on %d of 3 nodes", i+1)})
		f.progress(j.progress[i])
		f.news(j)
		got := shown(b.String(), 60)
		if last := got[len(got)-1]; last != fmt.Sprintf("Job 7: running: effective on %d of 3 nodes", i+1) {
			t.Errorf("%q", got)
		}
	}
	j.status = "success"
	f.news(j)
	got := shown(b.String(), 60)
	if len(got) != 5 || !strings.HasSuffix(got[2], " line 2") || got[3] != "effective on 3 of 3 nodes" || got[4] != "" {
		t.Errorf("%q", got)
	}
}
