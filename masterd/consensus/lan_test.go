package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// lan connects the nodes of one test in memory. A message to or from a node
// that is cut off is swallowed, as a firewall does it.
type lan struct {
	mu    sync.Mutex
	nodes map[raft.ServerID]*Node
	cut   map[raft.ServerID]bool
	sent  map[string]int // messages by name
	evil  raft.ServerID  // answers what raft sends the log to with a far term
	lied  atomic.Int64   // how often it did
	hooks Hooks          // of every node

	// lose, if set, tells of an answer that was given whether it gets lost.
	lose func(to raft.ServerID, message string, body []byte) bool
}

func newLAN() *lan {
	return &lan{nodes: map[raft.ServerID]*Node{}, cut: map[raft.ServerID]bool{}, sent: map[string]int{}}
}

func (l *lan) set(id raft.ServerID, n *Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[id] = n
}

func (l *lan) cutOff(id raft.ServerID, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut[id] = yes
}

func (l *lan) count(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent[message]
}

// port is the Sender of one node.
type port struct {
	lan  *lan
	from raft.ServerID
}

func (p port) Send(ctx context.Context, to raft.ServerID, message string, body []byte) ([]byte, error) {
	p.lan.mu.Lock()
	p.lan.sent[message]++
	n, cut := p.lan.nodes[to], p.lan.cut[to] || p.lan.cut[p.from]
	p.lan.mu.Unlock()
	if cut {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if to == p.lan.evil {
		p.lan.lied.Add(1)
		return json.Marshal(raft.AppendEntriesResponse{Term: 1 << 60})
	}
	if n == nil {
		return nil, errors.New("connection refused")
	}
	answer, err := handle(ctx, n, p.from, message, body)
	if p.lan.lose != nil && p.lan.lose(to, message, body) {
		return nil, errors.New("connection reset")
	}
	return answer, err
}

// hangDisk is a disk in memory that can be made to hang: every write then
// waits until it is released.
type hangDisk struct {
	*raft.InmemStore
	mu   sync.Mutex
	hung chan struct{} // nil: works

	writes atomic.Int64 // of log entries, however many at once
}

func newHangDisk() *hangDisk { return &hangDisk{InmemStore: raft.NewInmemStore()} }

func (d *hangDisk) hang() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hung := make(chan struct{})
	d.hung = hung
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.hung = nil
		close(hung)
	})
}

func (d *hangDisk) wait() {
	d.mu.Lock()
	hung := d.hung
	d.mu.Unlock()
	if hung != nil {
		<-hung
	}
}

func (d *hangDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }
func (d *hangDisk) StoreLogs(l []*raft.Log) error {
	d.wait()
	d.writes.Add(1)
	return d.InmemStore.StoreLogs(l)
}
func (d *hangDisk) Set(k, v []byte) error { d.wait(); return d.InmemStore.Set(k, v) }
func (d *hangDisk) SetUint64(k []byte, v uint64) error {
	d.wait()
	return d.InmemStore.SetUint64(k, v)
}

// box is one candidate: what outlives its masterd, and the running Node.
type box struct {
	t     *testing.T
	lan   *lan
	id    raft.ServerID
	disk  *hangDisk
	snaps *raft.InmemSnapshotStore
	node  *Node
	fatal chan error
}

func newBox(t *testing.T, l *lan, i int) *box {
	return &box{
		t: t, lan: l, id: ServerID(statetest.ID(i), 1), disk: newHangDisk(), snaps: raft.NewInmemSnapshotStore(),
		fatal: make(chan error, 8),
	}
}

func (b *box) start() {
	b.t.Helper()
	n, err := New(Config{
		ID: b.id, Logs: b.disk, Stable: b.disk, Snapshots: b.snaps, Sender: port{b.lan, b.id}, Hooks: b.lan.hooks,
		Logger: hclog.NewNullLogger(), Fatal: func(err error) { b.fatal <- err },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.node = n
	b.lan.set(b.id, n)
	b.t.Cleanup(b.kill) // a bubble does not end before its goroutines have
}

// kill ends the node; what is on its disk stays.
func (b *box) kill() {
	b.t.Helper()
	b.lan.set(b.id, nil)
	if b.node == nil {
		return
	}
	defer func() { b.node = nil }()
	if err := b.node.Close(); err != nil {
		b.t.Error(err)
	}
}

// until waits in virtual time.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(start) > limit {
			t.Fatalf("after %s still not: %s", limit, what)
		}
	}
}

// founded starts a cluster whose only voter is the first box.
func founded(t *testing.T, l *lan) *box {
	t.Helper()
	b := newBox(t, l, 1)
	if err := Found(b.id, b.disk, b.snaps, statetest.New(t).S); err != nil {
		t.Fatal(err)
	}
	b.start()
	until(t, 10*time.Second, "the founder leads", b.node.Leads)
	return b
}

// grow adds a voter as the reconciler does: non-voter first.
func grow(t *testing.T, lead *box, i int) *box {
	t.Helper()
	b := newBox(t, lead.lan, i)
	b.start()
	ctx := t.Context()
	if err := lead.node.AddNonvoter(ctx, b.id); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "the new server has caught up", func() bool { return lead.node.CaughtUp(b.id) })
	if err := lead.node.AddVoter(ctx, b.id); err != nil {
		t.Fatal(err)
	}
	return b
}

// cluster3 runs f with three voters in virtual time, the first one leading.
func cluster3(t *testing.T, f func(t *testing.T, boxes []*box)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		lead := founded(t, newLAN())
		boxes := []*box{lead, grow(t, lead, 2), grow(t, lead, 3)}
		// raft refuses the vote of a server that the voter does not know as a
		// voter yet; until then the second alone cannot replace the first.
		until(t, 10*time.Second, "all know all voters", func() bool {
			return boxes[1].node.LastIndex() == lead.node.LastIndex() && boxes[2].node.LastIndex() == lead.node.LastIndex()
		})
		f(t, boxes)
	})
}

// leaderOf waits until one of the boxes leads.
func leaderOf(t *testing.T, boxes ...*box) *box {
	t.Helper()
	var found *box
	until(t, 20*time.Second, "somebody leads", func() bool {
		for _, b := range boxes {
			if b.node.Leads() {
				found = b
				return true
			}
		}
		return false
	})
	return found
}

// admission proposes a real command, about node i.
func (b *box) admission(ctx context.Context, i int) (state.Result, error) {
	lab := statetest.Lab{TB: b.t, S: b.node.State(), Now: statetest.Epoch, Index: b.node.LastIndex()}
	return b.node.Propose(ctx, state.KindAdmissionCreate, state.AdmissionCreate{Record: lab.Record(i)}, meta())
}

func meta() state.Meta {
	return state.Meta{Time: statetest.Epoch.Add(time.Minute), Actor: "test", RequestID: "r"}
}

func (b *box) admissions() int { return len(b.node.State().Admissions) }
