package consensus

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// commands returns a founded state, and commands that follow from it.
func commands(t *testing.T) (first *state.State, log [][]byte, last *state.State) {
	t.Helper()
	lab := statetest.New(t)
	first = lab.S
	lab.Add(2)
	lab.Promote(2)
	return first, lab.Log[1:], lab.S
}

func applyAll(f *fsm, log [][]byte) (last any) {
	for i, b := range log {
		last = f.Apply(&raft.Log{Index: uint64(i + 2), Term: 1, Data: b})
	}
	return last
}

// TestUnknownCommandStops: whoever skipped a command would disagree with the
// others from then on, and might keep that for ever in a snapshot.
func TestUnknownCommandStops(t *testing.T) {
	first, log, _ := commands(t)
	for name, bad := range map[string][]byte{
		"format of a later release": append([]byte{2}, log[0][1:]...),
		"kind of a later release":   bytes.Replace(log[0], []byte("admission-create"), []byte("admission-dream!"), 1),
		"empty":                     nil,
		"cut off":                   log[0][:len(log[0])/2],
	} {
		var fatal []error
		f := newFSM(func(err error) { fatal = append(fatal, err) })
		f.set(first)
		result, _ := f.Apply(&raft.Log{Index: 2, Term: 1, Data: bad}).(state.Result)
		if len(fatal) != 1 || !strings.Contains(fatal[0].Error(), "entry 2") {
			t.Fatalf("%s: fatal was called with %v", name, fatal)
		}
		if result.Err == nil || result.Err.Code != cluster.CodeUnsupportedFormat {
			t.Errorf("%s: the proposer is told %v", name, result.Err)
		}
		after, _ := f.Apply(&raft.Log{Index: 3, Term: 1, Data: log[0]}).(state.Result)
		if after.Err == nil || f.current.Load() != first {
			t.Errorf("%s: the next command is applied to a state that lacks this one", name)
		}
		if _, err := f.Snapshot(); err == nil {
			t.Errorf("%s: the wrong state can be made a snapshot", name)
		}
		if len(fatal) != 1 {
			t.Errorf("%s: fatal was called %d times", name, len(fatal))
		}
	}
}

// TestUnknownCommandStopsEveryNode is the same through raft, with a restart:
// the entry stays in the log, and stops the old release again.
func TestUnknownCommandStopsEveryNode(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		future := boxes[0].node.raft.Apply([]byte("\x02a command of a later release"), time.Second)
		if err := future.Error(); err != nil {
			t.Fatal(err)
		}
		for _, b := range boxes {
			select {
			case err := <-b.fatal:
				if !errors.Is(err, state.ErrUnknownCommand) {
					t.Errorf("the reason is %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s goes on", b.id)
			}
		}
		if _, err := boxes[0].admission(t.Context(), 10); err == nil {
			t.Error("a proposal succeeds on a state that lacks an entry")
		}
		boxes[1].kill()
		boxes[1].start()
		select {
		case <-boxes[1].fatal:
		case <-time.After(20 * time.Second):
			t.Error("after a restart the entry is skipped")
		}
	})
}

// mem is a snapshot sink in memory.
type mem struct {
	bytes.Buffer
	fail             bool
	closed, canceled bool
}

func (m *mem) Write(b []byte) (int, error) {
	if m.fail {
		return 0, errors.New("no space left on device")
	}
	return m.Buffer.Write(b)
}
func (m *mem) ID() string    { return "mem" }
func (m *mem) Close() error  { m.closed = true; return nil }
func (m *mem) Cancel() error { m.canceled = true; return nil }

func TestStateSurvivesASnapshot(t *testing.T) {
	first, log, want := commands(t)
	f := newFSM(func(err error) { t.Error(err) })
	f.set(first)
	changed := f.watch()
	if r, ok := applyAll(f, log).(state.Result); !ok || r.Err != nil {
		t.Fatalf("apply: %v", r.Err)
	}
	<-changed
	s, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var sink mem
	if err := s.Persist(&sink); err != nil || !sink.closed || sink.canceled {
		t.Fatalf("persist: %v, closed %t, canceled %t", err, sink.closed, sink.canceled)
	}
	g := newFSM(func(err error) { t.Error(err) })
	if err := g.Restore(io.NopCloser(&sink.Buffer)); err != nil {
		t.Fatal(err)
	}
	a, err1 := state.EncodeSnapshot(want)
	b, err2 := state.EncodeSnapshot(g.current.Load())
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Errorf("the restored state is another: %v %v", err1, err2)
	}
}

func TestFailedSnapshotIsCanceled(t *testing.T) {
	first, _, _ := commands(t)
	sink := mem{fail: true}
	if err := (snapshot{first}).Persist(&sink); err == nil || !sink.canceled || sink.closed {
		t.Errorf("persist on a full disk: %v, closed %t, canceled %t", err, sink.closed, sink.canceled)
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	first, _, _ := commands(t)
	good, err := state.EncodeSnapshot(first)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "later format": append([]byte{9}, good[1:]...), "cut off": good[:len(good)-7], "longer": append(bytes.Clone(good), '\n'),
	} {
		f := newFSM(func(error) {})
		f.set(first)
		if err := f.Restore(io.NopCloser(bytes.NewReader(b))); err == nil {
			t.Errorf("%s: restored", name)
		}
		if f.current.Load() != first {
			t.Errorf("%s: the state was replaced", name)
		}
	}
}

// TestRefusedCommandIsNoChange: every replica refuses alike.
func TestRefusedCommandIsNoChange(t *testing.T) {
	first, log, _ := commands(t)
	f := newFSM(func(err error) { t.Error(err) })
	f.set(first)
	r, _ := f.Apply(&raft.Log{Index: 2, Term: 1, Data: log[len(log)-1]}).(state.Result)
	if r.Err == nil || f.current.Load() != first {
		t.Errorf("a command for another state: %v", r.Err)
	}
}

// TestEmptyNodeTakesSnapshots: a candidate that has not received the state yet.
func TestEmptyNodeTakesSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, newLAN(), 1)
		b.start()
		if b.node.State().Founded() || b.node.Leads() {
			t.Error("an empty node has a state, or leads")
		}
		time.Sleep(time.Minute)
		if b.node.Leads() {
			t.Error("a node that knows no servers elected itself")
		}
		s, err := b.node.fsm.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		var sink mem
		if err := s.Persist(&sink); err != nil {
			t.Fatal(err)
		}
		if err := b.node.fsm.Restore(io.NopCloser(&sink.Buffer)); err != nil {
			t.Error(err)
		}
	})
}
