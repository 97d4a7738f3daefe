package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// sumFSM keeps all applied commands, and tells when something changed.
type sumFSM struct {
	mu       sync.Mutex
	changed  *sync.Cond
	applied  []string
	restored int
}

func newSumFSM() *sumFSM {
	f := &sumFSM{}
	f.changed = sync.NewCond(&f.mu)
	return f
}

func (f *sumFSM) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = append(f.applied, string(l.Data))
	f.changed.Broadcast()
	return nil
}

func (f *sumFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return listSnapshot(append([]string(nil), f.applied...)), nil
}

func (f *sumFSM) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = nil
	for len(b) > 0 {
		n := binary.BigEndian.Uint32(b)
		f.applied = append(f.applied, string(b[4:4+n]))
		b = b[4+n:]
	}
	f.restored++
	f.changed.Broadcast()
	return nil
}

// wait returns when n commands are applied, and how often it was restored.
func (f *sumFSM) wait(t *testing.T, n int) (applied []string, restored int) {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		n = -1
		f.changed.Broadcast()
	})
	defer late.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.applied) < n {
		f.changed.Wait()
	}
	if n < 0 {
		t.Fatalf("only %d commands came", len(f.applied))
	}
	return append([]string(nil), f.applied...), f.restored
}

type listSnapshot []string

func (l listSnapshot) Persist(sink raft.SnapshotSink) error {
	for _, s := range l {
		if _, err := sink.Write(appendField(nil, s)); err != nil {
			return err
		}
	}
	return sink.Close()
}

func (listSnapshot) Release() {}

// member is one raft server on real files.
type member struct {
	disk      *disk
	id        raft.ServerID
	fsm       *sumFSM
	raft      *raft.Raft
	store     *Store
	snapshots *Snapshots
	transport *raft.InmemTransport
}

func newMember(t *testing.T, id raft.ServerID) *member {
	t.Helper()
	return &member{disk: newDisk(t), id: id}
}

func (m *member) start(t *testing.T, others ...*member) {
	t.Helper()
	m.fsm = newSumFSM()
	m.store, m.snapshots = mustOpen(t, m.disk), m.disk.snapshots(t)
	if _, err := Probe(m.store, m.snapshots); err != nil {
		t.Fatal(err)
	}
	_, m.transport = raft.NewInmemTransport(raft.ServerAddress(m.id))
	c := raft.DefaultConfig()
	c.LocalID = m.id
	// Long enough that a busy machine loses no leader between two steps.
	c.HeartbeatTimeout, c.ElectionTimeout = time.Second, time.Second
	c.LeaderLeaseTimeout, c.CommitTimeout = time.Second, 5*time.Millisecond
	c.TrailingLogs = 5
	c.Logger = hclog.NewNullLogger()
	m.connect(others...)
	var err error
	logs, err := raft.NewLogCache(64, m.store)
	if err != nil {
		t.Fatal(err)
	}
	if m.raft, err = raft.NewRaft(c, m.fsm, logs, m.store, m.snapshots, m.transport); err != nil {
		t.Fatal(err)
	}
}

func (m *member) connect(others ...*member) {
	for _, o := range others {
		if o.transport != nil && o != m {
			m.transport.Connect(raft.ServerAddress(o.id), o.transport)
			o.transport.Connect(raft.ServerAddress(m.id), m.transport)
		}
	}
}

func (m *member) stop(t *testing.T) {
	t.Helper()
	if err := errors.Join(m.raft.Shutdown().Error(), m.transport.Close()); err != nil {
		t.Error(err)
	}
	closeStore(t, m.store)
	m.transport = nil
}

// leader waits until one of the members leads.
func leader(t *testing.T, members []*member) *member {
	t.Helper()
	found := make(chan *member, len(members))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			for {
				select {
				case leads := <-m.raft.LeaderCh():
					if leads {
						found <- m
						return
					}
				case <-done:
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer close(done)
	for _, m := range members {
		if m.raft.State() == raft.Leader {
			return m
		}
	}
	select {
	case m := <-found:
		return m
	case <-time.After(time.Minute):
		t.Fatal("nobody leads")
		return nil
	}
}

func (m *member) apply(t *testing.T, from, to int) {
	t.Helper()
	var futures []raft.ApplyFuture
	for i := from; i < to; i++ {
		futures = append(futures, m.raft.Apply(fmt.Append(nil, "command ", i), time.Minute))
	}
	for _, f := range futures {
		if err := f.Error(); err != nil {
			t.Fatal(err)
		}
	}
}

func checkApplied(t *testing.T, got []string, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d commands, want %d", len(got), n)
	}
	for i, s := range got {
		if s != fmt.Sprint("command ", i) {
			t.Fatalf("command %d is %q", i, s)
		}
	}
}

// TestRaftOnTheseStores runs three servers, each with its own data key, lets a
// fourth join by snapshot, and starts all of them again from their files.
func TestRaftOnTheseStores(t *testing.T) {
	members := []*member{newMember(t, "n1"), newMember(t, "n2"), newMember(t, "n3")}
	var servers raft.Configuration
	for _, m := range members {
		servers.Servers = append(servers.Servers, raft.Server{ID: m.id, Address: raft.ServerAddress(m.id)})
	}
	for _, m := range members {
		m.start(t, members...)
		if err := m.raft.BootstrapCluster(servers).Error(); err != nil {
			t.Fatal(err)
		}
	}
	lead := leader(t, members)
	lead.apply(t, 0, 50)
	for _, m := range members {
		applied, _ := m.fsm.wait(t, 50)
		checkApplied(t, applied, 50)
		if err := m.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
	}

	fourth := newMember(t, "n4")
	fourth.start(t, members...)
	if err := lead.raft.AddNonvoter("n4", "n4", 0, time.Minute).Error(); err != nil {
		t.Fatal(err)
	}
	applied, restored := fourth.fsm.wait(t, 50)
	checkApplied(t, applied, 50)
	if restored == 0 {
		t.Error("the fourth server was not given a snapshot")
	}
	lead.apply(t, 50, 60)
	fourth.fsm.wait(t, 60)
	members = append(members, fourth)

	for _, m := range members {
		m.stop(t)
	}
	for _, m := range members {
		m.start(t, members...)
	}
	leader(t, members).apply(t, 60, 65)
	for _, m := range members {
		applied, restored := m.fsm.wait(t, 65)
		checkApplied(t, applied, 65)
		if restored == 0 {
			t.Errorf("%s did not start from its snapshot", m.id)
		}
	}
	for _, m := range members {
		m.stop(t)
		if _, err := Audit(m.disk.store(t), m.snapshots); err != nil {
			t.Errorf("%s: %v", m.id, err)
		}
	}
}
