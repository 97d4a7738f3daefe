package jobs

import (
	"fmt"
	"strings"
	"testing"

	"rolekey/masterd/state"
)

// TestLongLogSaysWhatIsGone: what the state would drop is counted in the log.
func TestLongLogSaysWhatIsGone(t *testing.T) {
	for _, c := range []struct{ lines, size, gone int }{
		{10, 100, 0},
		{state.MaxLogEntries, 10, 0},
		{state.MaxLogEntries + 5, 10, 6}, // with the one whose place the count takes
		{300, 1 << 10, 300 - 256 + 1},
		{1, 2 * state.MaxLogBytes, 0}, // the state clips it
	} {
		log := make([]state.LogLine, c.lines)
		for i := range log {
			log[i].Text = fmt.Sprintf("%0*d", c.size, i)
		}
		kept := newest(log)
		want := log[max(0, c.gone-1)]
		if c.gone > 0 {
			want.Text = fmt.Sprintf("  - NOTICE: %d earlier lines are left out: there are too many.", c.gone)
		}
		if len(kept) != c.lines-max(0, c.gone-1) || kept[0] != want || kept[len(kept)-1] != log[c.lines-1] && c.gone > 0 || strings.Contains(log[0].Text, "NOTICE") {
			t.Errorf("%d lines of %d bytes: %d are left, the first: %.80q", c.lines, c.size, len(kept), kept[0].Text)
		}
	}
}
