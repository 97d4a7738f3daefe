package consensus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func head(id raft.ServerID) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(id)}
}

func encodeMessage(t testing.TB, cmd any, snapshot []byte) []byte {
	t.Helper()
	b, err := json.Marshal(wire{Message: cmd, Snapshot: snapshot})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func someConfiguration() []byte {
	return raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}})
}

// messages has one valid message of each kind, from the server named from.
func messages(t testing.TB, from raft.ServerID) map[string][]byte {
	return map[string][]byte{
		MessageAppendEntries: encodeMessage(t, &raft.AppendEntriesRequest{RPCHeader: head(from), Term: 3, PrevLogEntry: 1, Entries: []*raft.Log{
			{Index: 2, Term: 3, Type: raft.LogCommand, Data: []byte("x")},
			{Index: 3, Term: 3, Type: raft.LogConfiguration, Data: someConfiguration()},
			{Index: 4, Term: 3, Type: raft.LogNoop},
			{Index: 5, Term: 3, Type: raft.LogBarrier},
		}}, nil),
		MessageRequestVote:     encodeMessage(t, &raft.RequestVoteRequest{RPCHeader: head(from), Term: 3}, nil),
		MessageRequestPreVote:  encodeMessage(t, &raft.RequestPreVoteRequest{RPCHeader: head(from), Term: 3}, nil),
		MessageTimeoutNow:      encodeMessage(t, &raft.TimeoutNowRequest{RPCHeader: head(from)}, nil),
		MessageInstallSnapshot: encodeMessage(t, &raft.InstallSnapshotRequest{RPCHeader: head(from), SnapshotVersion: raft.SnapshotVersionMax, Configuration: someConfiguration(), Size: 3}, []byte("abc")),
	}
}

// handle is what the gate does with a message.
func handle(ctx context.Context, to interface {
	Handle(ctx context.Context, m *Message) ([]byte, error)
}, from raft.ServerID, name string, body []byte,
) ([]byte, error) {
	m, err := Decode(from, name, body)
	if err != nil {
		return nil, err
	}
	return to.Handle(ctx, m)
}

// answering plays raft: it answers everything with an empty response.
func answering(t *testing.T, tr *Transport) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case rpc := <-tr.Consumer():
				if rpc.Reader != nil {
					_, _ = io.Copy(io.Discard, rpc.Reader)
				}
				rpc.Respond(&raft.AppendEntriesResponse{Term: 7}, nil)
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// TestG3HeaderMustNameTheProvenPeer: raft itself believes headers.
func TestG3HeaderMustNameTheProvenPeer(t *testing.T) {
	tr := NewTransport("me", nil)
	answering(t, tr)
	for message, body := range messages(t, "peer") {
		if _, err := handle(t.Context(), tr, "peer", message, body); err != nil {
			t.Errorf("%s of the peer itself: %v", message, err)
		}
		for _, other := range []raft.ServerID{"other", "", "peer2", "PEER", "me"} {
			if _, err := handle(t.Context(), tr, other, message, body); err == nil || !strings.Contains(err.Error(), "header names") {
				t.Errorf("%s that names another server than %q: %v", message, other, err)
			}
		}
	}
	for message, body := range messages(t, "") {
		if _, err := handle(t.Context(), tr, "peer", message, body); err == nil {
			t.Errorf("%s without a name is taken", message)
		}
	}
}

