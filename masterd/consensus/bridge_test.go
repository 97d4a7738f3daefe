package consensus

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// TestG7LostAnswerAfterSnapshot loses the answer to the first entries that
// follow a snapshot. Raft's leader would send the snapshot again and again.
func TestG7LostAnswerAfterSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		lead := founded(t, l)
		for i := range 30 {
			if _, err := lead.admission(t.Context(), 10+i); err != nil {
				t.Fatal(err)
			}
		}
		lost := 0
		l.lose = func(_ raft.ServerID, message string, body []byte) bool {
			// why-sleep: a network without latency would not let time pass.
			time.Sleep(10 * time.Millisecond)
			var w struct{ Message raft.AppendEntriesRequest }
			if message != MessageAppendEntries || lost == 3 || json.Unmarshal(body, &w) != nil || len(w.Message.Entries) == 0 {
				return false
			}
			lost++
			return true
		}
		b := newBox(t, l, 2)
		b.start()
		if err := lead.node.AddNonvoter(t.Context(), b.id); err != nil {
			t.Fatal(err)
		}
		until(t, 30*time.Second, "the new server has caught up", func() bool { return lead.node.CaughtUp(b.id) })
		if lost != 3 {
			t.Errorf("%d answers were lost", lost)
		}
		if n := l.count(MessageInstallSnapshot); n > 1 {
			t.Errorf("the snapshot was sent %d times", n)
		}
		until(t, 10*time.Second, "it has applied everything", func() bool { return b.admissions() == lead.admissions() })
	})
}
