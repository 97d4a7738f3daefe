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
		lost := make(chan struct{}, 3) // answers; raft sends from two goroutines
		l.lose = func(_ raft.ServerID, message string, body []byte) bool {
			// why-sleep: a network without latency would not let time pass.
			time.Sleep(10 * time.Millisecond)
			var w struct{ Message raft.AppendEntriesRequest }
			if message != MessageAppendEntries || json.Unmarshal(body, &w) != nil || len(w.Message.Entries) == 0 {
				return false
			}
			select {
			case lost <- struct{}{}:
				return true
			default:
				return false
			}
		}
		b := newBox(t, l, 2)
		b.start()
		if err := lead.node.AddNonvoter(t.Context(), b.id); err != nil {
			t.Fatal(err)
		}
		until(t, 30*time.Second, "the new server has caught up", func() bool { return lead.node.CaughtUp(b.id) })
		if len(lost) != cap(lost) {
			t.Errorf("%d answers were lost", len(lost))
		}
		if n := l.count(MessageInstallSnapshot); n > 1 {
			t.Errorf("the snapshot was sent %d times", n)
		}
		until(t, 10*time.Second, "it has applied everything", func() bool { return b.admissions() == lead.admissions() })
	})
}