// TestMalformedMessagesAreRefused lists what would make raft panic, or is no
// message at all. None of it may reach raft.
func TestMalformedMessagesAreRefused(t *testing.T) {
	entry := func(l *raft.Log) []byte {
		return encodeMessage(t, &raft.AppendEntriesRequest{RPCHeader: head("peer"), Entries: []*raft.Log{l}}, nil)
	}
	valid := messages(t, "peer")
	for name, c := range map[string]struct {
		message string
		body    []byte
	}{
		"unknown message":             {"become-leader", valid[MessageTimeoutNow]},
		"no message name":             {"", valid[MessageTimeoutNow]},
		"empty body":                  {MessageRequestVote, nil},
		"no JSON":                     {MessageRequestVote, []byte("x")},
		"null":                        {MessageRequestVote, []byte("null")},
		"array":                       {MessageRequestVote, []byte("[]")},
		"no message":                  {MessageRequestVote, []byte("{}")},
		"null message":                {MessageRequestVote, []byte(`{"message":null}`)},
		"message of another shape":    {MessageRequestVote, []byte(`{"message":[1]}`)},
		"two messages, first null":    {MessageRequestVote, []byte(`{"message":null,"message":{"Term":1}}`)},
		"two messages, second null":   {MessageRequestVote, []byte(`{"message":{"Term":1},"message":null}`)},
		"two, null, another spelling": {MessageAppendEntries, []byte(`{"message":null,"Message":{"Term":1}}`)},
		"trailing bytes":              {MessageRequestVote, append(bytes.Clone(valid[MessageRequestVote]), "{}"...)},
		"negative term":               {MessageRequestVote, []byte(`{"message":{"ID":"cGVlcg==","Term":-1}}`)},
		"null entry":                  {MessageAppendEntries, entry(nil)},
		"unknown type of entry":       {MessageAppendEntries, entry(&raft.Log{Index: 1, Type: 200})},
		"entry of former raft":        {MessageAppendEntries, entry(&raft.Log{Index: 1, Type: raft.LogAddPeerDeprecated})},
		"entry of former raft 2":      {MessageAppendEntries, entry(&raft.Log{Index: 1, Type: raft.LogRemovePeerDeprecated})},
		"configuration entry, empty":  {MessageAppendEntries, entry(&raft.Log{Index: 1, Type: raft.LogConfiguration})},
		"configuration entry, junk":   {MessageAppendEntries, entry(&raft.Log{Index: 1, Type: raft.LogConfiguration, Data: []byte{0xc1, 0xff}})},
		"snapshot, junk configuration": {MessageInstallSnapshot, encodeMessage(t, &raft.InstallSnapshotRequest{
			RPCHeader: head("peer"), SnapshotVersion: 1, Configuration: []byte{0xc1, 0xff},
		}, []byte("abc"))},
		"snapshot of former raft": {MessageInstallSnapshot, encodeMessage(t, &raft.InstallSnapshotRequest{
			RPCHeader: head("peer"), SnapshotVersion: 0, Peers: []byte{0xc1},
		}, []byte("abc"))},
		"snapshot in another message": {MessageRequestVote, encodeMessage(t, &raft.RequestVoteRequest{RPCHeader: head("peer")}, []byte("abc"))},
	} {
		t.Run(name, func(t *testing.T) {
			tr := NewTransport("me", nil)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // what gets as far as raft ends here
			if _, err := handle(ctx, tr, "peer", c.message, c.body); err == nil || errors.Is(err, context.Canceled) {
				t.Errorf("it reached raft")
			}
		})
	}
}

// TestLogTypesAreThoseOfRaft fails when raft learns a new type of entry.
func TestLogTypesAreThoseOfRaft(t *testing.T) {
	for i := range 256 {
		kind := raft.LogType(i)
		known := kind == raft.LogCommand || kind == raft.LogNoop || kind == raft.LogBarrier || kind == raft.LogConfiguration
		err := checkEntry(&raft.Log{Type: kind, Data: someConfiguration()})
		if known != (err == nil) {
			t.Errorf("entry of type %s (%d): %v", kind, i, err)
		}
	}
}

func TestHeartbeatsTakeTheFastPath(t *testing.T) {
	tr := NewTransport("me", nil)
	var fast int
	tr.SetHeartbeatHandler(func(rpc raft.RPC) {
		fast++
		rpc.Respond(&raft.AppendEntriesResponse{Term: 9}, nil)
	})
	beat := encodeMessage(t, &raft.AppendEntriesRequest{RPCHeader: head("peer"), Term: 9}, nil)
	answer, err := handle(t.Context(), tr, "peer", MessageAppendEntries, beat)
	if err != nil || fast != 1 {
		t.Fatalf("handled %d times, error %v", fast, err)
	}
	var resp raft.AppendEntriesResponse
	if err := json.Unmarshal(answer, &resp); err != nil || resp.Term != 9 {
		t.Errorf("answer %s: %v", answer, err)
	}
}

func TestRaftErrorsReachThePeer(t *testing.T) {
	tr := NewTransport("me", nil)
	tr.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(nil, errors.New("no, thanks")) })
	beat := encodeMessage(t, &raft.AppendEntriesRequest{RPCHeader: head("peer")}, nil)
	if _, err := handle(t.Context(), tr, "peer", MessageAppendEntries, beat); err == nil || !strings.Contains(err.Error(), "no, thanks") {
		t.Errorf("error %v", err)
	}
}

// silent never answers until its context ends.
type silent struct{}

func (silent) Send(ctx context.Context, _ raft.ServerID, _ string, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestCloseUnblocksEverything: closing touches no disk and waits for nobody, so
// that a leader with a hung disk can be silenced.
func TestCloseUnblocksEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTransport("me", silent{})
		vote := messages(t, "peer")[MessageRequestVote]
		ended := make(chan string, 10)
		go func() {
			_ = tr.RequestVote("peer", "peer", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{})
			ended <- "call"
		}()
		go func() {
			_, _ = handle(context.Background(), tr, "peer", MessageRequestVote, vote)
			ended <- "message that raft does not take"
		}()
		synctest.Wait()
		taken := <-tr.Consumer() // now Handle waits for the answer
		go func() {
			_, _ = handle(context.Background(), tr, "peer", MessageRequestVote, vote)
			ended <- "message that raft does not take"
		}()
		synctest.Wait()
		start := time.Now()
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			<-ended
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("it took %s", took)
		}
		taken.Respond(nil, nil) // nobody listens, and nothing breaks
		if err := tr.RequestVote("peer", "peer", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{}); !errors.Is(err, errClosed) {
			t.Errorf("call after Close: %v", err)
		}
		tr.SetHeartbeatHandler(func(raft.RPC) { t.Error("a heartbeat passes after Close") })
		beat := encodeMessage(t, &raft.AppendEntriesRequest{RPCHeader: head("peer")}, nil)
		if _, err := handle(t.Context(), tr, "peer", MessageAppendEntries, beat); !errors.Is(err, errClosed) {
			t.Errorf("message after Close: %v", err)
		}
	})
}

