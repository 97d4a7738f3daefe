package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"rolekey/cluster"
	"rolekey/seal"
)

var testCluster = cluster.NewUUID()

// disk is the folder of one masterd.
type disk struct {
	dir     string
	context seal.Context
	keyring *seal.Keyring
}

func newDisk(t testing.TB) *disk {
	t.Helper()
	return diskAt(t, t.TempDir())
}

func diskAt(t testing.TB, dir string) *disk {
	t.Helper()
	d := &disk{dir: dir, context: seal.Context{Cluster: testCluster, Node: cluster.NewUUID(), Incarnation: 1}}
	k, err := seal.Create(filepath.Join(dir, "keyring"), d.context)
	if err != nil {
		t.Fatal(err)
	}
	d.keyring = k
	return d
}

func (d *disk) db() string { return filepath.Join(d.dir, "raft.db") }

func (d *disk) open() (*Store, error) {
	return OpenStore(StoreConfig{Path: d.db(), Sealer: d.keyring, LockTimeout: 50 * time.Millisecond})
}

func (d *disk) store(t testing.TB) *Store {
	t.Helper()
	s, err := d.open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func (d *disk) snapshots(t testing.TB) *Snapshots {
	t.Helper()
	s, err := OpenSnapshots(SnapshotsConfig{Dir: filepath.Join(d.dir, "snapshots"), Keyring: d.keyring})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rewrite changes raft.db behind the store's back.
func (d *disk) rewrite(t *testing.T, change func(tx *bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(d.db(), 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func entry(index, term uint64, data string) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte(data), AppendedAt: time.Unix(1700000000, 5).UTC()}
}

func entries(from, to uint64) (logs []*raft.Log) {
	for i := from; i <= to; i++ {
		logs = append(logs, entry(i, 1, fmt.Sprint("entry ", i)))
	}
	return logs
}

func storeAll(t testing.TB, s raft.LogStore, logs []*raft.Log) {
	t.Helper()
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
}

// TestLogStoreConformance holds our store and raft's own in-memory one to the
// same expectations.
func TestLogStoreConformance(t *testing.T) {
	tests := []struct {
		name        string
		do          func(t *testing.T, s raft.LogStore) error
		first, last uint64
		missing     []uint64
	}{
		{"empty", func(*testing.T, raft.LogStore) error { return nil }, 0, 0, []uint64{0, 1}},
		{"nothing to store", func(_ *testing.T, s raft.LogStore) error { return s.StoreLogs(nil) }, 0, 0, nil},
		{"one", func(_ *testing.T, s raft.LogStore) error { return s.StoreLog(entry(1, 1, "x")) }, 1, 1, []uint64{2}},
		{"many", func(t *testing.T, s raft.LogStore) error { return nil }, 1, 300, []uint64{0, 301}},
		{"first not 1", func(_ *testing.T, s raft.LogStore) error { return s.StoreLogs(entries(70, 72)) }, 70, 72, []uint64{1, 69, 73}},
		{"delete head", func(_ *testing.T, s raft.LogStore) error { return s.DeleteRange(1, 250) }, 251, 300, []uint64{1, 250}},
		{"delete tail", func(_ *testing.T, s raft.LogStore) error { return s.DeleteRange(251, 300) }, 1, 250, []uint64{251, 300}},
		{"delete one", func(_ *testing.T, s raft.LogStore) error { return s.DeleteRange(300, 300) }, 1, 299, []uint64{300}},
		{"delete all", func(_ *testing.T, s raft.LogStore) error { return s.DeleteRange(1, 300) }, 0, 0, []uint64{1, 300}},
		{"delete nothing", func(_ *testing.T, s raft.LogStore) error { return s.DeleteRange(301, 400) }, 1, 300, []uint64{301}},
		{"delete beyond the end", func(_ *testing.T, s raft.LogStore) error { return s.DeleteRange(290, 1000) }, 1, 289, []uint64{290}},
		{"delete then grow", func(_ *testing.T, s raft.LogStore) error {
			return errors.Join(s.DeleteRange(200, 300), s.StoreLogs(entries(200, 210)))
		}, 1, 210, []uint64{211}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, s := range map[string]raft.LogStore{"bbolt": newDisk(t).store(t), "in memory": raft.NewInmemStore()} {
				if tt.last >= 200 || strings.HasPrefix(tt.name, "delete") {
					storeAll(t, s, entries(1, 300))
				}
				if err := tt.do(t, s); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				checkEdges(t, s, tt.first, tt.last)
				for _, i := range tt.missing {
					if err := s.GetLog(i, new(raft.Log)); err != raft.ErrLogNotFound { //nolint:errorlint // raft compares so
						t.Errorf("%s: entry %d: got %v", name, i, err)
					}
				}
				for i := tt.first; i <= tt.last && tt.first > 0; i++ {
					var l raft.Log
					if err := s.GetLog(i, &l); err != nil || l.Index != i {
						t.Fatalf("%s: entry %d: got %v, %v", name, i, l.Index, err)
					}
				}
			}
		})
	}
}

func checkEdges(t *testing.T, s raft.LogStore, first, last uint64) {
	t.Helper()
	gotFirst, err1 := s.FirstIndex()
	gotLast, err2 := s.LastIndex()
	if gotFirst != first || gotLast != last || err1 != nil || err2 != nil {
		t.Fatalf("log from %d to %d (%v, %v), want %d to %d", gotFirst, gotLast, err1, err2, first, last)
	}
}

// TestLogStoreGap: raft installs a snapshot, keeps old entries and goes on far
// behind them.
func TestLogStoreGap(t *testing.T) {
	s := newDisk(t).store(t)
	storeAll(t, s, entries(1, 3))
	storeAll(t, s, entries(1<<40, 1<<40+1))
	checkEdges(t, s, 1, 1<<40+1)
	if err := s.GetLog(4, new(raft.Log)); err != raft.ErrLogNotFound { //nolint:errorlint // raft compares so
		t.Errorf("in the gap: got %v", err)
	}
	if err := s.DeleteRange(2, 1<<40); err != nil {
		t.Fatal(err)
	}
	checkEdges(t, s, 1, 1<<40+1)
	if _, ok := any(s).(raft.MonotonicLogStore); ok {
		t.Error("the store claims not to tolerate gaps")
	}
}

func TestLogStoreOverwrite(t *testing.T) {
	s := newDisk(t).store(t)
	storeAll(t, s, entries(1, 5))
	storeAll(t, s, []*raft.Log{entry(3, 9, "another")})
	var l raft.Log
	if err := s.GetLog(3, &l); err != nil || l.Term != 9 || string(l.Data) != "another" {
		t.Fatalf("got %+v, %v", l, err)
	}
}

func TestLogStoreKeepsEveryField(t *testing.T) {
	d := newDisk(t)
	s := d.store(t)
	logs := []*raft.Log{
		{Index: 1, Term: 1<<64 - 1, Type: raft.LogConfiguration, Data: []byte("d"), Extensions: []byte("e"), AppendedAt: time.Unix(-5, 999999999).UTC()},
		{Index: 2, Term: 3, Type: raft.LogNoop},
		{Index: 3, Data: bytes.Repeat([]byte("x"), 1<<20), AppendedAt: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
	storeAll(t, s, logs)
	for _, want := range logs {
		var got raft.Log
		if err := s.GetLog(want.Index, &got); err != nil || !reflect.DeepEqual(&got, want) {
			t.Errorf("entry %d: got %.200v, %v", want.Index, got, err)
		}
	}
	var got raft.Log
	if err := s.GetLog(2, &got); err != nil || !got.AppendedAt.IsZero() {
		t.Errorf("no time became %v, %v", got.AppendedAt, err)
	}
}

// TestLogStoreModel runs random operations, and restarts, beside a map.
func TestLogStoreModel(t *testing.T) {
	d := newDisk(t)
	rapid.Check(t, func(rt *rapid.T) {
		if err := os.RemoveAll(d.db()); err != nil {
			rt.Fatal(err)
		}
		s, err := d.open()
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { closeStore(t, s) }()
		model := raft.NewInmemStore()
		index := rapid.Uint64Range(1, 40)
		rt.Repeat(map[string]func(*rapid.T){
			"store": func(rt *rapid.T) {
				from := index.Draw(rt, "from")
				logs := entries(from, from+rapid.Uint64Range(0, 5).Draw(rt, "count"))
				if err := errors.Join(s.StoreLogs(logs), model.StoreLogs(logs)); err != nil {
					rt.Fatal(err)
				}
			},
			"delete": func(rt *rapid.T) {
				from := index.Draw(rt, "from")
				to := from + rapid.Uint64Range(0, 40).Draw(rt, "count")
				if err := errors.Join(s.DeleteRange(from, to), model.DeleteRange(from, to)); err != nil {
					rt.Fatal(err)
				}
			},
			"restart": func(rt *rapid.T) {
				closeStore(t, s)
				if s, err = d.open(); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) {
				last := uint64(0)
				for i := uint64(1); i <= 50; i++ {
					var got, want raft.Log
					err := s.GetLog(i, &got)
					if wantErr := model.GetLog(i, &want); !errors.Is(err, wantErr) || !reflect.DeepEqual(got, want) {
						rt.Fatalf("entry %d: got %v, %v; want %v, %v", i, got, err, want, wantErr)
					}
					if err == nil {
						last = i
					}
				}
				if got, err := s.LastIndex(); got != last || err != nil {
					rt.Fatalf("last is %d, %v; want %d", got, err, last)
				}
			},
		})
	})
}

func TestStableStore(t *testing.T) {
	d := newDisk(t)
	s := d.store(t)
	if _, err := s.Get([]byte("LastVoteCand")); err == nil || err.Error() != "not found" {
		t.Errorf("Get: got %v", err)
	}
	if _, err := s.GetUint64([]byte("CurrentTerm")); err == nil || err.Error() != "not found" {
		t.Errorf("GetUint64: got %v", err)
	}
	for _, term := range []uint64{7, 0, 1<<64 - 1} {
		if err := s.SetUint64([]byte("CurrentTerm"), term); err != nil {
			t.Fatal(err)
		}
		if got, err := s.GetUint64([]byte("CurrentTerm")); got != term || err != nil {
			t.Errorf("got %d, %v", got, err)
		}
	}
	if err := errors.Join(s.Set([]byte("LastVoteCand"), []byte("node1")), s.Set([]byte("empty"), nil)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get([]byte("LastVoteCand")); string(got) != "node1" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := s.Get([]byte("empty")); len(got) != 0 || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	var d1 *DamageError
	if _, err := s.GetUint64([]byte("LastVoteCand")); !errors.As(err, &d1) {
		t.Errorf("a name as a number: got %v", err)
	}
}

func TestStoreReopens(t *testing.T) {
	d := newDisk(t)
	s, err := d.open()
	if err != nil {
		t.Fatal(err)
	}
	storeAll(t, s, entries(5, 9))
	if err := s.SetUint64([]byte("CurrentTerm"), 4); err != nil {
		t.Fatal(err)
	}
	if _, err := d.open(); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: got %v", err)
	}
	closeStore(t, s)
	s = d.store(t)
	checkEdges(t, s, 5, 9)
	if term, err := s.GetUint64([]byte("CurrentTerm")); term != 4 || err != nil {
		t.Errorf("term %d, %v", term, err)
	}
	info, err := os.Stat(d.db())
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestG9StoreShowsNothing(t *testing.T) {
	d := newDisk(t)
	s, err := d.open()
	if err != nil {
		t.Fatal(err)
	}
	storeAll(t, s, []*raft.Log{{Index: 1, Data: []byte("secret-in-data"), Extensions: []byte("secret-in-extensions")}})
	if err := s.Set([]byte("LastVoteCand"), []byte("secret-in-vote")); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	raw, err := os.ReadFile(d.db())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("secret-in-")) || !bytes.Contains(raw, []byte("LastVoteCand")) {
		t.Fatal("plaintext is on disk, or the search is wrong")
	}
}

// TestG9StoreRecordMoved copies records to where they do not belong.
func TestG9StoreRecordMoved(t *testing.T) {
	foreign := newDisk(t).keyring.Seal(purposeLog, 2, encodeEntry(entry(2, 1, "evil")))
	twin := newDisk(t) // same keys, another place
	tests := []struct {
		name   string
		change func(tx *bolt.Tx) error
		want   error
		part   string
	}{
		{"entry copied to another index", func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketLog)
			return b.Put(indexKey(3), bytes.Clone(b.Get(indexKey(2))))
		}, seal.ErrTampered, "log entry 3"},
		{"entry replayed behind the end", func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketLog)
			return b.Put(indexKey(4), bytes.Clone(b.Get(indexKey(3))))
		}, seal.ErrTampered, "log entry 4"},
		{"entry of another node", func(tx *bolt.Tx) error {
			return tx.Bucket(bucketLog).Put(indexKey(2), foreign)
		}, seal.ErrWrongKey, "log entry 2"},
		{"entry in clear", func(tx *bolt.Tx) error {
			return tx.Bucket(bucketLog).Put(indexKey(2), encodeEntry(entry(2, 1, "evil")))
		}, seal.ErrWrongKey, "log entry 2"},
		{"entry cut", func(tx *bolt.Tx) error {
			return tx.Bucket(bucketLog).Put(indexKey(2), nil)
		}, seal.ErrTruncated, "log entry 2"},
		{"entry removed", func(tx *bolt.Tx) error {
			return tx.Bucket(bucketLog).Delete(indexKey(2))
		}, raft.ErrLogNotFound, "log entry 2"},
		{"key of the log cut", func(tx *bolt.Tx) error {
			return tx.Bucket(bucketLog).Put([]byte("x"), []byte("y"))
		}, errMalformed, "a key of the log"},
		{"term in place of vote term", func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketStable)
			return b.Put([]byte("LastVoteTerm"), bytes.Clone(b.Get([]byte("CurrentTerm"))))
		}, seal.ErrTampered, "stable value LastVoteTerm"},
		{"entry in place of term", func(tx *bolt.Tx) error {
			return tx.Bucket(bucketStable).Put([]byte("CurrentTerm"), bytes.Clone(tx.Bucket(bucketLog).Get(indexKey(1))))
		}, seal.ErrTampered, "stable value CurrentTerm"},
		{"good", func(*bolt.Tx) error { return nil }, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &disk{dir: t.TempDir(), context: twin.context, keyring: twin.keyring}
			s, err := d.open()
			if err != nil {
				t.Fatal(err)
			}
			storeAll(t, s, entries(1, 3))
			if err := s.SetUint64([]byte("CurrentTerm"), 1); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			d.rewrite(t, tt.change)
			_, err = Probe(d.store(t), d.snapshots(t))
			checkDamage(t, err, tt.want, tt.part)
		})
	}
}
