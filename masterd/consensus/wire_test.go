package consensus

import (
	"encoding/base64"
	"testing"

	"github.com/hashicorp/raft"

	"rolekey/masterd/state"
)

// TestG3Position: what a message tells of its sender's disk.
func TestG3Position(t *testing.T) {
	type at struct {
		term, index uint64
		ok          bool
	}
	for _, c := range []struct {
		name string
		cmd  raft.WithRPCHeader
		want at
	}{
		{"vote", &raft.RequestVoteRequest{Term: 9, LastLogIndex: 40, LastLogTerm: 7}, at{7, 40, true}},
		{"entries", &raft.AppendEntriesRequest{Term: 9, PrevLogEntry: 40, Entries: []*raft.Log{{Index: 41}, {Index: 42}}}, at{9, 42, true}},
		{"empty entries", &raft.AppendEntriesRequest{Term: 9, PrevLogEntry: 40}, at{9, 40, true}},
		{"heartbeat", &raft.AppendEntriesRequest{Term: 9}, at{}},
		{"pre-vote", &raft.RequestPreVoteRequest{Term: 9}, at{}},
		{"snapshot", &raft.InstallSnapshotRequest{Term: 9}, at{}},
	} {
		var got at
		got.term, got.index, got.ok = (&Message{cmd: c.cmd}).Position()
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestLargestMessagesFit: one that is too large would be sent again for ever.
func TestLargestMessagesFit(t *testing.T) {
	entries := int64(raftConfig(Config{}).MaxAppendEntries)
	const rest = 1 << 10 // of an entry, in JSON
	if need := entries * int64(base64.StdEncoding.EncodedLen(state.MaxCommand)+rest); need > MaxBody(MessageAppendEntries) {
		t.Errorf("%d entries take up to %d bytes, the bound is %d", entries, need, MaxBody(MessageAppendEntries))
	}
	if need := int64(base64.StdEncoding.EncodedLen(maxSnapshot)) + rest; need > MaxBody(MessageInstallSnapshot) {
		t.Errorf("a snapshot takes up to %d bytes, the bound is %d", need, MaxBody(MessageInstallSnapshot))
	}
}