// TestCallsEndByThemselves: a peer that never answers holds nobody up.
func TestCallsEndByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTransport("me", silent{})
		for name, c := range map[string]struct {
			limit time.Duration
			call  func() error
		}{
			"vote": {messageTimeout, func() error {
				return tr.RequestVote("p", "p", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{})
			}},
			"pre-vote": {messageTimeout, func() error {
				return tr.RequestPreVote("p", "p", &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{})
			}},
			"entries": {messageTimeout, func() error {
				return tr.AppendEntries("p", "p", &raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{})
			}},
			"timeout now": {messageTimeout, func() error {
				return tr.TimeoutNow("p", "p", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{})
			}},
			"snapshot": {snapshotTimeout, func() error {
				return tr.InstallSnapshot("p", "p", &raft.InstallSnapshotRequest{}, &raft.InstallSnapshotResponse{}, strings.NewReader("x"))
			}},
		} {
			start := time.Now()
			if err := c.call(); err == nil {
				t.Errorf("%s: no error", name)
			}
			if took := time.Since(start); took != c.limit {
				t.Errorf("%s ended after %s, want %s", name, took, c.limit)
			}
		}
	})
}

func TestSnapshotBounds(t *testing.T) {
	if maxSnapshot < state.MaxSnapshot {
		t.Errorf("a state may encode to %d bytes, and only %d can be restored or sent", state.MaxSnapshot, maxSnapshot)
	}
	tr := NewTransport("me", silent{})
	err := tr.InstallSnapshot("p", "p", &raft.InstallSnapshotRequest{Size: maxSnapshot + 1}, &raft.InstallSnapshotResponse{}, strings.NewReader(""))
	if err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("a snapshot over the limit: %v", err)
	}
}

// TestSnapshotOverTheTransport: a founded cluster's log begins after its first
// snapshot, so whoever joins is given that first.
func TestSnapshotOverTheTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lead := founded(t, newLAN())
		other := grow(t, lead, 2)
		if other.lan.count(MessageInstallSnapshot) == 0 {
			t.Error("no snapshot was sent")
		}
		until(t, 10*time.Second, "it has the state", func() bool { return other.node.State().Founded() })
		if got, want := other.node.State().CA.Key.Reveal(), statetest.CAKey; !bytes.Equal(got, want) {
			t.Error("the secrets of the state did not arrive")
		}
		if other.node.State().Head().Hash != lead.node.State().Head().Hash {
			t.Error("the state is another")
		}
	})
}

// TestWireKeepsNumbersExact: JSON numbers beyond 2^53 must not lose digits.
func TestWireKeepsNumbersExact(t *testing.T) {
	const big = 1<<63 + 12345
	b := encodeMessage(t, &raft.AppendEntriesRequest{RPCHeader: head("p"), Term: big, PrevLogEntry: big, Entries: []*raft.Log{{Index: big + 1}}}, nil)
	cmd, _, err := decode(MessageAppendEntries, b)
	if err != nil {
		t.Fatal(err)
	}
	a := cmd.(*raft.AppendEntriesRequest) //nolint:forcetypeassert // decode says so
	if a.Term != big || a.PrevLogEntry != big || a.Entries[0].Index != big+1 {
		t.Errorf("numbers became %d, %d, %d", a.Term, a.PrevLogEntry, a.Entries[0].Index)
	}
}

// FuzzHandle feeds a live transport: whatever comes, it answers or refuses, and
// what reaches raft is a message from the proven peer that raft can take.
func FuzzHandle(f *testing.F) {
	for message, body := range messages(f, "peer") {
		f.Add(message, body)
	}
	f.Add(MessageRequestVote, []byte(`{"message":null,"message":{"Term":1}}`))
	f.Add(MessageAppendEntries, []byte(`{"message":{"ID":"cGVlcg==","Entries":[{"Type":6}]}}`))
	f.Fuzz(func(t *testing.T, message string, body []byte) {
		tr := NewTransport("me", nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			if _, err := handle(ctx, tr, "peer", message, body); err != nil {
				cancel()
			}
		}()
		select {
		case rpc := <-tr.Consumer():
			if id := rpc.Command.(raft.WithRPCHeader).GetRPCHeader().ID; string(id) != "peer" {
				t.Errorf("raft is told that %q spoke", id)
			}
			rpc.Respond(&raft.TimeoutNowResponse{}, nil)
		case <-ctx.Done():
		}
	})
}
