package consensus

import (
	"encoding/json"
	"fmt"

	"github.com/hashicorp/raft"
)

// Names of the messages, the last element of the RPC path.
const (
	MessageAppendEntries   = "append-entries"
	MessageRequestVote     = "request-vote"
	MessageRequestPreVote  = "request-pre-vote"
	MessageInstallSnapshot = "install-snapshot"
	MessageTimeoutNow      = "timeout-now"
)

// wire is the body of a message. Proof leaves room for the signed votes that
// a leader will have to present; nothing fills it in this format.
type wire struct {
	Message  any             `json:"message"`
	Snapshot []byte          `json:"snapshot,omitempty"`
	Proof    json.RawMessage `json:"proof,omitempty"`
}

func decode(message string, body []byte) (cmd any, snapshot []byte, err error) {
	switch message {
	case MessageAppendEntries:
		cmd = new(raft.AppendEntriesRequest)
	case MessageRequestVote:
		cmd = new(raft.RequestVoteRequest)
	case MessageRequestPreVote:
		cmd = new(raft.RequestPreVoteRequest)
	case MessageInstallSnapshot:
		cmd = new(raft.InstallSnapshotRequest)
	case MessageTimeoutNow:
		cmd = new(raft.TimeoutNowRequest)
	default:
		return nil, nil, fmt.Errorf("raft message %q is unknown", clip([]byte(message)))
	}
	w := wire{Message: cmd}
	if err := json.Unmarshal(body, &w); err != nil {
		return nil, nil, fmt.Errorf("decode %s: %w", message, err)
	}
	if w.Message == nil { // JSON null replaces the pointer
		return nil, nil, fmt.Errorf("decode %s: no message", message)
	}
	if err := check(w.Message); err != nil {
		return nil, nil, fmt.Errorf("decode %s: %w", message, err)
	}
	if message == MessageInstallSnapshot && w.Snapshot == nil {
		w.Snapshot = []byte{}
	}
	return w.Message, w.Snapshot, nil
}

// check refuses what would make raft panic.
func check(cmd any) error {
	a, ok := cmd.(*raft.AppendEntriesRequest)
	if !ok {
		return nil
	}
	for i, e := range a.Entries {
		if e == nil {
			return fmt.Errorf("entry %d is missing", i)
		}
	}
	return nil
}
