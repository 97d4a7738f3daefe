package consensus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"rolekey/cluster"
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

// maxMessage bounds a message without a snapshot: the most entries that raft
// sends at once, each of the largest size, in base64.
const maxMessage = 32 << 20

// MaxBody returns the bound of an encoded message.
func MaxBody(name string) int64 {
	if name == MessageInstallSnapshot {
		return 2 * maxSnapshot // in base64
	}
	return maxMessage
}

// Message is a decoded message of a server that the gate has proved.
type Message struct {
	name     string
	cmd      raft.WithRPCHeader
	snapshot []byte
}

// Decode reads a message of the server named from. A header that names another
// server is refused: raft itself believes headers.
func Decode(from raft.ServerID, name string, body []byte) (*Message, error) {
	cmd, snapshot, err := decode(name, body)
	if err != nil {
		return nil, err
	}
	if id := cmd.GetRPCHeader().ID; !bytes.Equal(id, []byte(from)) {
		return nil, cluster.Errorf(cluster.CodeIdentityMismatch, "%s: header names %q, the peer is %q", name, clip(id), from)
	}
	return &Message{name, cmd, snapshot}, nil
}

// Position returns how far the sender's log reaches, if the message tells. Only
// what the sender has on its disk counts.
func (m *Message) Position() (term, index uint64, ok bool) {
	switch c := m.cmd.(type) {
	case *raft.RequestVoteRequest:
		return c.LastLogTerm, c.LastLogIndex, true
	case *raft.AppendEntriesRequest:
		if c.PrevLogEntry > 0 {
			return c.Term, c.PrevLogEntry + uint64(len(c.Entries)), true
		}
	}
	return 0, 0, false
}

// decode reads a message, and refuses what would make raft panic.
func decode(message string, body []byte) (cmd raft.WithRPCHeader, snapshot []byte, err error) {
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
		return nil, nil, cluster.Errorf(cluster.CodeUnsupportedFormat, "raft message %q is unknown", clip([]byte(message)))
	}
	w := wire{Message: cmd}
	err = json.Unmarshal(body, &w)
	if err == nil {
		err = check(message, cmd, w)
	}
	if err != nil {
		return nil, nil, cluster.Errorf(cluster.CodeBadFormat, "decode %s: %v", message, err)
	}
	return cmd, w.Snapshot, nil
}

func check(message string, cmd raft.WithRPCHeader, w wire) error {
	if w.Message != any(cmd) { // JSON null replaces the pointer
		return errors.New("no message")
	}
	if (message == MessageInstallSnapshot) != (w.Snapshot != nil) {
		return errors.New("a snapshot and its message belong together")
	}
	switch m := cmd.(type) {
	case *raft.AppendEntriesRequest:
		for i, e := range m.Entries {
			if err := checkEntry(e); err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
		}
	case *raft.InstallSnapshotRequest:
		if m.SnapshotVersion != raft.SnapshotVersionMax {
			return fmt.Errorf("snapshot format %d", m.SnapshotVersion)
		}
		return checkConfiguration(m.Configuration)
	}
	return nil
}

func checkEntry(e *raft.Log) error {
	if e == nil {
		return errors.New("it is missing")
	}
	switch e.Type {
	case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		return nil
	case raft.LogConfiguration:
		return checkConfiguration(e.Data)
	default:
		return fmt.Errorf("type %d", e.Type)
	}
}

// checkConfiguration tries what raft will do: raft has no decoder that returns
// an error.
func checkConfiguration(b []byte) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the configuration is not readable")
		}
	}()
	raft.DecodeConfiguration(b)
	return nil
}
