package audit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if lines, more, err := Tail(path, 10, time.Time{}); len(lines) > 0 || more || err != nil {
		t.Errorf("a log that is not begun: %d lines, %t, %v", len(lines), more, err)
	}
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	write := func(n int, pad string) {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, `{"time":%q,"target":"%d","op":%q}`+"\n", began.Add(time.Duration(i)*time.Second).Format(time.RFC3339), i, pad)
			if i == 3 {
				text.WriteString("half a li\n")
			}
		}
		if err := os.WriteFile(path, []byte(text.String()+`{"time":"2026-`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	last := func(lines []json.RawMessage) string {
		var l struct{ Target string }
		if len(lines) == 0 || json.Unmarshal(lines[len(lines)-1], &l) != nil {
			return ""
		}
		return l.Target
	}
	for _, c := range []struct {
		written, n int
		pad        string
		since      time.Time
		want       int
		more       bool
	}{
		{10, 100, "", time.Time{}, 10, false},
		{10, 4, "", time.Time{}, 4, true},
		{10, 4, "", began.Add(8 * time.Second), 2, false},
		{10, 100, "", began.Add(time.Hour), 0, false},
		{3000, 5000, "", time.Time{}, MaxTail, true},
		{300, 1000, strings.Repeat("x", 10<<10), time.Time{}, 203, true}, // 2 MiB of them
	} {
		write(c.written, c.pad)
		lines, more, err := Tail(path, c.n, c.since)
		if err != nil || len(lines) != c.want || more != c.more {
			t.Errorf("%d of %d: %d lines, want %d; more %t; %v", c.n, c.written, len(lines), c.want, more, err)
		}
		if c.want > 0 && last(lines) != fmt.Sprint(c.written-1) {
			t.Errorf("the last is %s", last(lines))
		}
	}
	if _, _, err := Tail(t.TempDir(), 1, time.Time{}); err == nil {
		t.Error("a folder is read")
	}
}
